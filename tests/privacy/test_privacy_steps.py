"""Steps that a budget pays for: the last count that fits, against counting up and closed forms."""

import math

import pytest

from dpmlm.errors import UserError
from dpmlm.pipeline.preview import StepsAtNoise
from dpmlm.privacy import SampledGaussian, calibrate_steps, epsilon_of, make_plan

DELTA = 1e-5


@pytest.mark.parametrize("accountant", ["rdp", "pld", "prv"])
@pytest.mark.parametrize(("epsilon", "sigma", "q"), [(2.0, 1.2, 0.05), (1.5, 4.0, 0.3)])
def test_it_is_the_last_count_that_fits(accountant, epsilon, sigma, q):
    step = SampledGaussian(sigma, q, 1)
    steps = calibrate_steps(accountant, step, epsilon=epsilon, delta=DELTA)
    counted = 0
    while epsilon_of(accountant, SampledGaussian(sigma, q, counted + 1), DELTA) <= epsilon:
        counted += 1
        if counted < steps - 2:  # far below the answer, where each count costs half a second
            counted = steps - 2
    assert steps == counted > 2


def test_full_batches_are_the_analytic_gaussian():
    """n steps at q = 1 are one of noise sigma / sqrt(n)."""
    step = SampledGaussian(20.0, 1.0, 1)
    steps = calibrate_steps("pld", step, epsilon=1.0, delta=DELTA)

    def delta_of(count):
        a, b = math.sqrt(count) / 40, 20 / math.sqrt(count)
        phi = lambda x: math.erfc(-x / math.sqrt(2)) / 2  # noqa: E731
        return phi(a - b) - math.e * phi(-a - b)

    assert delta_of(steps) <= DELTA
    assert delta_of(steps * 1.01 + 1) > DELTA


def test_one_step_over_the_budget_is_none():
    step = SampledGaussian(0.3, 0.5, 1)
    assert calibrate_steps("pld", step, epsilon=1.0, delta=DELTA) == 0


def test_a_bound_on_the_search():
    step = SampledGaussian(50.0, 1e-3, 1)
    assert calibrate_steps("rdp", step, epsilon=8.0, delta=DELTA, most=1000) == 1000


def test_a_plans_own_noise_gives_its_own_steps():
    """Noise calibrated to steps, steps to that noise: less than a hundredth apart."""
    plan = make_plan(
        epsilon=4, delta=1e-6, units=6500, expected_batch_size=256, steps=150, max_grad_norm=1.0
    )
    assert 150 <= StepsAtNoise.of(plan, plan.noise_multiplier).steps <= 152
    for noise in (0.0, -1.0, 1e-320, 1e-5, math.inf, math.nan):
        with pytest.raises(UserError, match="noise lies between"):
            StepsAtNoise.of(plan, noise)
