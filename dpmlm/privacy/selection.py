"""`PartitionSelection`: words of a private corpus that enough units share, by noise and threshold.

Weighted Gaussian algorithm for set union (Gopi et al. 2020, arXiv 2002.09745, algorithms 2 and 4).
A unit adds 1/sqrt(k) to each of its k words, so it moves the weights by an L2 norm of at most 1;
each word that some unit holds gets Gaussian noise; noisy weights above a threshold come out.

Formal guarantees, for adding or removing one unit of at most m words, with delta = d_g + d_t:

1. The Gaussian part is (epsilon, d_g)-DP at sensitivity 1 if (Balle and Wang 2018,
   arXiv 1805.06530, theorem 8)
   Phi(1/(2 s) - epsilon s) - e^epsilon Phi(-1/(2 s) - epsilon s) <= d_g.
2. Words of the added unit alone, t <= m of them, weigh at most 1/sqrt(t) each. None passes the
   threshold r, but for a probability of d_t, if for every t of 1..m
   r >= 1/sqrt(t) + s * Phi^-1((1 - d_t)^(1/t))   (Gopi et al., theorem 5.1).
3. Together (epsilon, d_g + d_t)-DP. The noise of those words is independent of the others', so the
   event E that none passes is: given E, both corpora give the same words the same noise and the
   outputs are those of part 1. With an independent event of the same probability on the other
   side, P(O) <= P(E) (e^epsilon Q(O | E) + d_g) + d_t <= e^epsilon Q(O) + d_g + d_t, both ways.
4. For composition the same events make it d_t-approximate Renyi DP with divergence
   order / (2 s^2) (Bun and Steinke 2016, definition 8.1): that is what a ledger is charged.
   d_g is no cost of its own there; it belongs to the conversion of the total.

Noisy weights may come out too: they are part of the Gaussian's output.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dpmlm.errors import UserError
from dpmlm.privacy.stream import SecretStream

SCALE = 1 << 24
"""Weights are whole multiples of 1/SCALE: their sums are exact, in whatever order."""
_LABEL = "partition selection"


@dataclass(frozen=True)
class PartitionSelection:
    """A selection with its budget; a public constant, fixed before any text is read."""

    epsilon: float
    """In (0, 150]."""
    delta: float
    """In (0, 0.5): half for the noise, half for the threshold."""
    words_per_unit: int
    """Most words that a unit contributes; at least 1."""

    def __post_init__(self) -> None:
        good = 0 < self.epsilon <= 150 and 0 < self.delta < 0.5 and self.words_per_unit >= 1
        if not good:
            raise UserError(
                f"a selection of epsilon {self.epsilon}, delta {self.delta}, "
                f"{self.words_per_unit} words a unit",
                "epsilon is in (0, 150], delta in (0, 0.5), words_per_unit at least 1",
                "choose values in these ranges",
            )

    @property
    def threshold_delta(self) -> float:
        """d_t: probability that a word of one unit alone comes out."""
        return self.delta / 2

    @cached_property
    def noise_multiplier(self) -> float:
        """s: least standard deviation of the noise, in units of the sensitivity 1."""
        target = self.delta / 2
        low, high = 1e-3, 1.0
        while gaussian_delta(high, self.epsilon) > target:
            low, high = high, 2 * high
        while high / low > 1 + 1e-9:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if gaussian_delta(middle, self.epsilon) <= target else (
                middle, high,
            )  # fmt: skip
        return high

    @cached_property
    def threshold(self) -> float:
        """r: a word comes out if its noisy weight is above it."""
        from scipy.special import ndtri

        alone = np.arange(1, self.words_per_unit + 1, dtype=np.float64)
        # (1 - d)^(1/t) is 1 - p: the tail p itself keeps its digits.
        tail = -np.expm1(math.log1p(-self.threshold_delta) / alone)
        return float(np.max(1 / np.sqrt(alone) - self.noise_multiplier * ndtri(tail)))

    def divergence(self, order: float) -> float:
        """Renyi divergence of the Gaussian part."""
        return order / (2 * self.noise_multiplier**2)

    def select(self, weights: Mapping[str, int], stream: SecretStream) -> dict[str, int]:
        """Words above the threshold and their noisy weights, whole numbers, heaviest first.

        `weights` are sums of `unit_weight` over units. The stream is new for each call, after the
        charge (ValueError for one that was used). Weights are rounded down once the threshold was
        passed: the last digits of floating-point noise stay inside. Noise ends at 8.2 standard
        deviations (`SecretStream.normals`), 2^-51 a word in total variation.
        """
        words = sorted(weights)
        noise = stream.normals(len(words), _LABEL, 0, std=self.noise_multiplier)
        exact = np.array([weights[word] for word in words], dtype=np.float64) / SCALE
        noisy = exact + noise.astype(np.float64)
        kept = np.flatnonzero(noisy > self.threshold)
        found = {words[i]: math.floor(noisy[i]) for i in kept}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def unit_weight(words: int) -> int:
    """What a unit of so many words adds to each: 1/sqrt(words) in 1/SCALE, rounded down."""
    return math.isqrt(SCALE**2 // words)


def gaussian_delta(noise_multiplier: float, epsilon: float) -> float:
    """Least delta at which Gaussian noise is (epsilon, delta)-DP at sensitivity 1.

    Balle and Wang 2018, equation 6.
    """
    from scipy.special import log_ndtr, ndtr

    half, shift = 1 / (2 * noise_multiplier), epsilon * noise_multiplier
    return float(ndtr(half - shift) - math.exp(epsilon + log_ndtr(-half - shift)))
