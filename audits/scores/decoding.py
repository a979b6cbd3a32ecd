"""Decoders of masked spans, many rows at once: confidence first, beam search, Gibbs sampling.

The decoder from left to right is `scoring.greedy`. All take rows of token ids without special
tokens and the place of a span in each, all of one length; what stands in the span is masked before
the first step, and special tokens are never said. A row is CLS, tokens, SEP. Shapes: N rows, T
positions of a row, L of the span, B hypotheses of a beam, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audits.models import LoadedModel
from audits.scores.scoring import (
    Progress,
    check_fits,
    forward_at,
    masked_row,
    padded,
    rows_at_once,
    unsaid,
)
from dpmlm.artifacts import UserError

BEAM = 10
"""Hypotheses that beam search keeps."""
SWEEPS = 4
"""Times that Gibbs sampling visits every position of a span."""

Rows = Sequence[Sequence[int]]
Places = Sequence[tuple[int, int]]

_ROWS = 256  # of a batch, at most


def confidence_first(
    subject: LoadedModel, rows: Rows, places: Places, *, progress: Progress | None = None
) -> np.ndarray:
    """Fill the surest position first, and look again; int64 [N, L] ids.

    Each step takes, over all open positions, the token of highest probability (mask-predict with
    one token a step: Ghazvininejad et al. 2019, arXiv 1904.09324). Rows for which the model gave
    a logit that is not finite are -1 throughout.
    """
    length = _length(subject, rows, places)
    result = np.empty((len(rows), length), dtype=np.int64)
    for part, board in _boards(subject, rows, places, positions=length):
        each = torch.arange(len(part), device=board.ids_NT.device)
        open_NL = torch.ones_like(board.at_NL, dtype=torch.bool)
        for step in range(length):
            at = board.at_NL[open_NL].view(len(part), length - step)
            logits = board.logits(at)
            top, token = logits.max(dim=-1)
            best = (top - logits.logsumexp(dim=-1)).argmax(dim=-1)
            position = at[each, best]
            board.ids_NT[each, position] = token[each, best]
            open_NL[each, position - board.at_NL[:, 0]] = False
        result[part] = board.said()
        _tell(progress, len(part))
    return result


def beam(
    subject: LoadedModel,
    rows: Rows,
    places: Places,
    *,
    width: int = BEAM,
    progress: Progress | None = None,
) -> np.ndarray:
    """The spans that a left-to-right beam ends with, likeliest first; int64 [N, K, L] ids.

    A hypothesis scores sum_j log p(s_j given s_<j, with s_>=j masked); K is `width`, or as many
    spans as there are. Rows for which the model gave a logit that is not finite are -1 throughout.
    """
    length = _length(subject, rows, places)
    spans = (subject.vocab_size - len(unsaid(subject))) ** length
    result = np.empty((len(rows), min(width, spans), length), dtype=np.int64)
    for part, board in _boards(subject, rows, places, each=width):
        score_NB = torch.zeros(len(part), 1, dtype=torch.float64, device=board.ids_NT.device)
        for step in range(length):
            beams = score_NB.shape[1]
            kept = min(width, board.sayable)
            logits = board.logits(board.at_NL[:, step : step + 1])[:, 0]
            best, token = logits.topk(kept, dim=-1)
            best = best.double() - logits.logsumexp(dim=-1, keepdim=True)
            total = (score_NB.view(-1, 1) + best).view(len(part), beams * kept)
            score_NB, chosen = total.topk(min(width, beams * kept), dim=-1)
            offset = torch.arange(len(part), device=chosen.device)[:, None] * beams
            board.branch((offset + chosen // kept).view(-1))
            said = token.view(len(part), -1).gather(1, chosen).view(-1, 1)
            board.ids_NT.scatter_(1, board.at_NL[:, step : step + 1], said)
        result[part] = board.said().reshape(len(part), -1, length)
        _tell(progress, len(part))
    return result


def gibbs(
    subject: LoadedModel,
    rows: Rows,
    places: Places,
    *,
    seed: int,
    keys: Sequence[int],
    sweeps: int = SWEEPS,
    progress: Progress | None = None,
) -> np.ndarray:
    """Gibbs sampling from an all-masked span, then one sweep of best tokens; int64 [N, L] ids.

    Wang and Cho 2019 (arXiv 1902.04094): mask one position, draw its token given all the others,
    again and again; after a burn-in they take the best token instead. A sweep here visits every
    position once in a random order, so that none stays masked; the last of `sweeps` takes the best
    tokens. What a row draws follows from `seed` and its own key, one a row, whatever other rows
    are in the batch. Rows for which the model gave a logit that is not finite are -1 throughout.
    """
    length = _length(subject, rows, places)
    result = np.empty((len(rows), length), dtype=np.int64)
    for part, board in _boards(subject, rows, places):
        order, uniform = _draws(seed, [keys[row] for row in part], sweeps, length)
        for sweep in range(sweeps):
            for step in range(length):
                visited = torch.as_tensor(order[:, sweep, step, None], device=subject.device)
                at = board.at_NL.gather(1, visited)
                board.ids_NT.scatter_(1, at, subject.ids.mask)
                logits = board.logits(at)[:, 0]
                if sweep == sweeps - 1:
                    token = logits.argmax(dim=-1, keepdim=True)
                else:
                    drawn = torch.as_tensor(uniform[:, sweep, step, None], device=subject.device)
                    token = _inverse(logits, drawn)
                board.ids_NT.scatter_(1, at, token)
        result[part] = board.said()
        _tell(progress, len(part))
    return result


def span_logprobs(
    subject: LoadedModel, rows: Rows, places: Places, *, progress: Progress | None = None
) -> np.ndarray:
    """log-probability that sampling from left to right says each span; float64 [N].

    sum_j log p(s_j given s_<j, with s_>=j masked), p at temperature 1 over the vocabulary without
    special tokens: -inf for a span that holds one. NaN where a logit is not finite.
    """
    length = _length(subject, rows, places)
    result = np.zeros(len(rows))
    for part, board in _boards(subject, rows, places):
        spans = [list(rows[n][slice(*places[n])]) for n in part]
        truth = torch.tensor(spans, device=subject.device)
        total = torch.zeros(len(part), dtype=torch.float64, device=subject.device)
        for step in range(length):
            at = board.at_NL[:, step : step + 1]
            said = truth[:, step : step + 1]
            logits = board.logits(at)[:, 0].double()
            total += logits.gather(1, said)[:, 0] - logits.logsumexp(dim=-1)
            board.ids_NT.scatter_(1, at, said)
        total[~board.sound_N] = torch.nan
        result[part] = total.cpu().numpy()
        _tell(progress, len(part))
    return result


@dataclass
class _Board:
    """Rows that are being filled in, on the model's device."""

    subject: LoadedModel
    ids_NT: Tensor
    attention_NT: Tensor
    at_NL: Tensor
    """Positions of the span in each row."""
    sound_N: Tensor
    """Whether all logits were finite so far."""
    banned: Tensor
    """Ids that are never said."""

    @property
    def sayable(self) -> int:
        """Ids that may be said."""
        return self.subject.vocab_size - len(self.banned)

    def logits(self, at_NL: Tensor) -> Tensor:
        """Logits at some positions of each row, -inf for special tokens; float32 [N, L, V]."""
        logits = forward_at(self.subject, self.ids_NT, self.attention_NT, at_NL)
        ends = torch.stack(torch.aminmax(logits.flatten(1), dim=-1))  # one pass; NaN comes through
        self.sound_N &= torch.isfinite(ends).all(dim=0)
        return logits.index_fill_(-1, self.banned, -torch.inf)

    def branch(self, parents: Tensor) -> None:
        """Replace the rows by copies of some of them."""
        self.ids_NT, self.attention_NT = self.ids_NT[parents], self.attention_NT[parents]
        self.at_NL, self.sound_N = self.at_NL[parents], self.sound_N[parents]

    def said(self) -> np.ndarray:
        """The filled spans; -1 where the model gave a logit that is not finite."""
        tokens = self.ids_NT.gather(1, self.at_NL)
        return tokens.masked_fill(~self.sound_N[:, None], -1).cpu().numpy()


def _boards(
    subject: LoadedModel, rows: Rows, places: Places, *, positions: int = 1, each: int = 1
) -> Iterator[tuple[list[int], _Board]]:
    """Boards of rows of like length, with the numbers of these, as `rows_at_once` sizes them."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    banned, first = unsaid(subject), 0
    while first < len(order):
        longest = len(rows[order[min(first + _ROWS, len(order)) - 1]]) + 2
        size = rows_at_once(subject, longest, positions, _ROWS, each=each)
        part = order[first : first + size]
        yield part, _board(subject, [rows[n] for n in part], [places[n] for n in part], banned)
        first += size


def _board(subject: LoadedModel, rows: Rows, places: Places, banned: Tensor) -> _Board:
    masked = [masked_row(subject, row, place) for row, place in zip(rows, places)]
    positions = [list(range(start + 1, end + 1)) for start, end in places]
    at = torch.tensor(positions, device=subject.device)
    sound = torch.ones(len(rows), dtype=torch.bool, device=subject.device)
    return _Board(subject, *padded(subject, masked), at, sound, banned)


def _length(subject: LoadedModel, rows: Rows, places: Places) -> int:
    lengths = {end - start for start, end in places}
    if len(lengths) != 1 or 0 in lengths:
        raise UserError(
            f"spans of {len(lengths)} lengths, or empty ones",
            "one call decodes spans of one length, of a token or more",
            "group the spans by length",
        )
    check_fits(subject, rows)
    return lengths.pop()


def _draws(
    seed: int, keys: Sequence[int], sweeps: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Orders of the positions, and uniform numbers in [0, 1); both [N, sweeps, L]."""
    order = np.empty((len(keys), sweeps, length), dtype=np.int64)
    uniform = np.empty((len(keys), sweeps, length))
    for row, key in enumerate(keys):
        rng = np.random.default_rng([seed, key])
        order[row] = [rng.permutation(length) for _ in range(sweeps)]
        uniform[row] = rng.random((sweeps, length))
    return order, uniform


def _inverse(logits_NV: Tensor, uniform_N1: Tensor) -> Tensor:
    """The token at which each row's cumulative probability passes a number; int64 [N, 1]."""
    cumulative = logits_NV.double().softmax(dim=-1).cumsum(dim=-1)
    found = torch.searchsorted(cumulative, uniform_N1 * cumulative[:, -1:], right=True)
    return found.clamp(max=cumulative.shape[1] - 1)


def _tell(progress: Progress | None, rows: int) -> None:
    if progress is not None:
        progress(rows)
