"""Every accountant against formulas written a second time, and against the others."""

import functools
import math
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from scipy import integrate, optimize
from scipy.special import ndtr
from variants import rest_in_full

from dpmlm.privacy import SampledGaussian, accountants, describe, epsilon_of
from dpmlm.privacy.accountants import AccountantFailure, renyi_divergence, renyi_to_epsilon
from dpmlm.privacy.rules import LEAST_DELTA

DELTA = 1e-6
RUNS = [
    SampledGaussian(0.75, 64 / 2000, 300),
    SampledGaussian(3.0, 0.04, 150),
    SampledGaussian(2.0, 0.2, 50),
    SampledGaussian(0.6, 0.01, 20),
]


def normal(x: float, mean: float, sigma: float) -> float:
    return math.exp(-(((x - mean) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))


def naive_delta(epsilon: float, q: float, sigma: float, *, added: bool) -> float:
    """Hockey-stick divergence of one step, by summing over a grid."""
    x = np.linspace(-12 * sigma, 1 + 12 * sigma, 200_001)
    without = np.exp(-((x / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    mixed = (1 - q) * without + q * without * np.exp((2 * x - 1) / (2 * sigma**2))
    first, second = (without, mixed) if added else (mixed, without)
    excess = np.maximum(0.0, first - math.exp(epsilon) * second)
    return float(integrate.trapezoid(excess, x))


def naive_epsilon(delta_of: Callable[[float], float], delta: float) -> float:
    return float(optimize.brentq(lambda e: delta_of(e) - delta, 1e-6, 60))


def balle_wang(epsilon: float, sigma: float) -> float:
    """Delta of the Gaussian mechanism with sensitivity 1 (Balle and Wang 2018, theorem 8)."""
    a, b = 1 / (2 * sigma), epsilon * sigma
    return float(ndtr(a - b) - math.exp(epsilon) * ndtr(-a - b))


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (2.5, 1), (5.0, 10), (0.6, 1), (8.0, 100)])
def test_full_batch_is_the_analytic_gaussian(sigma: float, steps: int) -> None:
    truth = naive_epsilon(lambda e: balle_wang(e, sigma / math.sqrt(steps)), DELTA)
    mechanism = SampledGaussian(sigma, 1.0, steps)
    assert epsilon_of("pld", mechanism, DELTA) == pytest.approx(truth, abs=0.005)
    prv = epsilon_of("prv", mechanism, DELTA)
    assert truth <= prv <= truth + 0.015
    assert epsilon_of("rdp", mechanism, DELTA) > truth


@pytest.mark.parametrize(("q", "sigma"), [(0.1, 1.0), (0.3, 0.8)])
def test_one_sampled_step_is_the_larger_direction_by_quadrature(q: float, sigma: float) -> None:
    directions = (partial(naive_delta, q=q, sigma=sigma, added=added) for added in (False, True))
    truth = max(naive_epsilon(direction, 1e-4) for direction in directions)
    mechanism = SampledGaussian(sigma, q, 1)
    assert epsilon_of("pld", mechanism, 1e-4) == pytest.approx(truth, abs=0.01)
    assert truth - 1e-3 <= epsilon_of("prv", mechanism, 1e-4) <= truth + 0.02


@pytest.mark.parametrize("mechanism", RUNS)
def test_the_accountants_agree_and_rdp_is_looser(mechanism: SampledGaussian) -> None:
    prv, pld, rdp = (epsilon_of(name, mechanism, DELTA) for name in accountants.ACCOUNTANTS)
    assert prv == pytest.approx(pld, abs=0.04)
    assert prv >= pld - 0.01
    assert 1.03 * pld <= rdp <= 1.45 * pld


LIKE_AND_UNLIKE = [
    *((run,) for run in RUNS),
    (SampledGaussian(0.5, 0.2, 3),),
    (SampledGaussian(0.3, 0.9, 2),),
    (SampledGaussian(0.9, 1e-4, 5),),
    (SampledGaussian(40.0, 0.01, 7),),
    (SampledGaussian(0.8, 0.001, 20_000),),
    (SampledGaussian(0.7, 0.02, 100), SampledGaussian(2.0, 0.3, 40), SampledGaussian(1.0, 1.0, 1)),
]


@pytest.mark.parametrize("delta", rest_in_full([1e-9, DELTA, 1e-2], [DELTA]))
@pytest.mark.parametrize("composition", LIKE_AND_UNLIKE)
def test_rdp_is_the_least_over_every_order(composition, delta: float) -> None:
    tried = []
    for order in accountants.ORDERS:
        try:
            divergence = renyi_divergence(composition, order)
        except AccountantFailure:
            continue
        tried.append(renyi_to_epsilon(divergence, order, delta))
    least = max(min(tried), 0.0)
    assert epsilon_of("rdp", composition, delta) == pytest.approx(least, rel=1e-9)
    whole = accountants.rough_epsilon(composition, delta)
    assert least * (1 - 1e-9) <= whole < 1.3 * least + 1e-3


@pytest.mark.full
@pytest.mark.parametrize("composition", [LIKE_AND_UNLIKE[place] for place in (0, 1, 2, 6, 7, 8)])
def test_the_grid_of_losses_adds_little_to_epsilon(composition) -> None:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        parts = [accountants._losses(mechanism, 3e-5) for mechanism in composition]
        fine = functools.reduce(lambda one, other: one.compose(other), parts)
        truth = fine.get_epsilon_for_delta(DELTA)
    found = epsilon_of("pld", composition, DELTA)
    assert truth - 1e-6 <= found <= truth * 1.003 + 5e-4


@pytest.mark.parametrize("order", [2.0, 2.5, 7.0])
@pytest.mark.parametrize(("q", "sigma"), [(0.1, 1.0), (0.02, 2.0)])
def test_renyi_divergence_by_quadrature(order: float, q: float, sigma: float) -> None:
    def integrand(x: float) -> float:
        base = normal(x, 0, sigma)
        return base * ((1 - q) + q * math.exp((2 * x - 1) / (2 * sigma**2))) ** order

    moment, _ = integrate.quad(integrand, -30 * sigma, 40 * sigma, limit=500, points=[0, order])
    expected = 3 * math.log(moment) / (order - 1)
    assert renyi_divergence(SampledGaussian(sigma, q, 3), order) == pytest.approx(expected, 1e-5)


def test_renyi_divergence_of_plain_gaussian() -> None:
    assert renyi_divergence(SampledGaussian(2.0, 1.0, 7), 3.0) == pytest.approx(7 * 3 / 8)


@pytest.mark.parametrize("t", [-2.0, -0.3, 0.01, 0.09, 0.2])
def test_loss_of_an_added_unit_by_counting(t: float) -> None:
    q, sigma = 0.1, 0.9
    x = np.linspace(-12, 12, 2_000_001)
    base = np.exp(-((x / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    mixed = (1 - q) * base + q * np.exp(-(((x - 1) / sigma) ** 2) / 2) / (
        sigma * math.sqrt(2 * math.pi)
    )
    with np.errstate(all="ignore"):
        below = np.log(base / mixed) <= t
    expected = float(integrate.trapezoid(np.where(below, base, 0.0), x))
    with np.errstate(all="ignore"):
        got = float(accountants._AddedUnit(q, sigma).cdf(t))
    assert got == pytest.approx(expected, abs=1e-4)


def test_prv_counts_the_direction_of_an_added_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    from opacus.accountants.analysis.prv import PoissonSubsampledGaussianPRV

    mechanism = RUNS[1]
    usual = accountants._prv((mechanism,), DELTA)

    class Worse(PoissonSubsampledGaussianPRV):
        def __init__(self, sample_rate: float, noise_multiplier: float) -> None:
            super().__init__(sample_rate, noise_multiplier * 0.97)

    monkeypatch.setattr(accountants, "_AddedUnit", Worse)
    assert accountants._prv((mechanism,), DELTA) > usual


def test_prv_failure_is_retried_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def fails(mechanism: SampledGaussian, delta: float, eps_error: float) -> float:
        seen.append(eps_error)
        if len(seen) < 3:
            raise RuntimeError("Discrete mean differs significantly from continuous mean.")
        return 0.5

    monkeypatch.setattr(accountants, "_prv_once", fails)
    assert accountants._prv(RUNS[1], DELTA) == 0.5
    assert seen == [seen[0], seen[0] / 2, seen[0] / 4]
    monkeypatch.setattr(accountants, "_prv_once", lambda *rest: 1e6)
    with pytest.raises(accountants.AccountantFailure, match="RDP proves"):
        accountants._prv(RUNS[1], DELTA)


def test_nothing_released_and_nothing_hidden() -> None:
    for name in accountants.ACCOUNTANTS:
        assert epsilon_of(name, SampledGaussian(1.0, 0.1, 0), DELTA) == 0
        assert epsilon_of(name, SampledGaussian(0.0, 0.1, 5), DELTA) == math.inf


def test_descriptions_carry_versions() -> None:
    from importlib.metadata import version

    assert describe("prv") == f"PRV (opacus {version('opacus')})"
    assert describe("pld") == f"PLD (dp-accounting {version('dp-accounting')})"


def test_an_epsilon_that_rdp_proves_to_be_zero_has_a_grid() -> None:
    mechanism = SampledGaussian(5.0, 0.001, 10)
    assert accountants.rough_epsilon((mechanism,), 0.01) == 0
    assert 0 <= epsilon_of("pld", mechanism, 0.01) < 1e-3


@pytest.mark.parametrize(("sigma", "steps"), [(100.0, 10_000), (10.0, 100), (3.0, 1)])
def test_nothing_is_below_the_truth_at_the_least_delta(sigma: float, steps: int) -> None:
    """At 1e-13 PLD gives less than the analytic Gaussian for the first of these."""
    truth = naive_epsilon(lambda e: balle_wang(e, sigma / math.sqrt(steps)), LEAST_DELTA)
    for name in accountants.ACCOUNTANTS:
        assert epsilon_of(name, SampledGaussian(sigma, 1.0, steps), LEAST_DELTA) >= truth - 1e-6
