"""The exact rank of a secret by its left-to-right score, in a tree of prefixes.

What follows a prefix is masked, so one input scores all its next tokens: six digits take 111,111
inputs for 10^6 candidates. Log-probabilities are never positive, so a prefix that has fallen below
the secret's whole score leads to no candidate above it and is dropped. Probabilities of prefixes
of one length sum to at most 1, so about 1/p of them stay for a secret of probability p: a
memorised secret is ranked in a space of any size. Shapes: F prefixes, D tokens of each, V
vocabulary.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from audits.exposures.exposure import Exposure
from audits.exposures.ranks import units
from audits.models import LoadedModel
from audits.planting.canary import Canary
from audits.scores.scoring import Progress, check_fits, logits_at, masked_row, rows_at_once
from audits.scores.sequence import SpanScorer
from dpmlm.artifacts import UserError

MOST_INPUTS = 1 << 18
"""Inputs after which a tree is given up; six digits stay below."""

Tokens = tuple[int, ...]


class TreeTooLarge(UserError):
    """More inputs would be needed than were allowed; known before these are asked."""


_Grow = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From prefixes [F, D] to the (parent, token) pairs of what may follow, parents in order."""


@dataclass(frozen=True)
class TreeRank:
    """Where a secret stands among all that it might have been, by the left-to-right score."""

    exposure: Exposure
    """In bits, under both conventions for ties."""
    inputs: int
    """Masked inputs that the tree asked of the model."""


def left_to_right_exposure(
    subject: LoadedModel,
    canary: Canary,
    *,
    most_inputs: int = MOST_INPUTS,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> TreeRank:
    """Exact exposure of a canary in its product of alphabets, in units of 1/512 nat.

    Raises UserError on scores that are NaN, on rows or ids beyond the model; TreeTooLarge when it
    would take more than `most_inputs`, as for an unlikely secret in a large space: sample then.
    """
    check_fits(subject, [canary.tokens, [max(map(max, canary.alphabets))]])
    tree = _Tree(subject, canary.prefix, canary.secret, most_inputs, batch_size, progress)
    higher, equal = tree.own(_in_product(canary.alphabets))
    return TreeRank(Exposure.of(higher, equal, canary.space_bits), tree.inputs)


def exposure_among(
    subject: LoadedModel,
    before: Tokens,
    secret: Tokens,
    candidates: Sequence[Tokens],
    *,
    most_inputs: int = MOST_INPUTS,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> TreeRank:
    """Exact exposure of `secret` after `before` among `candidates`, of which it is one.

    Candidates are different, and may differ in their number of tokens: a tree is grown for each
    number, as what is masked tells it. Raises UserError as `left_to_right_exposure` does.
    """
    check_fits(subject, [before + candidate for candidate in candidates])
    by_length: dict[int, list[Tokens]] = defaultdict(list)
    for candidate in candidates:
        by_length[len(candidate)].append(candidate)
    tree = _Tree(subject, before, secret, most_inputs, batch_size, progress)
    higher, equal = tree.own(_in_list(by_length.pop(len(secret))))
    for length, others in by_length.items():
        more, as_high = tree.others(_in_list(others), length)
        higher, equal = higher + more, equal + as_high
    return TreeRank(Exposure.of(higher, equal, math.log2(len(candidates))), tree.inputs)


class _Tree:
    """Grows trees that share a row and a secret, and counts the inputs."""

    def __init__(
        self,
        subject: LoadedModel,
        before: Tokens,
        secret: Tokens,
        most_inputs: int,
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        self.inputs = 0
        self._subject, self._before, self._secret = subject, before, secret
        self._most, self._batch_size, self._progress = most_inputs, batch_size, progress
        self._score = math.nan

    def own(self, grow: _Grow) -> tuple[int, int]:
        """Candidates of the secret's length above it, and level with it, itself included."""
        start, length = len(self._before), len(self._secret)
        row = self._before + self._secret
        first = SpanScorer(self._subject).score([row], [(start, start + length)])[0]
        # Two batches of one input may round to neighbouring units: a unit a position of slack. The
        # secret is compared at the end by the score that the tree itself gave it.
        scores, at = self._leaves(grow, length, float(units(first).sum()) - length, self._secret)
        self._score = float(scores[at])
        return self._counts(scores)

    def others(self, grow: _Grow, length: int) -> tuple[int, int]:
        """Candidates of another length above the secret, and level with it."""
        return self._counts(self._leaves(grow, length, self._score, None)[0])

    def _counts(self, scores: np.ndarray) -> tuple[int, int]:
        return int((scores > self._score).sum()), int((scores == self._score).sum())

    def _leaves(
        self, grow: _Grow, length: int, floor: float, own: Tokens | None
    ) -> tuple[np.ndarray, int]:
        """Scores of all candidates from `floor` on, and which of them is `own`, kept anyway."""
        prefixes, scores, at = np.empty((1, 0), dtype=np.int64), np.zeros(1), 0
        for depth in range(length):
            self.inputs += len(prefixes)
            _check_size(self.inputs, self._most)
            parents, tokens = grow(prefixes)
            grown = scores[parents] + self._next(prefixes, length, parents, tokens)
            kept = grown >= floor
            if own is not None:
                mine = int(np.flatnonzero((parents == at) & (tokens == own[depth]))[0])
                kept[mine] = True
                at = int(kept[:mine].sum())
            prefixes = np.concatenate([prefixes[parents[kept]], tokens[kept, None]], axis=1)
            scores = grown[kept]
        return scores, at

    def _next(
        self, prefixes: np.ndarray, length: int, parents: np.ndarray, tokens: np.ndarray
    ) -> np.ndarray:
        """Of each (parent, token) pair the token's log-probability after the prefix, in units."""
        depth, start = prefixes.shape[1], len(self._before) + 1
        hidden = self._before + (0,) * length
        span = (len(self._before), len(hidden))
        row = np.array(masked_row(self._subject, hidden, span), dtype=np.int64)
        size = rows_at_once(self._subject, len(row), 1, self._batch_size)
        result = np.empty(len(parents))
        for begin in range(0, len(prefixes), size):
            part = prefixes[begin : begin + size]
            rows = np.tile(row, (len(part), 1))
            rows[:, start : start + depth] = part
            places = np.full((len(part), 1), start + depth)
            logits_FV = logits_at(self._subject, rows.tolist(), places)[:, 0]
            logprobs_FV = torch.log_softmax(logits_FV.double(), dim=-1)
            low, high = np.searchsorted(parents, [begin, begin + len(part)])
            pairs = np.stack([parents[low:high] - begin, tokens[low:high]])
            index = torch.as_tensor(pairs, device=self._subject.device)
            result[low:high] = units(logprobs_FV[index[0], index[1]].cpu().numpy())
            if self._progress is not None:
                self._progress(len(part))
        return result


def _in_product(alphabets: Sequence[Sequence[int]]) -> _Grow:
    def grow(prefixes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        choices = np.array(alphabets[prefixes.shape[1]], dtype=np.int64)
        each = np.arange(len(prefixes))
        return np.repeat(each, len(choices)), np.tile(choices, len(prefixes))

    return grow


def _in_list(candidates: Sequence[Tokens]) -> _Grow:
    following: dict[Tokens, set[int]] = defaultdict(set)
    for candidate in candidates:
        for depth, token in enumerate(candidate):
            following[candidate[:depth]].add(token)

    def grow(prefixes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = [
            (parent, token)
            for parent, prefix in enumerate(map(tuple, prefixes.tolist()))
            for token in sorted(following[prefix])
        ]
        found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    return grow


def _check_size(inputs: int, most_inputs: int) -> None:
    if inputs > most_inputs:
        raise TreeTooLarge(
            f"a prefix tree of more than {most_inputs} inputs",
            "the exact left-to-right rank needs one for each prefix at least as likely as the"
            " secret",
            "sample alternatives instead, or allow more inputs",
        )
