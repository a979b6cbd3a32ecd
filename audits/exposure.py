"""Exposure: how far a secret's rank among all it might have been is from chance, in bits.

E = log2 |R| - log2 rank (Carlini et al. 2019, arXiv 1802.08232). The joint score of a masked
model is a sum over positions, so the rank in 2^36 candidates is counted, not sampled: the scores
are rounded to integers, each half of the span becomes a histogram of all its sums, and the two
histograms are joined at the secret's own score. The count is exact for the rounded score, which
is itself a rule fixed beforehand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpmlm.artifacts import UserError

UNITS_PER_NAT = 512
"""Resolution of the rounded score."""
_LOWEST_NATS = -64.0


@dataclass(frozen=True)
class Exposure:
    """One secret's exposure under both conventions for ties, in bits."""

    optimistic: float
    """log2 |R| - log2(1 + candidates that score higher)."""
    conservative: float
    """log2 |R| - log2(candidates that score as high or higher, itself included)."""


def exposure(logprobs_LA: np.ndarray, secret_L: Sequence[int] | np.ndarray) -> Exposure:
    """Exact exposure of one secret among the product of its alphabets.

    `logprobs_LA` are natural logarithms [L, A], `secret_L` the index of the secret token in each
    row. Raises UserError on NaN or a space of 2^62 or more, whose counts overflow.
    """
    scores_LA = _integers(logprobs_LA)
    length, alphabet = scores_LA.shape
    if length * math.log2(alphabet) >= 62:
        raise UserError(
            f"a space of {alphabet}^{length}",
            "candidates are counted in 64 bits, so a space is below 2^62",
            "shorten the secret",
        )
    own = int(scores_LA[np.arange(length), np.asarray(secret_L)].sum())
    higher, equal = _count(scores_LA, own)
    space = length * math.log2(alphabet)
    return Exposure(space - math.log2(1 + higher), space - math.log2(higher + equal))


def exposures(logprobs_NLA: np.ndarray, secrets_NL: np.ndarray) -> list[Exposure]:
    """`exposure` of every row."""
    return [exposure(scores, secret) for scores, secret in zip(logprobs_NLA, secrets_NL)]


def mean_ceiling(epsilon: float, delta: float, space_bits: float) -> float:
    """What the mean exposure of inserted canaries cannot exceed under (epsilon, delta)-DP, bits.

    (epsilon + 1)/ln 2 + delta log2 |R|, from P(E >= x) <= e^epsilon 2^-x + delta; never more
    than the space.
    """
    return min(space_bits, (epsilon + 1) / math.log(2) + delta * space_bits)


def default_threshold(
    epsilon: float, delta: float, space_bits: float, *, share: float = 0.1, level: float = 0.05 / 3
) -> float | None:
    """The exposure above which canaries are counted, in bits, fixed before anything is scored.

    Chosen so that `share` of the inserted canaries above it is enough to reject at `level` (the
    strictest of three tests under Holm). None when the space has no room for such a threshold.
    """
    room = share * level - delta
    if room <= 0 or epsilon == math.inf:
        return None
    threshold = epsilon / math.log(2) - math.log2(room)
    return threshold if threshold <= space_bits else None


def threshold_p_value(
    *, above: int, inserted: int, threshold: float, epsilon: float, delta: float
) -> float:
    """Markov's bound on `above` of `inserted` canaries at or over the threshold under the claim.

    The expected number is at most inserted (e^epsilon 2^-threshold + delta), whatever ties the
    canaries of one run to each other.
    """
    return markov_p_value(above, inserted * (math.exp(epsilon) * 2**-threshold + delta))


def markov_p_value(count: int, expected: float) -> float:
    """P[count or more] <= expected / count; 1 for a count of zero."""
    return min(1.0, expected / count) if count > 0 else 1.0


def _integers(logprobs_LA: np.ndarray) -> np.ndarray:
    """Scores in units of 1/512 nat, each row's smallest at zero."""
    if np.isnan(logprobs_LA).any():
        raise UserError(
            "a log-probability that is not a number",
            "the model must give every candidate a score",
            "look for NaN in the weights",
        )
    floored = np.maximum(logprobs_LA, logprobs_LA.max(axis=1, keepdims=True) + _LOWEST_NATS)
    rounded = np.rint(floored * UNITS_PER_NAT).astype(np.int64)
    return rounded - rounded.min(axis=1, keepdims=True)


def _histogram(scores_LA: np.ndarray) -> np.ndarray:
    """How many combinations, one token a row, reach each sum; int64 [1 + largest sum]."""
    counts = np.ones(1, dtype=np.int64)
    for row in scores_LA:
        grown = np.zeros(len(counts) + int(row.max()), dtype=np.int64)
        for score, times in zip(*np.unique(row, return_counts=True)):
            grown[score : score + len(counts)] += times * counts
        counts = grown
    return counts


def _count(scores_LA: np.ndarray, own: int) -> tuple[int, int]:
    """Combinations whose sum is above `own`, and those whose sum is `own`."""
    half = (len(scores_LA) + 1) // 2
    left, right = _histogram(scores_LA[:half]), _histogram(scores_LA[half:])
    # at_least[k] counts right sums >= k; index len(right) is the empty tail.
    at_least = np.concatenate([np.cumsum(right[::-1])[::-1], [0]])
    rest = own - np.arange(len(left))
    above = at_least[np.clip(rest + 1, 0, len(right))]
    from_own = at_least[np.clip(rest, 0, len(right))]
    higher, reached = int(left @ above), int(left @ from_own)
    return higher, reached - higher
