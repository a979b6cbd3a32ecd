"""Banded matrix factorisation: the matrix against dense algebra, turns, and the account."""

import itertools
import math

import numpy as np
import pytest
import torch
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from scipy import optimize, stats

from audits.claim.gating import trade_off_curve
from dpmlm.errors import UserError
from dpmlm.privacy import (
    BandedNoise,
    Ledger,
    PoissonSampler,
    PrivacyPlan,
    SampledGaussian,
    SecretStream,
    band_coefficients,
    epsilon_of,
    error_of_steps,
    error_of_sums,
    groups_of,
    make_plan,
    statement,
)
from dpmlm.privacy.bands import _log_error
from dpmlm.privacy.summary import claim_of

KEY = b"k" * 32


def dense(coefficients, steps) -> np.ndarray:
    """C as a matrix."""
    return sum(weight * np.eye(steps, k=-place) for place, weight in enumerate(coefficients))


def dense_error(matrix) -> float:
    """Root mean square of the noise on all sums, from the matrix itself."""
    steps = len(matrix)
    sums = np.tril(np.ones((steps, steps)))
    return math.sqrt(np.sum((sums @ np.linalg.inv(matrix)) ** 2) / steps)


def a_plan(**changes) -> PrivacyPlan:
    settings = {"epsilon": 4.0, "delta": 1e-6, "units": 5000, "expected_batch_size": 50.0}
    settings |= {"steps": 100, "max_grad_norm": 1.0, "accountant": "pld", "bands": 8}
    return make_plan(**(settings | changes))


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return a_plan()


@pytest.mark.parametrize(("bands", "steps"), [(1, 1), (1, 30), (2, 30), (5, 30), (30, 30)])
def test_the_error_is_that_of_the_dense_matrices(bands, steps):
    found = band_coefficients(bands, steps)
    assert error_of_sums(found, steps) == pytest.approx(dense_error(dense(found, steps)), rel=1e-9)
    assert math.fsum(c * c for c in found) == pytest.approx(1, abs=1e-12)


def test_the_noise_of_a_step_is_that_of_the_dense_inverse():
    found = band_coefficients(4, 12)
    each = np.sum(np.linalg.inv(dense(found, 12)) ** 2, axis=1)
    assert error_of_steps(found, 12) == pytest.approx(math.sqrt(each.mean()))
    assert error_of_steps((1.0,), 12) == 1


def test_independent_noise_adds_up_as_a_random_walk():
    assert error_of_sums((1.0,), 99) == pytest.approx(math.sqrt(50))


def test_the_gradient_is_that_of_differences():
    tail = np.array([0.4, 0.3, 0.1])
    slopes = _log_error(tail, 20)[1]
    differences = optimize.approx_fprime(tail, lambda at: _log_error(at, 20)[0], 1e-7)
    assert slopes == pytest.approx(differences, abs=1e-5)


@pytest.mark.parametrize(("bands", "steps"), [(2, 12), (4, 24)])
def test_no_other_band_of_diagonals_has_less_error(bands, steps):
    """A search without gradients, on dense matrices."""

    def error(tail):
        matrix = dense([1.0, *tail], steps)
        return dense_error(matrix) * np.linalg.norm([1.0, *tail])

    best = optimize.minimize(error, np.full(bands - 1, 0.2), method="Nelder-Mead",
                             options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 5000})  # fmt: skip
    ours = error_of_sums(band_coefficients(bands, steps), steps)
    assert ours == pytest.approx(best.fun, rel=1e-5)


def test_equal_diagonals_lose_little_against_any_banded_matrix():
    """Every entry free, columns made of norm 1, by gradient descent: at 32 steps and 4 bands."""
    steps, bands = 32, 4
    band = torch.tensor(np.tril(np.ones((steps, steps))) - np.tril(np.ones((steps, steps)), -bands))
    free = torch.tensor(dense(band_coefficients(bands, steps), steps)).requires_grad_()
    sums = torch.tril(torch.ones(steps, steps, dtype=torch.float64))
    descent = torch.optim.LBFGS([free], max_iter=300, line_search_fn="strong_wolfe")

    def error():
        matrix = free * band
        matrix = matrix / matrix.norm(dim=0)
        return torch.linalg.solve_triangular(matrix.T, sums.T, upper=True).pow(2).sum() / steps

    def closure():
        descent.zero_grad()
        value = error()
        value.backward()
        return value

    descent.step(closure)
    best = math.sqrt(float(error().detach()))
    ours = error_of_sums(band_coefficients(bands, steps), steps)
    print(f"any banded matrix {best:.4f}, equal diagonals {ours:.4f}")
    assert best <= ours <= 1.05 * best


def test_more_bands_have_less_error_at_the_same_noise():
    errors = [error_of_sums(band_coefficients(bands, 500), 500) for bands in (1, 2, 4, 8, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 4


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_the_stream_of_noise_is_the_inverse_matrix_times_normals(bands):
    steps, coefficients = 23, band_coefficients(bands, 23)
    normals = torch.randn(steps, 7, generator=torch.Generator().manual_seed(1))
    noise = BandedNoise(coefficients)
    rows = [noise.correlate(normals[step].clone(), "w").clone() for step in range(steps)]
    expected = np.linalg.solve(dense(coefficients, steps), normals.double().numpy())
    assert torch.stack(rows).double().numpy() == pytest.approx(expected, abs=2e-5)


def test_labels_have_chains_of_their_own_and_no_more_than_the_bands_are_held():
    noise, alone = BandedNoise((0.8, 0.5, 0.3)), BandedNoise((0.8, 0.5, 0.3))
    for step in range(9):
        one = alone.correlate(torch.full((2,), float(step)), "a").clone()
        noise.correlate(torch.full((3,), 100.0), "b")
        assert torch.equal(noise.correlate(torch.full((2,), float(step)), "a"), one)
    assert {label: len(past) for label, past in noise._past.items()} == {"a": 2, "b": 2}


def test_a_unit_moves_all_releases_together_by_its_turns_alone():
    """Every choice of draws in a unit's turns, against what the account counts: one noisy sum of
    sensitivity 1 a draw. In steps that follow each other a unit would move them by more."""
    steps, bands = 9, 3
    matrix = dense(band_coefficients(bands, steps), steps)
    for group in range(bands):
        turns = range(group, steps, bands)
        for drawn in itertools.product([0.0, 1.0], repeat=len(turns)):
            pattern = np.zeros(steps)
            pattern[list(turns)] = drawn
            assert np.linalg.norm(matrix @ pattern) ** 2 <= sum(drawn) + 1e-12
    assert np.linalg.norm(matrix @ np.r_[1.0, 1.0, np.zeros(7)]) ** 2 > 2.5


def test_the_account_is_of_fewer_steps_at_a_higher_rate(plan):
    (part,) = plan.composition()
    assert (part.steps, part.sample_rate) == (13, pytest.approx(0.08))
    accountant = PLDAccountant()
    step = dp_event.GaussianDpEvent(plan.noise_multiplier)
    accountant.compose(dp_event.PoissonSampledDpEvent(0.08, step), 13)
    assert plan.epsilon_spent(100) == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-3)
    assert 3.9 < plan.epsilon_spent(100) <= 4.0
    assert plan.epsilon_spent(96) < plan.epsilon_spent(97) == plan.epsilon_spent(100)


def test_a_step_drawn_again_is_billed_whole(plan):
    """Ten attempts at one step are ten draws of the same group."""
    planned, again = plan.composition(110)
    assert (planned.steps, again.steps) == (13, 10)
    assert plan.largest_step().steps == 1
    assert plan.largest_step().sample_rate == pytest.approx(0.08)


def test_a_schedule_counts_the_turns_of_each_plateau():
    plan = a_plan(batch_schedule={20: 100}, bands=8)
    assert [part.steps for part in plan.composition()] == [3, 10]
    assert [part.sample_rate for part in plan.composition()] == pytest.approx([0.08, 0.16])


def test_the_auditors_curve_reads_the_bands(plan):
    curve = trade_off_curve(plan.to_json())
    assert curve.epsilon(plan.delta) == pytest.approx(4.0, rel=0.02)
    unaware = trade_off_curve({**plan.to_json(), "bands": 1})
    assert abs(unaware.epsilon(plan.delta) - 4.0) > 0.3
    with pytest.raises(UserError, match="several units that take turns"):
        trade_off_curve(plan.to_json(), copies=3)
    for odd in (0, 2.0, True, 101, "2"):
        with pytest.raises(UserError, match="bands"):
            trade_off_curve({**plan.to_json(), "bands": odd})


def test_units_are_drawn_in_their_turn_at_the_higher_rate():
    names = [f"u{index}" for index in range(400)]
    groups = groups_of(names, 4, KEY)
    sampler = PoissonSampler(
        names, lambda step: 0.3, stream=SecretStream.from_os(), groups=(4, groups)
    )
    drawn = np.zeros((80, 400), dtype=bool)
    for step in range(80):
        drawn[step, sampler.draw(step)] = True
    turns = np.arange(80)[:, None] % 4 == groups[None]
    assert not drawn[~turns].any()
    assert stats.binomtest(int(drawn.sum()), int(turns.sum()), 0.3).pvalue > 1e-6


def test_groups_are_alike_in_size_and_do_not_depend_on_each_other():
    names = [f"u{index}" for index in range(6000)]
    groups = groups_of(names, 6, KEY)
    assert stats.chisquare(np.bincount(groups, minlength=6)).pvalue > 1e-6
    assert np.array_equal(groups_of(names[100:], 6, KEY), groups[100:])
    assert not np.array_equal(groups_of(names, 6, b"o" * 32), groups)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"bands": 0}, "whole number from 1"),
        ({"bands": 2.0}, "whole number from 1"),
        ({"bands": 101}, "whole number from 1"),
        ({"bands": 100, "expected_batch_size": 51.0}, "lower bands to 98"),
        ({"max_batch_size": 100}, "use one of the two"),
        ({"noise": "discrete_gaussian", "accountant": "rdp"}, "use one of the two"),
    ],
)
def test_what_cannot_be_accounted_for_is_refused(changes, rule):
    with pytest.raises(UserError, match=rule):
        a_plan(**changes)


def test_a_plan_keeps_its_matrix(plan):
    data = plan.to_json()
    assert PrivacyPlan.from_json(data) == plan
    assert data["coefficients"] == list(band_coefficients(8, 100))
    longer = [1.01 * value for value in data["coefficients"]]
    with pytest.raises(UserError, match="add up to 1"):
        PrivacyPlan.from_json({**data, "coefficients": longer})
    with pytest.raises(UserError, match="7 coefficients"):
        PrivacyPlan.from_json({**data, "coefficients": data["coefficients"][:7]})
    with pytest.raises(UserError, match="hash to its digest"):
        PrivacyPlan.from_json({**data, "coefficients": data["coefficients"][::-1]})


def test_attempts_that_end_at_one_step_are_billed_as_the_draws_of_one_group(plan, tmp_path):
    ledger = Ledger.register(tmp_path / "ledger", epsilon=9.0, delta=1e-5, corpus="c")
    ledger.reserve("run", plan)

    def draw_for_ever():
        while True:
            ledger.charge("run", ledger.begin_attempt("run"), 0)

    with pytest.raises(UserError, match="no budget is left"):
        draw_for_ever()
    drawn = ledger.charged_steps("run")
    truth = epsilon_of("pld", (SampledGaussian(plan.noise_multiplier, 0.08, drawn),), plan.delta)
    assert drawn > 13
    assert truth <= ledger.spent().epsilon <= 9.0
    summary = ledger.summary("run")
    assert summary["billed_steps"] == 100 + drawn - 1
    assert summary["epsilon"] >= truth


def test_it_is_committed_as_a_whole(plan, tmp_path):
    ledger = Ledger.register(tmp_path / "ledger", epsilon=9.0, delta=1e-5, corpus="c")
    ledger.reserve("run", plan)
    attempt = ledger.begin_attempt("run")
    for step in range(100):
        ledger.charge("run", attempt, step)
    with pytest.raises(UserError, match="accounted for as a whole"):
        ledger.commit("run", 99, attempt)
    ledger.commit("run", 100, attempt)
    summary = ledger.summary("run")
    assert summary["epsilon"] == pytest.approx(plan.epsilon_spent(100))
    with pytest.raises(ValueError, match="over all steps"):
        claim_of(plan, {**summary, "committed_steps": 99})
    said = statement(plan, what="weights", summary=summary).sentence
    assert "cyclic Poisson, each document in one of every 8 of 100 steps" in said
    assert "probability 0.08;" in said
    assert "correlated over 8 steps by banded matrix factorisation" in said
