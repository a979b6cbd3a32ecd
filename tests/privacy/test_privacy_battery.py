"""A battery for noise, run on both kinds; each check has a broken generator that it must find."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from variants import rest_in_full

from dpmlm.privacy import DiscreteGaussian, SecretStream
from dpmlm.privacy.stream import BLOCK

KEY = bytes(range(32))
N, MANY = 1_000_000, 20_000_000
Array = NDArray[np.floating]
Draw = Callable[[int, str, int], Array]
"""(how many, label, step) -> numbers that should be standard normals."""

LIMIT = 5.0  # standard errors: one honest check in a million exceeds it


def continuous(n: int, label: str, step: int) -> Array:
    return SecretStream(KEY).normals(n, label, step)


def discrete(n: int, label: str, step: int) -> Array:
    sigma = 1e6
    words = SecretStream(KEY).words(label, step)
    return np.concatenate(list(DiscreteGaussian(sigma).draws(n, words))) / sigma


def moments(draw: Draw) -> float:
    """Mean, variance, skewness and kurtosis; largest distance in standard errors."""
    x = draw(N, "moments", 0).astype(np.float64)
    known = ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96))
    return max(abs(np.mean(x**k) - mean) / np.sqrt(var / N) for k, mean, var in known)


def kolmogorov(draw: Draw) -> float:
    return _errors(stats.kstest(draw(N, "ks", 0), "norm").pvalue)


def tails(draw: Draw) -> float:
    """Numbers beyond 4, 4.5 and 5 standard deviations, on each side."""
    x, worst = draw(MANY, "tails", 0), 0.0
    for edge in (4.0, 4.5, 5.0):
        expected = MANY * stats.norm.sf(edge)
        for count in (int((x > edge).sum()), int((x < -edge).sum())):
            low, high = stats.poisson.cdf(count, expected), stats.poisson.sf(count - 1, expected)
            worst = max(worst, _errors(2 * min(low, high)))
    return worst


def autocorrelation(draw: Draw) -> float:
    """Of the numbers and of their squares, at short lags and at those of blocks and words."""
    x = draw(N, "lags", 0).astype(np.float64)
    return max(
        _correlation(y[:-lag], y[lag:])
        for y in (x, (x**2 - 1) / np.sqrt(2))
        for lag in (1, 2, 3, 7, 8, BLOCK // 2, BLOCK - 1, BLOCK)
    )


def borders(draw: Draw) -> float:
    """Numbers on both sides of a block's end: normal, and independent of each other."""
    x = draw(MANY, "borders", 0).astype(np.float64)
    last, first = x[BLOCK - 1 : -1 : BLOCK], x[BLOCK::BLOCK]
    fits = (_errors(stats.kstest(side, "norm").pvalue) for side in (last, first))
    return max(_correlation(last, first), *fits)


def pairs(draw: Draw) -> float:
    """Neighbours fall evenly into 16 x 16 cells of equal probability."""
    cells = np.minimum((stats.norm.cdf(draw(N, "pairs", 0)) * 16).astype(int), 15)
    counts = np.bincount(cells[::2] * 16 + cells[1::2], minlength=256)
    return _errors(stats.chisquare(counts).pvalue)


def substreams(draw: Draw) -> float:
    """Another label and another step give independent numbers."""
    x = draw(N, "noise/0", 3)
    others = (draw(N, "noise/1", 3), draw(N, "noise/0", 4), draw(N, "sample", 3))
    return max(_correlation(x, other) for other in others)


def _correlation(x: Array, y: Array) -> float:
    return float(abs(np.mean(x.astype(np.float64) * y)) * np.sqrt(len(x)))


def _errors(pvalue: float) -> float:
    """A p-value in standard errors, as the other checks count."""
    return float(stats.norm.isf(max(pvalue, 1e-300) / 2))


def numpys(n: int, label: str, step: int) -> Array:
    return np.random.default_rng([n, *label.encode(), step]).normal(size=n)


def uneven(n: int, label: str, step: int) -> Array:
    """Variance 1 on the whole, 0.85 and 1.15 in turn."""
    x = numpys(n, label, step)
    return x * np.sqrt(np.where(np.arange(n) % 2, 1.15, 0.85))


def coarse(n: int, label: str, step: int) -> Array:
    return np.round(numpys(n, label, step) * 8) / 8


def twelve_uniforms(n: int, label: str, step: int) -> Array:
    rng = np.random.default_rng(5)
    total = np.full(n, -6, dtype=np.float32)
    for _ in range(12):
        total += rng.random(n, dtype=np.float32)
    return total


def echoing(n: int, label: str, step: int) -> Array:
    x = numpys(n, label, step)
    return x + 0.02 * np.roll(x, 1)


def restarting(n: int, label: str, step: int) -> Array:
    """Every block begins with the last number of the one before."""
    x = numpys(n, label, step)
    first = np.arange(BLOCK, n, BLOCK)
    x[first] = x[first - 1]
    return x


def paired(n: int, label: str, step: int) -> Array:
    """One pair in fifty has two equal magnitudes, with independent signs."""
    x = numpys(n, label, step)
    x[1::100] = np.copysign(x[::100], x[1::100])
    return x


def forgetful(n: int, label: str, step: int) -> Array:
    return numpys(n, label, 0)


CHECKS = {
    moments: uneven,
    kolmogorov: coarse,
    tails: twelve_uniforms,
    autocorrelation: echoing,
    borders: restarting,
    pairs: paired,
    substreams: forgetful,
}
"""Each check, and the broken generator that it must find."""
DRAWN = rest_in_full(
    product([continuous, discrete], CHECKS),
    [*product([continuous], CHECKS), (discrete, moments), (discrete, kolmogorov)],
)


@pytest.mark.parametrize(("draw", "check"), DRAWN, ids=lambda each: each.__name__)
def test_the_noise_passes(draw: Draw, check: Callable[[Draw], float]) -> None:
    assert check(draw) < LIMIT


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_broken_twin_is_found(check: Callable[[Draw], float]) -> None:
    assert check(CHECKS[check]) > LIMIT
