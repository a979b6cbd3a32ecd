"""The plan's curve against another computation of it; the gating test on runs right and wrong."""

import math

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from scipy import stats

from audits.claim.gating import (
    Guesses,
    check_plan,
    gating_test,
    membership_guesses,
    needed_guesses,
    trade_off_curve,
)
from dpmlm.artifacts import UserError

EIGHT = {"epsilon": 8, "delta": 1e-6, "noise_multiplier": 0.7943, "sample_rate": 0.05, "steps": 150}
ONE = EIGHT | {"epsilon": 1, "noise_multiplier": 2.8268}
CURVE_OF_EIGHT = trade_off_curve(EIGHT)
CURVE_OF_ONE = trade_off_curve(ONE)


@pytest.mark.parametrize(
    ("plan", "curve"),
    [pytest.param(EIGHT, CURVE_OF_EIGHT, marks=pytest.mark.full), (ONE, CURVE_OF_ONE)],
)
def test_curve_has_the_epsilon_of_dp_accountings_own_accountant(plan: dict, curve) -> None:
    event = dp_event.SelfComposedDpEvent(
        dp_event.PoissonSampledDpEvent(
            plan["sample_rate"], dp_event.GaussianDpEvent(plan["noise_multiplier"])
        ),
        plan["steps"],
    )
    accountant = PLDAccountant().compose(event)
    for delta in (1e-6, 1e-4):
        assert curve.epsilon(delta) == pytest.approx(accountant.get_epsilon(delta), abs=0.01)


def test_curve_of_one_full_step_is_the_gaussian_one() -> None:
    plan = EIGHT | {"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": 1}
    curve = trade_off_curve(plan)
    for x in (1e-3, 0.02, 0.3, 0.7, 0.99):
        gaussian = stats.norm.cdf(stats.norm.ppf(x) - 1)
        assert curve(x) == pytest.approx(gaussian, abs=2e-4)
        assert curve(x) <= gaussian + 1e-9


@pytest.mark.parametrize("curve", [CURVE_OF_EIGHT, CURVE_OF_ONE])
def test_curve_is_a_symmetric_trade_off_function(curve) -> None:
    grid = np.linspace(0, 1, 201)
    f = np.array([curve(1 - alpha) for alpha in grid])
    assert f[-1] == 0
    assert (f <= 1 - grid + 1e-12).all()
    assert (np.diff(f) <= 1e-12).all()
    assert (np.diff(f, 2) >= -1e-9).all()
    # Its own inverse: f(f(a)) = a where f is positive.
    for alpha in grid[20:-20:20]:
        assert curve(1 - curve(1 - alpha)) == pytest.approx(alpha, abs=2e-3)


def test_curve_lies_under_an_attack_on_the_mechanism_itself() -> None:
    """Likelihood-ratio attack on many simulated runs: its errors are not below f."""
    rng = np.random.default_rng(3)
    absent, present = (_log_ratios(rng, ONE, 4000, held) for held in (False, True))
    for threshold in (-1.0, 0.0, 1.0, 2.0):
        false_positive = float((absent > threshold).mean())
        false_negative = float((present <= threshold).mean())
        slack = 4 * math.sqrt(0.25 / 4000)
        assert false_negative + slack >= CURVE_OF_ONE(1 - false_positive)


def _log_ratios(rng: np.random.Generator, plan: dict, runs: int, present: bool) -> np.ndarray:
    """Sum over steps of the log-likelihood ratio of a canary's projection on the noised sum."""
    sigma, q = plan["noise_multiplier"], plan["sample_rate"]
    total = np.zeros(runs)
    for _ in range(plan["steps"]):
        x = sigma * rng.normal(size=runs) + (present & (rng.random(runs) < q))
        total += np.log1p(q * np.expm1((x - 0.5) / sigma**2))
    return total


def _run(rng: np.random.Generator, plan: dict, noise: float, m: int, side: int) -> Guesses:
    """Ideal canaries of one run whose noise is `noise` times the plan's."""
    real = plan | {"noise_multiplier": plan["noise_multiplier"] * noise}
    coins = rng.integers(0, 2, m).astype(bool)
    scores = np.where(coins, _log_ratios(rng, real, m, True), _log_ratios(rng, real, m, False))
    return membership_guesses(scores, coins, side)


def _rejections(plan: dict, curve, noise: float, runs: int, side: int = 100) -> int:
    needed = needed_guesses(1000, 2 * side, curve)
    assert needed is not None
    rng = np.random.default_rng(5)
    return sum(_run(rng, plan, noise, 1000, side).correct >= needed for _ in range(runs))


def test_198_of_200_guesses_reject_epsilon_8() -> None:
    assert needed_guesses(1000, 200, CURVE_OF_EIGHT) == 198
    assert gating_test(Guesses(1000, 200, 198), CURVE_OF_EIGHT).rejected
    assert not gating_test(Guesses(1000, 200, 197), CURVE_OF_EIGHT).rejected


def test_50_guesses_can_never_reject_epsilon_8() -> None:
    result = gating_test(Guesses(1000, 50, 50), CURVE_OF_EIGHT)
    assert result.needed is None
    assert not result.rejected
    assert result.p_value > 0.05


def test_p_value_is_the_smallest_level_that_rejects() -> None:
    for correct in (130, 139, 150):
        guesses = Guesses(1000, 200, correct)
        p_value = gating_test(guesses, CURVE_OF_ONE).p_value
        assert gating_test(guesses, CURVE_OF_ONE, min(0.999, p_value * 1.001)).rejected
        assert not gating_test(guesses, CURVE_OF_ONE, p_value * 0.999).rejected


def test_correct_runs_are_not_rejected_and_no_noise_is() -> None:
    assert _rejections(EIGHT, CURVE_OF_EIGHT, 1.0, 10) == 0
    assert _rejections(ONE, CURVE_OF_ONE, 1.0, 20) <= 4
    assert _rejections(ONE, CURVE_OF_ONE, 0.1, 5) == 5


@pytest.mark.full
def test_correct_runs_are_rarely_rejected_in_2000() -> None:
    assert _rejections(EIGHT, CURVE_OF_EIGHT, 1.0, 200) == 0
    assert _rejections(ONE, CURVE_OF_ONE, 1.0, 2000) <= 131


@pytest.mark.full
def test_half_the_noise_is_mostly_caught() -> None:
    assert _rejections(EIGHT, CURVE_OF_EIGHT, 0.5, 200) / 200 == pytest.approx(0.94, abs=0.06)
    assert _rejections(ONE, CURVE_OF_ONE, 0.5, 200) / 200 == pytest.approx(0.61, abs=0.12)


@pytest.mark.parametrize(
    ("copies", "epsilon"), [(4, 4.6), pytest.param(16, 24.6, marks=pytest.mark.full)]
)
def test_group_curve_at_epsilon_1(copies: int, epsilon: float) -> None:
    assert trade_off_curve(ONE, copies).epsilon(1e-6) == pytest.approx(epsilon, abs=0.1)


@pytest.mark.full
def test_group_curve_of_four_at_epsilon_8() -> None:
    assert trade_off_curve(EIGHT, 4).epsilon(1e-6) == pytest.approx(39.7, rel=0.01)


def test_guesses_count_both_ends_and_break_ties_by_position() -> None:
    coins = [True, False, True, False, True, False]
    assert membership_guesses(np.array([6, 1, 5, 2, 4, 3.0]), coins, 2) == Guesses(6, 4, 4)
    assert membership_guesses(np.array([1, 6, 2, 5, 3, 4.0]), coins, 2) == Guesses(6, 4, 0)
    assert membership_guesses(np.zeros(6), coins, 1) == Guesses(6, 2, 0)


def test_the_recursion_is_that_of_the_paper_on_a_plans_curve() -> None:
    """Arrays indexed as in the paper, with no early end."""

    def naive(m: int, guesses: int, correct: int, beta: float) -> bool:
        r, h = [0.0] * (correct + 1), [0.0] * (correct + 1)
        r[correct], h[correct] = beta * correct / m, beta * (guesses - correct) / m
        for i in reversed(range(correct)):
            h[i] = max(h[i + 1], CURVE_OF_ONE(r[i + 1]))
            r[i] = r[i + 1] + i / (guesses - i) * (h[i] - h[i + 1])
        return r[0] + h[0] > guesses / m

    for m, guesses in ((1000, 200), (100, 60), (40, 40)):
        needed = needed_guesses(m, guesses, CURVE_OF_ONE)
        assert needed is not None
        for correct in (needed - 1, needed, guesses):
            assert naive(m, guesses, correct, 0.05) is (correct >= needed)


def test_unusable_scores_and_plans_are_refused() -> None:
    with pytest.raises(UserError, match="not finite"):
        membership_guesses(np.array([1.0, math.nan]), [True, False], 1)
    with pytest.raises(UserError, match="at most half"):
        membership_guesses(np.array([1.0, 2.0]), [True, False], 2)
    with pytest.raises(UserError, match="without steps"):
        trade_off_curve({name: value for name, value in EIGHT.items() if name != "steps"})
    with pytest.raises(UserError, match="without noise"):
        trade_off_curve(EIGHT | {"noise_multiplier": 0.0})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", "8"), ("epsilon", -1), ("epsilon", math.nan), ("epsilon", True),
        ("delta", 0), ("delta", 1.5), ("delta", [1e-6]), ("sample_rate", 0), ("sample_rate", 2),
        ("noise_multiplier", 1e-9), ("noise_multiplier", math.inf), ("noise_multiplier", -1),
        ("steps", 0), ("steps", True), ("steps", 1.5), ("steps", 10**9), ("steps", 10**400),
        ("bindings", 5), ("bindings", [1]), ("digest", 5), ("digest", "\ud800"),
    ],
)  # fmt: skip
def test_a_plan_of_the_wrong_kind_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(UserError) as caught:
        check_plan(EIGHT | {field: value})
    assert field in caught.value.given


def test_a_plan_that_promises_nothing_is_a_plan() -> None:
    check_plan(EIGHT | {"epsilon": "inf", "noise_multiplier": 0})
    check_plan(EIGHT | {"epsilon": math.inf, "noise_multiplier": 0.0, "bindings": None})


@pytest.mark.parametrize("error", [MemoryError(), ValueError("size"), OverflowError("range")])
def test_a_plan_beyond_the_accountant_is_the_callers_to_mend(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from dp_accounting.pld import privacy_loss_distribution

    def beyond(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(privacy_loss_distribution, "from_gaussian_mechanism", beyond)
    with pytest.raises(UserError, match=r"noise_multiplier 0\.7943"):
        trade_off_curve(EIGHT)
