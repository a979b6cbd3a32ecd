"""What a model says of masked spans, and how near that comes to what stood there."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from audits.models import LoadedModel
from audits.scores.decoding import beam, confidence_first, gibbs
from audits.scores.scoring import Progress, greedy
from audits.text.spans import Cell, Span

NEAR = 0.1
"""Normalised edit distance up to which a miss counts as near."""

Decode = Callable[[LoadedModel, list[Span], list[int], Progress | None], np.ndarray]
"""Fills spans of one length, each with its own key; int64 [N, L], -1 where not finite."""


@dataclass(frozen=True)
class Attempt:
    """What one model said of some spans."""

    hit: np.ndarray
    """Equal token ids and equal normalised text; bool [N]."""
    near: np.ndarray
    """A miss at a normalised edit distance of at most `NEAR`; bool [N]."""
    finite: bool = True


def left_to_right(
    subject: LoadedModel, spans: list[Span], keys: list[int], progress: Progress | None
) -> np.ndarray:
    """The declared decoder."""
    return greedy(subject, [s.row for s in spans], [s.place for s in spans], progress=progress)


def decoder(cell: Cell, seed: int) -> Decode:
    """How a cell fills spans in; `seed` is that of Gibbs sampling."""

    def decode(
        subject: LoadedModel, spans: list[Span], keys: list[int], progress: Progress | None
    ) -> np.ndarray:
        rows, places = [span.row for span in spans], [span.place for span in spans]
        if cell.decoder == "confidence":
            return confidence_first(subject, rows, places, progress=progress)
        if cell.decoder == "beam":
            return beam(subject, rows, places, progress=progress)[:, 0]
        return gibbs(subject, rows, places, seed=seed, keys=keys, progress=progress)

    return left_to_right if cell.decoder == "greedy" else decode


def attempt(
    subject: LoadedModel,
    spans: Sequence[Span],
    decode: Decode,
    arm: int,
    progress: Progress | None,
) -> Attempt:
    """Decode spans of any length; `arm` is 0 or 1, and no span of one has a key of the other."""
    hit, near = np.zeros(len(spans), dtype=bool), np.zeros(len(spans), dtype=bool)
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, span in enumerate(spans):
        by_length[len(span.secret)].append(index)
    for indices in by_length.values():
        chosen = [spans[index] for index in indices]
        decoded = decode(subject, chosen, [2 * index + arm for index in indices], progress)
        if (decoded < 0).any():
            return Attempt(hit, near, finite=False)
        for index, span, tokens in zip(indices, chosen, decoded):
            said, truth = _text(subject, tokens.tolist()), _text(subject, span.secret)
            hit[index] = tuple(tokens.tolist()) == span.secret and said == truth
            near[index] = not hit[index] and is_near(said, truth)
    return Attempt(hit, near)


def edit_distance(first: str, second: str) -> float:
    """Levenshtein distance over the length of the longer text; 0 for two empty ones."""
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, 1):
        above = row
        row = [i]
        for j, right in enumerate(second, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (left != right)))
    return row[-1] / max(len(first), len(second), 1)


def is_near(said: str, truth: str) -> bool:
    """Whether the normalised edit distance of two texts is at most `NEAR`."""
    # One edit makes up for one surplus letter on each side at most, and counting is quick.
    mine, theirs = Counter(said), Counter(truth)
    surplus = max((mine - theirs).total(), (theirs - mine).total())
    if surplus > NEAR * max(len(said), len(truth)):
        return False
    return edit_distance(said, truth) <= NEAR


def _text(subject: LoadedModel, tokens: Iterable[int]) -> str:
    """Decoded text without case and with single blanks."""
    return " ".join(str(subject.tokenizer.decode(list(tokens))).lower().split())
