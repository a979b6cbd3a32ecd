"""Exposure beyond the samples: a skew-normal tail, never without a test of its fit.

Carlini et al. 2019 (arXiv 1802.08232, section 4.3) found the scores of random secrets skew-normal
and read exposures off the fitted tail. That is extrapolation: no sample lies there.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from dpmlm.artifacts import UserError

_MOST_SKEW = 0.99
"""Skewness of a skew-normal is below 0.9953; sample skewness is clipped here."""
_SIMULATIONS = 199
_LEVEL = 0.05
_GRID = 4001


@dataclass(frozen=True)
class SkewNormal:
    """Density 2 phi(z) Phi(a z)/scale at z = (x - location)/scale (Azzalini 1985)."""

    location: float
    scale: float
    shape: float

    @classmethod
    def fit(cls, values: np.ndarray) -> "SkewNormal":
        """The one with the values' mean, variance and (clipped) skewness."""
        mean, deviation = float(np.mean(values)), float(np.std(values))
        skew = float(np.mean((values - mean) ** 3)) / deviation**3
        skew = min(max(skew, -_MOST_SKEW), _MOST_SKEW)
        power = abs(skew) ** (2 / 3)
        delta = math.copysign(
            math.sqrt(math.pi / 2 * power / (power + ((4 - math.pi) / 2) ** (2 / 3))), skew
        )
        scale = deviation / math.sqrt(1 - 2 * delta**2 / math.pi)
        location = mean - scale * delta * math.sqrt(2 / math.pi)
        return cls(location, scale, delta / math.sqrt(1 - delta**2))

    def cdf(self, values: np.ndarray) -> np.ndarray:
        """Phi(z) - 2 T(z, a), T of Owen."""
        z = (values - self.location) / self.scale
        return np.asarray(special.ndtr(z) - 2 * special.owens_t(z, self.shape))

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Independent draws."""
        delta = self.shape / math.sqrt(1 + self.shape**2)
        first, second = rng.standard_normal((2, count))
        z = delta * np.abs(first) + math.sqrt(1 - delta**2) * second
        return np.asarray(self.location + self.scale * z)

    def bits_above(self, value: float) -> float:
        """-log2 of the probability above `value`; integrated in logarithms, as 1 - cdf is 0."""
        z = (value - self.location) / self.scale
        # The density falls at least as fast as a normal one, and 40 deviations past z are enough.
        grid = np.linspace(z, max(z, 0.0) + 40, _GRID)
        step = grid[1] - grid[0]
        weights = np.log(np.where(np.arange(_GRID) % 2, 4.0, 2.0))  # Simpson's rule
        weights[0] = weights[-1] = 0.0
        log_density = stats.norm.logpdf(grid) + special.log_ndtr(self.shape * grid) + math.log(2)
        return float(-(special.logsumexp(log_density + weights) + math.log(step / 3)) / math.log(2))


def goodness_of_fit(values: np.ndarray, *, seed: int = 0) -> float:
    """p-value that values are skew-normal, its parameters fitted to the same values.

    Kolmogorov-Smirnov distance against that of 199 samples from the fit, each fitted anew
    (parametric bootstrap; Stute et al. 1993), since tables for a known law would never reject.
    """
    fitted = SkewNormal.fit(values)
    rng = np.random.default_rng(seed)
    own = _distance(fitted, values)
    others = [fitted.sample(rng, len(values)) for _ in range(_SIMULATIONS)]
    as_far = sum(_distance(SkewNormal.fit(other), other) >= own for other in others)
    return (1 + as_far) / (1 + _SIMULATIONS)


def extrapolated_exposure(
    own: float, alternatives: np.ndarray, *, space_bits: float
) -> dict[str, Any]:
    """Exposure from a skew-normal fitted to the alternatives' scores, and how well it fits.

    `bits` is None where the fit is rejected at 5 %. Never more than the space. Raises UserError
    on scores that are not finite or all alike.
    """
    scores = np.asarray(alternatives, dtype=np.float64)
    if not (np.isfinite(scores).all() and np.isfinite(own)) or len(np.unique(scores)) < 3:
        raise UserError(
            "scores that are not finite, or fewer than three different ones",
            "a distribution is fitted to finite scores that vary",
            "report the sampled exposure alone",
        )
    p_value = goodness_of_fit(scores)
    fits = p_value > _LEVEL
    bits = SkewNormal.fit(scores).bits_above(own)
    return {
        "method": "extrapolated",
        "bits": min(space_bits, max(0.0, bits)) if fits else None,
        "fit_p_value": p_value,
        "fit_rejected": not fits,
    }


def _distance(law: SkewNormal, values: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance between a law and values."""
    below = law.cdf(np.sort(values))
    steps = np.arange(len(values) + 1) / len(values)
    return float(max((steps[1:] - below).max(), (below - steps[:-1]).max()))
