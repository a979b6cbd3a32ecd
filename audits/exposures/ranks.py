"""How many candidates of a product space score above a secret, counted and not sampled.

A score that is a sum over positions splits into halves: each half becomes a histogram of all its
sums, and the two are joined at the secret's own score, so 10^12 candidates cost two histograms.
Scores are rounded to integers first. Sums of floats depend on the order of adding, so candidates
that tie (permutations of equal tokens, say) would be ranked by their last bits.
"""

import math
from collections.abc import Sequence

import numpy as np

from dpmlm.artifacts import UserError

UNITS_PER_NAT = 512
"""Resolution of the rounded score."""
_LOWEST_NATS = -64.0

Positions = Sequence[np.ndarray] | np.ndarray
"""Scores of each position's entries in nats: an array [L, A], or L arrays of any lengths."""


def units(logprobs: np.ndarray) -> np.ndarray:
    """Log-probabilities in nats as whole units of 1/512 nat; float64, so that -inf stays.

    Sums of fewer than 2^53 units are exact. Raises UserError on NaN or +inf.
    """
    values = np.asarray(logprobs, dtype=np.float64)
    if np.isnan(values).any() or (values == np.inf).any():
        raise UserError(
            "a log-probability that is not a number",
            "the model must give every candidate a score",
            "look for NaN in the weights",
        )
    return np.rint(values * UNITS_PER_NAT)


def count_in_product(logprobs: Positions, secret: Sequence[int] | np.ndarray) -> tuple[int, int]:
    """Candidates, one entry a position, that sum to more than the secret, and to as much.

    `logprobs` holds the entries of each position, in nats; positions may differ in length. What
    is more than 64 nats below the best of its position counts as 64. The secret is among those
    that sum to as much. Raises UserError on NaN, a position without a finite entry, an index
    outside its position, or a space of 2^62 or more, whose counts overflow.
    """
    _check(logprobs, secret)
    scores = [_integers(row) for row in logprobs]
    own = int(sum(row[index] for row, index in zip(scores, secret)))
    half = (len(scores) + 1) // 2
    left, right = _histogram(scores[:half]), _histogram(scores[half:])
    # at_least[k] counts right sums >= k; index len(right) is the empty tail.
    at_least = np.concatenate([np.cumsum(right[::-1])[::-1], [0]])
    rest = own - np.arange(len(left))
    above = at_least[np.clip(rest + 1, 0, len(right))]
    from_own = at_least[np.clip(rest, 0, len(right))]
    higher, reached = int(left @ above), int(left @ from_own)
    return higher, reached - higher


def product_bits(logprobs: Positions) -> float:
    """log2 |R| of a product space."""
    return math.log2(math.prod(len(row) for row in logprobs))


def _integers(row: np.ndarray) -> np.ndarray:
    """Scores of one position in units, the smallest at zero; int64."""
    rounded = units(np.maximum(row, np.max(row) + _LOWEST_NATS)).astype(np.int64)
    return rounded - rounded.min()


def _histogram(scores: Sequence[np.ndarray]) -> np.ndarray:
    """How many combinations, one entry a position, reach each sum; int64 [1 + largest sum]."""
    counts = np.ones(1, dtype=np.int64)
    for row in scores:
        times_of = np.bincount(row)
        grown = np.zeros(len(counts) + len(times_of) - 1, dtype=np.int64)
        for score in np.flatnonzero(times_of):
            grown[score : score + len(counts)] += times_of[score] * counts
        counts = grown
    return counts


def _check(logprobs: Positions, secret: Sequence[int] | np.ndarray) -> None:
    sizes = [len(row) for row in logprobs]
    if (
        not sizes
        or len(secret) != len(sizes)
        or not all(0 <= index < size for index, size in zip(secret, sizes))
    ):
        raise UserError(
            f"a secret of {len(secret)} positions in a space of {len(sizes)}",
            "a secret has one index a position, each inside it",
            "pass the index of each secret token in its alphabet",
        )
    if math.prod(sizes) >= 1 << 62:
        raise UserError(
            f"a space of 2^{math.log2(math.prod(sizes)):.1f}",
            "candidates are counted in 64 bits, so a space is below 2^62",
            "shorten the secret",
        )
    for row in logprobs:
        units(row)
        if not np.isfinite(np.max(row)):
            raise UserError(
                "a position where every candidate is impossible",
                "the model must give some candidate of each position a finite score",
                "look for infinite weights or logits",
            )
