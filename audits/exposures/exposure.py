"""Exposure: how far a secret's rank among all it might have been is from chance, in bits.

E = log2 |R| - log2 rank (Carlini et al. 2019, arXiv 1802.08232), R the space the secret was drawn
from and the scoring rule fixed beforehand. The joint score of a masked model is a sum over
positions, so its rank in 2^36 candidates is counted (`ranks`); the left-to-right score is ranked
in a prefix tree (`prefix_tree`) or among samples (`sampled`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audits.exposures.ranks import Positions, count_in_product, product_bits


@dataclass(frozen=True)
class Exposure:
    """One secret's exposure under both conventions for ties, in bits."""

    optimistic: float
    """log2 |R| - log2(1 + candidates that score higher)."""
    conservative: float
    """log2 |R| - log2(candidates that score as high or higher, itself included)."""

    @classmethod
    def of(cls, higher: int, equal: int, bits: float) -> "Exposure":
        """From the candidates above a secret and level with it (itself included), log2 |R|."""
        return cls(bits - math.log2(1 + higher), bits - math.log2(higher + equal))

    @property
    def low(self) -> float:
        """Lower end of an interval: nothing is sampled here, so that it is the ties alone."""
        return self.conservative

    @property
    def high(self) -> float:
        """Upper end of an interval."""
        return self.optimistic

    @property
    def at_least(self) -> bool:
        """Never: a counted rank is no mere lower limit."""
        return False

    def __str__(self) -> str:
        return f"{self.conservative:.2f} bits"


def exposure(logprobs: Positions, secret: Sequence[int] | np.ndarray) -> Exposure:
    """Exact exposure of one secret among the product of its alphabets, by the joint score.

    `logprobs` are natural logarithms, [L, A] or L arrays of any lengths; `secret` is the index of
    the secret token in each. Raises UserError as `count_in_product` does.
    """
    return Exposure.of(*count_in_product(logprobs, secret), product_bits(logprobs))


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
