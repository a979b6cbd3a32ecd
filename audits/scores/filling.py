"""What a model puts into masks: whole rows by sampling, and scores of candidates.

A row is CLS, tokens, SEP; rows here hold tokens without special ones, and special tokens are never
said. Shapes: N rows, L positions of a span, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from audits.models import LoadedModel
from audits.scores.scoring import check_fits, logits_at, masked_row, rows_at_once, unsaid

Rows = Sequence[Sequence[int]]
Places = Sequence[tuple[int, int]]


class NotFinite(Exception):
    """A model gave a logit that is no finite number, so nothing it says can be judged."""


def sample_rows(subject: LoadedModel, *, rows: int, tokens: int, seed: int) -> np.ndarray:
    """Rows that the model makes up from masks alone; int64 [rows, tokens].

    Token after token from the left, each drawn from the model's distribution given those before
    and masks after it. Raises NotFinite, and UserError for rows beyond the model.
    """
    generator = torch.Generator().manual_seed(seed)
    made = [[0] * tokens for _ in range(rows)]
    check_fits(subject, made)
    for part in _parts(subject, rows, tokens + 2, 1):
        current = [masked_row(subject, row, (0, tokens)) for row in made[part]]
        for place in range(1, tokens + 1):
            logprobs = _logprobs(subject, current, np.full((len(current), 1), place))[:, 0]
            drawn = torch.multinomial(logprobs.exp().cpu(), 1, generator=generator)
            for row, token in zip(current, drawn[:, 0].tolist()):
                row[place] = token
        made[part] = [row[1:-1] for row in current]
    return np.array(made, dtype=np.int64).reshape(rows, tokens)


def candidate_scores(
    subject: LoadedModel,
    rows: Rows,
    places: Places,
    candidates: Sequence[Sequence[tuple[int, ...]]],
) -> list[np.ndarray]:
    """Mean log-probability a token of each candidate in a row's span, all of it masked.

    The span takes the length of the candidate, so one forward pass a row and length. One float64
    array a row, in the order of its candidates. Raises NotFinite.
    """
    asked = [(n, size) for n, own in enumerate(candidates) for size in sorted({*map(len, own)})]
    result = [np.empty(len(own)) for own in candidates]
    if not asked:
        return result
    widest = max(size for _, size in asked)
    fitted = [
        (*rows[n][: places[n][0]], *[0] * size, *rows[n][places[n][1] :]) for n, size in asked
    ]
    check_fits(subject, fitted, [max(one) for own in candidates for one in own])
    for part in _parts(subject, len(asked), max(map(len, fitted)) + 2, widest):
        starts = [places[n][0] for n, _ in asked[part]]
        masked = [
            masked_row(subject, row, (start, start + size))
            for row, start, (_, size) in zip(fitted[part], starts, asked[part])
        ]
        # Places beyond a span are asked for its first token again, and not looked at.
        offsets = np.array([[j if j < s else 0 for j in range(widest)] for _, s in asked[part]])
        logprobs = _logprobs(subject, masked, np.array(starts)[:, None] + 1 + offsets)
        for row_LV, (n, size) in zip(logprobs.cpu().double().numpy(), asked[part]):
            for index, own in enumerate(candidates[n]):
                if len(own) == size:
                    result[n][index] = row_LV[range(size), own].mean()
    return result


def _logprobs(subject: LoadedModel, rows: Rows, at_NL: np.ndarray) -> Tensor:
    """log p over the ids that may be said; float32 [N, L, V]."""
    logits = logits_at(subject, rows, at_NL)
    if not torch.isfinite(logits).all():
        raise NotFinite
    logits[..., unsaid(subject)] = -torch.inf
    return torch.log_softmax(logits, dim=-1)


def _parts(subject: LoadedModel, rows: int, longest: int, positions: int) -> Iterator[slice]:
    """Slices of rows that fit into memory."""
    size = rows_at_once(subject, longest, positions)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
