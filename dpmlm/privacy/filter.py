"""The cap of a ledger: a Renyi filter at one order, and a column that adds up delta.

Runs on one corpus are chosen after seeing earlier ones, so their composition is fully adaptive.
A Renyi filter (Feldman and Zrnic 2021, arXiv 2008.11193, theorem 4.3) is valid there: as long as
the divergences of one order **fixed beforehand** add up to at most the filter's budget, everything
together has the budget's divergence. What is sure at any time is therefore the budget, not the
sum spent so far: the sum is book-keeping. Mechanisms without a finite divergence (selection by a
threshold) add to delta instead (Whitehouse et al. 2023, arXiv 2203.05481).
"""

import math
from dataclasses import dataclass

from dpmlm.privacy.accountants import renyi_to_epsilon

ORDERS: tuple[float, ...] = (
    1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, *(float(order) for order in range(6, 33)),
    40.0, 48.0, 64.0, 96.0, 128.0, 256.0, 512.0,
)  # fmt: skip
"""Orders that `RenyiFilter.of` chooses from."""

COLUMN_SHARE = 0.1
"""Part of delta kept for mechanisms that spend delta itself; the rest converts the divergence."""


@dataclass(frozen=True)
class RenyiFilter:
    """What may be spent on a corpus, fixed when it is registered."""

    epsilon: float
    """Cap at `delta`; above 0, `inf` for a corpus without a cap."""
    delta: float
    """In (0, 1): the converting part and the column together."""
    order: float
    """Renyi order, above 1."""

    @classmethod
    def of(cls, epsilon: float, delta: float) -> "RenyiFilter":
        """The order at which most plain Gaussian noise fits: it maximises budget / order."""
        if math.isinf(epsilon):
            return cls(epsilon, delta, 4.0)
        return max((cls(epsilon, delta, order) for order in ORDERS), key=lambda f: f.rdp / f.order)

    @property
    def rdp(self) -> float:
        """Budget of divergence; the epsilon it converts to is the cap."""
        return self.epsilon - self.overhead

    @property
    def overhead(self) -> float:
        """Epsilon minus divergence at this order and delta."""
        return renyi_to_epsilon(0.0, self.order, (1 - COLUMN_SHARE) * self.delta)

    @property
    def column(self) -> float:
        """Delta that mechanisms may spend directly."""
        return COLUMN_SHARE * self.delta

    def divergence_of(self, epsilon: float) -> float:
        """Divergence of an epsilon-DP mechanism (Bun and Steinke 2016, proposition 3.3)."""
        return min(epsilon, self.order * epsilon**2 / 2)
