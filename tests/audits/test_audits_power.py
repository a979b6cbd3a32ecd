"""What is said of an audit's power before training, against simulated runs; its words."""

import json
from typing import Any

import numpy as np
import pytest

from audits import subject
from audits.claim.gating import needed_guesses, trade_off_curve
from audits.claim.ideal import ideal_canaries
from audits.claim.outlook import outlook
from audits.claim.power import (
    CANARIES,
    CHANCE,
    NOISES,
    TESTS,
    canaries_needed,
    chance_of,
    noise_of,
    power_of,
)
from dpmlm.artifacts import UserError

pytestmark = pytest.mark.xdist_group("power")

EIGHT = {"epsilon": 8, "delta": 1e-6, "noise_multiplier": 0.7943, "sample_rate": 0.05, "steps": 150}
ONE = EIGHT | {"epsilon": 1, "noise_multiplier": 2.8268}


@pytest.fixture(scope="module")
def power() -> dict[str, Any]:
    return power_of(EIGHT, 1000)


def test_the_constants_are_those_of_the_audit() -> None:
    assert len(subject.TESTS) == TESTS


def test_power_of_epsilon_8(power: dict[str, Any]) -> None:
    assert json.loads(json.dumps(power, allow_nan=False)) == power
    assert (power["canaries"], power["guesses"]) == (1000, 200)
    assert (power["needed"], power["needed_strict"]) == (198, 200)
    faults = {row["noise"]: row for row in power["faults"]}
    assert tuple(faults) == NOISES
    assert faults[1.0]["multiple"] == pytest.approx(1, abs=1e-3)
    assert faults[1.0]["rate"] <= 0.05
    assert faults[0.5]["rate"] >= 0.9
    assert faults[0.5]["rate_strict"] < faults[0.5]["rate"]
    assert faults[0.0]["epsilon"] == "inf"
    for row in power["faults"]:
        assert row["interval"][0] <= row["rate"] <= row["interval"][1]
    multiples = [row["multiple"] for row in power["faults"][:-1]]
    assert multiples == sorted(multiples)


def test_ceilings_are_the_bounds_of_guesses_that_are_all_right(power: dict[str, Any]) -> None:
    # P[all right] = q^200 with the term of delta: next to the closed form without it.
    q = 0.05 ** (1 / 200)
    assert power["ceilings"]["one_run"] == pytest.approx(np.log(q / (1 - q)), abs=0.01)
    assert power["ceilings"]["fdp_one_run"] > power["ceilings"]["one_run"]


def test_the_smallest_multiple_is_caught_and_a_smaller_one_is_not(power: dict[str, Any]) -> None:
    def rate(multiple: float) -> float:
        ideal = ideal_canaries(EIGHT, noise=noise_of(EIGHT, 8 * multiple))
        right = ideal.right_guesses(1000, 100, 1000, np.random.default_rng(9))
        return float((right >= power["needed"]).mean())

    least = power["smallest_multiple"]
    assert rate(least) == pytest.approx(CHANCE, abs=0.06)
    assert rate(0.8 * least) < CHANCE - 0.1
    assert power["smallest_multiple_strict"] > least


def test_the_best_number_of_guesses_is_no_worse_than_others(power: dict[str, Any]) -> None:
    curve, half = trade_off_curve(EIGHT), ideal_canaries(EIGHT, noise=0.5)
    for name, level in (("best", 0.05), ("best_strict", 0.05 / 3)):
        best = power[name]
        assert needed_guesses(1000, best["guesses"], curve, level) == best["needed"]
        for side in (5, 50, 100, 150, 200, 300, 500):
            needed = needed_guesses(1000, 2 * side, curve, level)
            assert chance_of(half, 1000, 2 * side, needed) <= best["chance"] + 1e-12
    # At the strict level it makes a difference that a user would want to know of.
    assert power["best_strict"]["chance"] > chance_of(half, 1000, 200, 200) + 0.2


@pytest.mark.parametrize(("noise", "needed"), [(0.7, 196), (0.5, 200)])
def test_chances_by_binomial_are_those_of_simulated_runs(noise: float, needed: int) -> None:
    ideal = ideal_canaries(EIGHT, noise=noise)
    right = ideal.right_guesses(1000, 100, 1000, np.random.default_rng(4))
    assert chance_of(ideal, 1000, 200, needed) == pytest.approx((right >= needed).mean(), abs=0.05)
    assert chance_of(ideal, 1000, 200, None) == 0


def test_too_few_guesses_say_how_many_are_missing() -> None:
    power = power_of(EIGHT, 100, 20, trials=10)
    assert power["needed"] is None
    assert power["smallest_multiple"] is None
    assert all(row["rate"] == 0 for row in power["faults"])
    fewest, curve = power["fewest_guesses"], trade_off_curve(EIGHT)
    assert needed_guesses(100, fewest, curve) == fewest
    assert needed_guesses(100, fewest - 2, curve) is None
    said = " ".join(outlook(power).split())
    assert "NO POWER" in said
    assert f"It takes {fewest} guesses, {fewest - 20} more." in said
    # On twenty canaries no number of guesses does.
    nothing = power_of(EIGHT, 20, trials=10)
    assert nothing["fewest_guesses"] is None
    assert nothing["best"] is None
    assert "No number of guesses would do" in " ".join(outlook(nothing).split())


def test_a_plan_that_promises_nothing_has_no_power_and_says_so() -> None:
    plan = EIGHT | {"epsilon": "inf", "noise_multiplier": 0}
    for found in (power_of(plan, 1000), canaries_needed(plan)):
        assert found["applicable"] is False
        assert "promises nothing" in found["reason"]
    assert "promises nothing" in outlook(power_of(plan, 1000))


def test_canaries_needed_is_the_first_of_the_grid_that_catches_it() -> None:
    found = canaries_needed(ONE, multiple=4.0, trials=400)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["canaries"] in CANARIES
    *others, last = found["tried"]
    assert last["canaries"] == found["canaries"]
    assert last["interval"][0] >= found["power"]
    curve = trade_off_curve(ONE)
    wrong = ideal_canaries(ONE, noise=found["noise"])
    assert wrong.epsilon(1e-6) == pytest.approx(4, rel=1e-3)
    for row in others:
        # None of the numbers before reaches it, with any number of guesses.
        for side in {max(1, row["canaries"] * share // 200) for share in (2, 5, 10, 20, 40, 100)}:
            needed = needed_guesses(row["canaries"], 2 * side, curve)
            assert chance_of(wrong, row["canaries"], 2 * side, needed) < 0.85


def test_no_number_of_canaries_is_said_with_its_reason(power: dict[str, Any]) -> None:
    found = canaries_needed(EIGHT, grid=(500, 1000))
    assert found["canaries"] is None
    assert "of such runs are caught" in found["reason"]
    assert [row["canaries"] for row in found["tried"]] == [500, 1000]
    assert found["reason"] in " ".join(outlook(power, found).split())


def test_a_rate_counts_by_the_low_end_of_its_interval() -> None:
    with pytest.raises(UserError, match="simulate 1 more"):
        canaries_needed(ONE, 4.0, trials=16)
    # 500 canaries catch it in nine runs of ten: too few trials show no such thing.
    found = canaries_needed(ONE, 4.0, trials=20, grid=(500,))
    assert found["tried"][0]["rate"] > found["power"] > found["tried"][0]["interval"][0]
    assert found["canaries"] is None


def test_noise_of_a_multiple_gives_it_back() -> None:
    for epsilon in (2.0, 16.0):
        noise = noise_of(ONE, epsilon)
        assert ideal_canaries(ONE, noise=noise).epsilon(1e-6) == pytest.approx(epsilon, rel=1e-3)
    assert noise_of(ONE, 0.5) == 1.0


@pytest.mark.full
def test_copies_are_held_against_the_claim_of_all_of_them() -> None:
    power = power_of(ONE, 1000, copies=4, trials=50)
    assert power["claim"]["epsilon"] == pytest.approx(4.6, abs=0.06)
    assert power["faults"][0]["multiple"] == pytest.approx(1, abs=0.01)
    assert power["needed"] > power_of(ONE, 1000, trials=10)["needed"]


@pytest.mark.full
def test_the_same_seed_says_the_same(power: dict[str, Any]) -> None:
    assert power_of(EIGHT, 1000) == power
    assert power_of(EIGHT, 1000, seed=1) != power


def test_the_words_hold_the_figures_in_80_columns(power: dict[str, Any]) -> None:
    found = {**canaries_needed(ONE, 4.0, trials=200)}
    text = outlook(power, found)
    assert max(map(len, text.splitlines())) <= 80
    said = " ".join(text.split())
    assert "198 right guesses refute the promise" in said
    assert "it takes 200" in said
    assert f"{power['smallest_multiple']:.3g} times the promise (alone)" in said
    assert f"{found['canaries']:,}, with" in said
    bars = [line for line in text.splitlines() if line.rstrip().endswith("|")]
    assert len(bars) == len(power["faults"])
    for line, row in zip(bars, power["faults"]):
        assert line.count("#") + line.count("+") == round(40 * row["rate"])
        assert line.count("#") == round(40 * row["rate_strict"])


@pytest.mark.parametrize("guesses", [0, 7, 1002])
def test_guesses_that_cannot_be_made_are_refused(guesses: int) -> None:
    with pytest.raises(UserError, match="guesses are even"):
        power_of(EIGHT, 1000, guesses)


@pytest.mark.parametrize(
    "wrong", [{"multiple": 1.0}, {"power": 1.0}, {"grid": ()}, {"grid": (1, 100)}]
)
def test_impossible_questions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="above 1"):
        canaries_needed(EIGHT, **wrong)
    with pytest.raises(UserError, match="without delta"):
        power_of({name: value for name, value in EIGHT.items() if name != "delta"}, 100)
