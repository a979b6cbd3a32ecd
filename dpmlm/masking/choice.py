"""What each strategy masks in the rows of a batch."""

from typing import NamedTuple

import numpy as np

from dpmlm.masking.spec import MaskingSpec
from dpmlm.masking.strategies import choose_tokens, choose_units, cut_units, span_starts
from dpmlm.masking.table import TokenTable


class Draws(NamedTuple):
    """What choosing may draw from, float64 [B, ...] in [0, 1)."""

    keys: np.ndarray
    turns: np.ndarray
    lengths: np.ndarray


def choose(
    draws: Draws,
    content: np.ndarray,
    maskable: np.ndarray,
    counts: np.ndarray,
    names: np.ndarray | None,
    table: TokenTable,
    spec: MaskingSpec,
) -> tuple[np.ndarray, np.ndarray]:
    """(chosen tokens, where what is masked together begins), each bool [B, T].

    No unit is longer than `spec.longest`, nor than twice the row's count: in short rows, that keeps
    the tokens masked below twice the count on average.
    """
    keys, turns = draws.keys, draws.turns
    weights = None if table.weights is None else table.weights[content]
    if spec.strategy == "token":
        if weights is not None:
            keys = -np.log1p(-keys) / weights
        return choose_tokens(keys, maskable, counts), maskable
    longest = np.clip(2 * counts, 1, spec.longest)
    rest, first, named = maskable, counts, np.zeros_like(maskable)
    starts = np.zeros_like(maskable)
    if names is not None:
        starts = _name_starts(names, maskable)
        pool = maskable & (names > 0)
        starts = cut_units(keys, starts, pool, longest)
        wanted = _name_counts(pool, maskable, counts, spec.entity_share)
        named = choose_units(keys, starts, pool, wanted, turns[:, 1], weights)
        rest, first = maskable & ~pool, np.maximum(0, counts - named.sum(axis=1))
    words = cut_units(keys, table.word_starts(content, rest), rest, longest)
    if spec.strategy == "span":
        words = span_starts(draws.lengths, words, rest, longest)
    first = np.minimum(first, rest.sum(axis=1))
    return named | choose_units(keys, words, rest, first, turns[:, 0], weights), words | starts


def _name_starts(names: np.ndarray, maskable: np.ndarray) -> np.ndarray:
    """Where names begin, bool [B, T]: also behind a token that cannot be masked."""
    starts = maskable & (names == 1)
    after = maskable & (names == 2)
    starts |= after
    starts[:, 1:] &= ~(after[:, 1:] & maskable[:, :-1] & (names[:, :-1] > 0))
    return starts


def _name_counts(
    pool: np.ndarray, maskable: np.ndarray, counts: np.ndarray, share: float
) -> np.ndarray:
    """How many of `counts` tokens are to stand in names, int64 [B]: more where little else does."""
    there = pool.sum(axis=1)
    wanted = np.maximum(np.rint(share * counts), counts - (maskable.sum(axis=1) - there))
    return np.minimum(there, np.maximum(1, wanted)).astype(np.int64)
