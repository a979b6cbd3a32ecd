"""Ideal canaries against a loop over steps, against the accountant, and against closed forms."""

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from audits.claim.gating import membership_guesses, trade_off_curve
from audits.claim.ideal import IdealCanaries, ideal_canaries
from audits.statistics import gaussian_epsilon
from dpmlm.artifacts import UserError

EIGHT = {"epsilon": 8, "delta": 1e-6, "noise_multiplier": 0.7943, "sample_rate": 0.05, "steps": 150}
ONE = EIGHT | {"epsilon": 1, "noise_multiplier": 2.8268}
CHANGING = ONE | {
    "noise_multiplier": 1.0,
    "plateaus": [{"steps": 20, "sample_rate": 0.1}, {"steps": 130, "sample_rate": 0.01}],
}


def gaussian_canaries(mu: float) -> IdealCanaries:
    """Of one full step: scores are N(-mu^2/2, mu^2) out, N(mu^2/2, mu^2) in."""
    return ideal_canaries(ONE | {"noise_multiplier": 1 / mu, "sample_rate": 1, "steps": 1})


def walk(plan: dict, noise: float, copies: int, present: bool, runs: int) -> np.ndarray:
    """Scores step by step: draw the noised sum, add its log-likelihood ratio."""
    rng = np.random.default_rng(8)
    sigma, total = plan["noise_multiplier"] * noise, np.zeros(runs)
    for part in plan.get("plateaus") or [plan]:
        q = part["sample_rate"]
        for _ in range(part["steps"]):
            held = rng.binomial(copies, q, runs) if present else 0
            x = held + sigma * rng.normal(size=runs)
            ratio = sum(
                math.comb(copies, k) * q**k * (1 - q) ** (copies - k)
                * np.exp((k * x - k * k / 2) / sigma**2)
                for k in range(copies + 1)
            )  # fmt: skip
            total += np.log(ratio)
    return total


@pytest.mark.parametrize(
    ("plan", "noise", "copies"),
    [(EIGHT, 1.0, 1), (EIGHT, 0.5, 1), (ONE, 1.0, 1), (ONE, 1.0, 4), (CHANGING, 1.0, 1)],
)
def test_scores_are_distributed_as_in_a_loop_over_steps(
    plan: dict, noise: float, copies: int
) -> None:
    ideal = ideal_canaries(plan, noise=noise, copies=copies)
    for present, mass in ((True, ideal.inside), (False, ideal.outside)):
        drawn = walk(plan, noise, copies, present, 4000)
        # Half a cell off at most; a probability of 1e-4 by Kolmogorov and Smirnov.
        ends = ideal.scores + (ideal.scores[1] - ideal.scores[0]) / 2
        below = np.cumsum(mass)
        found = stats.kstest(drawn, partial(np.interp, xp=ends, fp=below))
        assert found.pvalue > 1e-4
        assert mass.sum() == pytest.approx(1)


@pytest.mark.parametrize("plan", [EIGHT, CHANGING])
def test_epsilon_is_that_of_the_accountant(plan: dict) -> None:
    found = ideal_canaries(plan).epsilon(1e-6)
    assert found == pytest.approx(trade_off_curve(plan).epsilon(1e-6), rel=2e-3)


@pytest.mark.parametrize(
    ("plan", "copies", "epsilon"), [(ONE, 4, 4.6), (ONE, 16, 24.6), (EIGHT, 4, 39.7)]
)
def test_epsilon_of_several_copies(plan: dict, copies: int, epsilon: float) -> None:
    assert ideal_canaries(plan, copies=copies).epsilon(1e-6) == pytest.approx(epsilon, rel=0.01)


def test_bands_take_turns() -> None:
    turns = ideal_canaries(ONE | {"bands": 3})
    assert turns.epsilon(1e-6) == pytest.approx(
        ideal_canaries(ONE | {"sample_rate": 0.15, "steps": 50}).epsilon(1e-6)
    )


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_gaussian_canaries_have_closed_forms(mu: float) -> None:
    ideal = gaussian_canaries(mu)
    assert ideal.scores @ ideal.inside == pytest.approx(mu**2 / 2, rel=1e-3)
    assert ideal.scores @ ideal.outside == pytest.approx(-(mu**2) / 2, rel=1e-3)
    assert ideal.epsilon(1e-5) == pytest.approx(gaussian_epsilon(mu, 1e-5), rel=2e-3)
    # Half of the canaries a side is a threshold in the middle.
    assert ideal.accuracy(0.5) == pytest.approx(stats.norm.cdf(mu / 2), abs=1e-3)


def test_without_noise_a_canary_is_known_unless_it_was_never_drawn() -> None:
    plan = EIGHT | {"steps": 10}
    never = 0.95**10
    ideal = ideal_canaries(plan, noise=0.0)
    assert ideal.inside[0] == pytest.approx(never)
    rng = np.random.default_rng(3)
    right = ideal.right_guesses(1000, 100, 200, rng) / 200
    # The top 100 are known; the bottom 100 are out unless never drawn.
    expected = (1 + 1 / (1 + never)) / 2
    assert right.mean() == pytest.approx(expected, abs=0.01)
    assert ideal.accuracy(0.1) == pytest.approx(expected, abs=1e-6)


def test_next_to_no_noise_comes_close_to_none() -> None:
    none = ideal_canaries(EIGHT, noise=0.0).accuracy(0.1)
    for noise in (0.1, 0.01):
        assert ideal_canaries(EIGHT, noise=noise).accuracy(0.1) == pytest.approx(none, abs=1e-4)


@pytest.mark.parametrize("side", [10, 50, 200])
def test_right_guesses_are_those_of_drawn_canaries(side: int) -> None:
    ideal, rng = gaussian_canaries(1.0), np.random.default_rng(2)
    found = ideal.right_guesses(400, side, 1000, rng)
    naive = []
    for _ in range(1000):
        coins = rng.integers(0, 2, 400).astype(bool)
        naive.append(membership_guesses(rng.normal(size=400) + coins, coins, side).correct)
    error = 4 * np.std(naive) * math.sqrt(2 / 1000)
    assert found.mean() == pytest.approx(np.mean(naive), abs=error)
    assert found.std() == pytest.approx(np.std(naive), rel=0.15)
    assert ideal.accuracy(side / 400) * 2 * side == pytest.approx(np.mean(naive), abs=error + 0.5)


def test_scores_that_tell_nothing_are_coin_flips() -> None:
    flat = IdealCanaries(np.zeros(1), np.ones(1), np.ones(1))
    right = flat.right_guesses(100, 50, 2000, np.random.default_rng(1))
    assert right.mean() == pytest.approx(50, abs=0.5)
    assert flat.accuracy(0.2) == pytest.approx(0.5)
    assert flat.epsilon(1e-6) == pytest.approx(0, abs=1e-6)


def test_many_trials_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audits.claim.ideal._DRAWN_AT_ONCE", 250)
    right = gaussian_canaries(1.0).right_guesses(100, 10, 7, np.random.default_rng(1))
    assert right.shape == (7,)


def test_unfit_settings_are_refused() -> None:
    with pytest.raises(UserError, match="share -1"):
        ideal_canaries(EIGHT, noise=-1.0)
    with pytest.raises(UserError, match="0 copies"):
        ideal_canaries(EIGHT, copies=0)
    with pytest.raises(UserError, match="without steps"):
        ideal_canaries({name: value for name, value in EIGHT.items() if name != "steps"})
    with pytest.raises(UserError, match="60 guesses a side on 100"):
        gaussian_canaries(1.0).right_guesses(100, 60, 1, np.random.default_rng(1))
