"""The skew-normal tail against SciPy's law and quadrature, and a fit test that can reject."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from audits.exposures.skew_normal import SkewNormal, extrapolated_exposure, goodness_of_fit
from dpmlm.artifacts import UserError


@pytest.mark.parametrize("shape", [0.0, -3.0, 2.0, 8.0])
def test_law_against_scipy(shape: float) -> None:
    law, other = SkewNormal(-30, 4, shape), stats.skewnorm(shape, -30, 4)
    points = np.linspace(-45, -15, 13)
    assert law.cdf(points) == pytest.approx(other.cdf(points), abs=1e-12)
    drawn = law.sample(np.random.default_rng(1), 5000)
    assert stats.kstest(drawn, other.cdf).pvalue > 0.001
    for point in (-40.0, -31.0, -25.0, -15.0):
        tail, _ = integrate.quad(other.pdf, point, 60, epsabs=0, epsrel=1e-10, limit=200)
        assert law.bits_above(point) == pytest.approx(-math.log2(tail), abs=1e-3, rel=1e-5)


def test_far_tail_does_not_underflow() -> None:
    # A normal law: log2 of its upper tail at 30 deviations is known from the asymptotic series.
    bits = SkewNormal(0, 1, 0).bits_above(30.0)
    series = 1 - 1 / 30**2 + 3 / 30**4 - 15 / 30**6
    log_tail = -(30**2) / 2 - math.log(30 * math.sqrt(2 * math.pi)) + math.log(series)
    assert bits == pytest.approx(-log_tail / math.log(2), rel=1e-6)


@pytest.mark.parametrize("shape", [0.0, -3.0, 5.0])
def test_fit_has_the_moments_of_the_values(shape: float) -> None:
    values = stats.skewnorm(shape, -30, 4).rvs(3000, random_state=np.random.default_rng(2))
    law = SkewNormal.fit(values)
    moments = stats.skewnorm.stats(law.shape, law.location, law.scale, moments="mvs")
    assert moments == pytest.approx((values.mean(), values.var(), stats.skew(values)), rel=1e-6)


def test_skew_beyond_the_family_is_clipped() -> None:
    values = np.random.default_rng(3).exponential(size=2000)
    law = SkewNormal.fit(values)
    assert stats.skewnorm.stats(law.shape, moments="s") == pytest.approx(0.99, abs=1e-6)


def _p_values(trials: int, size: int) -> list[float]:
    rng = np.random.default_rng(4)
    law = SkewNormal(-30, 4, 1.5)
    return [goodness_of_fit(law.sample(rng, size), seed=trial) for trial in range(trials)]


def test_fit_test_is_level_and_rejects_another_law() -> None:
    # With a table for a known law, p-values would crowd at 1.
    assert 0.25 < np.mean(_p_values(12, 100)) < 0.75
    assert goodness_of_fit(np.random.default_rng(6).exponential(size=300)) <= 0.01


@pytest.mark.full
def test_fit_test_keeps_its_level() -> None:
    # 5 % of 300 and 3.3 standard deviations.
    assert sum(p <= 0.05 for p in _p_values(300, 150)) <= 27


def test_extrapolation_stands_beside_its_fit() -> None:
    rng = np.random.default_rng(5)
    others = SkewNormal(-30, 4, 1.0).sample(rng, 500)
    found = extrapolated_exposure(-10.0, others, space_bits=36)
    assert found["method"] == "extrapolated"
    assert not found["fit_rejected"]
    # Beyond the 9 bits that 500 samples show; the truth is 21.7.
    assert 15 < found["bits"] < 30
    assert extrapolated_exposure(10.0, others, space_bits=36)["bits"] == 36
    crooked = extrapolated_exposure(20.0, rng.exponential(size=500), space_bits=36)
    assert crooked["fit_rejected"]
    assert crooked["bits"] is None


def test_scores_without_a_spread_are_refused() -> None:
    for own, others in ((0.0, [1.0] * 200), (math.nan, range(200)), (0.0, [-math.inf, 1, 2, 3])):
        with pytest.raises(UserError, match="finite"):
            extrapolated_exposure(own, np.array(others, dtype=float), space_bits=36)
