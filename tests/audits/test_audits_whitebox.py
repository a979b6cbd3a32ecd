"""Gradient canaries against ideal transcripts: scores, tests, bounds, and what is refused."""

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from audits.claim import whitebox
from audits.claim.gating import membership_guesses, needed_guesses, trade_off_curve
from audits.claim.ideal import ideal_canaries
from audits.claim.power import CHANCE, best_guesses, noise_of, smallest_caught
from audits.claim.whitebox import (
    GradientCanarySet,
    Transcript,
    judge_whitebox,
    plan_gradient_canaries,
    score,
)
from dpmlm.artifacts import IntegrityError, SealedFolder, UserError, new_identity

PLAN = {"epsilon": 8, "delta": 1e-5, "noise_multiplier": 0.7465, "sample_rate": 0.05, "steps": 150}
CURVE = trade_off_curve(PLAN)


@pytest.fixture(autouse=True)
def curve_at_hand(monkeypatch):
    """The one curve of most tests, and what follows from it, computed once."""
    monkeypatch.setattr(
        whitebox, "trade_off_curve", lambda plan: CURVE if plan is PLAN else trade_off_curve(plan)
    )
    monkeypatch.setattr(
        whitebox, "smallest_caught", lambda plan, *given: caught_at(*given) if plan is PLAN else 1.0
    )
    monkeypatch.setattr(
        whitebox,
        "best_guesses",
        lambda plan, count, curve, level: (
            best_of(count, level) if plan is PLAN else best_guesses(plan, count, curve, level)
        ),
    )


@cache
def caught_at(*given):
    return smallest_caught(PLAN, *given)


@cache
def best_of(count, level):
    return best_guesses(PLAN, count, CURVE, level)


def ideal(seed=0, count=1000, plan=PLAN, *, noise=1.0, norm=1.0, rate=1.0, text=0.0):
    """Coins and a transcript of the mechanism itself; the faults are factors of what is planned."""
    rng = np.random.default_rng(seed)
    canaries = plan_gradient_canaries(count, secret=rng.bytes(32))
    shape = plan["steps"], count
    drawn = (rng.random(shape) < rate * plan["sample_rate"]) & np.array(canaries.included)
    x = norm * drawn + noise * plan["noise_multiplier"] * rng.normal(size=shape)
    x += text * rng.normal(size=shape)
    return canaries, Transcript(x.astype(np.float32), "of the plan", canaries.commitment)


def naive_score(column, rates, sigma):
    """One canary's ratio, as the densities themselves have it."""
    total = 0.0
    for x, q in zip(column, rates):
        absent = stats.norm.pdf(x, 0, sigma)
        present = (1 - q) * absent + q * stats.norm.pdf(x, 1, sigma)
        total += math.log(present / absent)
    return total


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sample_rate": 1.0},
        {
            "sample_rate": 0.3,
            "plateaus": [{"steps": 5, "sample_rate": 0.1}, {"steps": 7, "sample_rate": 0.3}],
        },
    ],
    ids=["constant", "everybody", "schedule"],
)
def test_a_score_is_the_log_ratio_of_the_densities(changes):
    plan = PLAN | {"steps": 12} | changes
    _, transcript = ideal(count=6, plan=plan)
    rates = [0.1] * 5 + [0.3] * 7 if "plateaus" in plan else [plan["sample_rate"]] * 12
    expected = [naive_score(c, rates, 0.7465) for c in transcript.projections.T.astype(float)]
    np.testing.assert_allclose(score(transcript, plan), expected, rtol=1e-9)


def test_ideal_canaries_bound_epsilon_8_and_are_not_rejected():
    found = [judge_whitebox(*ideal(seed), PLAN) for seed in range(3)]
    bounds = [part["lower_bound"]["fdp_one_run"] for part in found]
    assert 2.6 < np.mean(bounds) < 3.3
    assert all(part["rejected_by"] == [] for part in found)
    part = found[0]
    assert (part["guesses"], part["lower_bound"]["guesses"]) == (600, 200)
    # By the guesses of the bounds the test could never reject at Holm's strictest level.
    assert needed_guesses(1000, 200, CURVE, 0.05 / 3) is None
    assert part["lower_bound"]["one_run_ceiling"] > part["lower_bound"]["one_run"] > 1
    assert part["lower_bound"]["fdp_one_run_ceiling"] > 7
    gating = part["gating"]
    assert gating["can_reject"]
    assert gating["needed_strict"] == needed_guesses(1000, 600, CURVE, 0.05 / 3)
    least = ideal_canaries(PLAN, noise=noise_of(PLAN, 8 * gating["smallest_multiple_detected"]))
    right = least.right_guesses(1000, 300, 400, np.random.default_rng(1))
    assert (right >= gating["needed_strict"]).mean() == pytest.approx(CHANCE, abs=0.08)
    assert json.loads(json.dumps(part)) == part


def test_ratios_of_steps_beat_summed_projections():
    """What the score is for: 3.0 against 2.0 in the ideal case."""
    canaries, transcript = ideal(3)
    coins = np.array(canaries.included)
    ours = membership_guesses(score(transcript, PLAN), coins, 100).correct
    summed = membership_guesses(transcript.projections.sum(axis=0), coins, 100).correct
    assert ours >= summed + 5


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        ({"noise": 0.5}, "noise"),
        ({"noise": 0.95}, "noise"),
        ({"norm": 2.0}, "drawn"),
        ({"rate": 2.0}, "drawn"),
        ({"norm": 4.0, "noise": 1.0}, "gating"),
    ],
)
def test_faults_are_caught(fault, caught):
    part = judge_whitebox(*ideal(1, **fault), PLAN)
    assert caught in part["rejected_by"]
    assert part[caught]["rejected"]


def test_a_quarter_of_the_noise_is_caught_by_guesses_alone_at_a_small_claim():
    plan = PLAN | {"epsilon": 1, "noise_multiplier": 2.5}
    needed = needed_guesses(1000, 200, trade_off_curve(plan))

    def right(seed, noise):
        canaries, transcript = ideal(seed, plan=plan, noise=noise)
        coins = np.array(canaries.included)
        return membership_guesses(score(transcript, plan), coins, 100).correct

    assert sum(right(seed, 0.25) >= needed for seed in range(10)) == 10
    assert sum(right(seed, 1.0) >= needed for seed in range(10)) == 0


def test_text_beside_the_canaries_weakens_the_bound_and_accuses_nobody():
    found = [judge_whitebox(*ideal(seed, text=1.0), PLAN) for seed in range(2)]
    assert all(part["rejected_by"] == [] for part in found)
    assert all(part["noise"]["measured"] > 1.1 for part in found)
    assert np.mean([part["lower_bound"]["fdp_one_run"] for part in found]) < 2


def test_correct_runs_are_rejected_at_most_as_often_as_beta(monkeypatch):
    plan = PLAN | {"steps": 40}
    curve = trade_off_curve(plan)
    monkeypatch.setattr(whitebox, "trade_off_curve", lambda _: curve)
    p_values = {"noise": [], "drawn": []}
    alarms = 0
    for seed in range(400):
        canaries, transcript = ideal(seed, count=60, plan=plan)
        x, coins = transcript.projections, np.array(canaries.included)
        p_values["noise"].append(whitebox._noise(x[:, ~coins], plan)["p_value"])
        p_values["drawn"].append(whitebox._drawn(x[:, coins], x[:, ~coins], plan)["p_value"])
        if seed < 10:
            alarms += bool(judge_whitebox(canaries, transcript, plan)["rejected_by"])
    for found in p_values.values():
        below = int((np.array(found) < 0.05).sum())
        assert below <= stats.binom.ppf(0.999, 400, 0.05)
        assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert alarms <= stats.binom.ppf(0.999, 10, 0.05)


def test_a_part_that_cannot_be_judged_says_why():
    canaries, transcript = ideal(count=60)
    for plan in (PLAN | {"epsilon": "inf"}, PLAN | {"noise_multiplier": 0}):
        part = judge_whitebox(canaries, transcript, plan)
        assert part["applicable"] is False
        assert "promises nothing" in part["reason"]
    same = replace(canaries, included=(True,) * 60)
    part = judge_whitebox(same, replace(transcript, commitment=same.commitment), PLAN)
    assert part["applicable"] is False
    assert "one in and one out" in part["reason"]
    transcript.projections[3, 4] = np.nan
    assert "not finite" in judge_whitebox(canaries, transcript, PLAN)["reason"]


@pytest.mark.parametrize(
    "changes", [{"bands": 2}, {"max_batch_size": 90, "units": 1000}, {"steps": 149}]
)
def test_plans_under_which_scores_mean_nothing_are_refused(changes):
    with pytest.raises(UserError, match="a transcript"):
        judge_whitebox(*ideal(count=20), PLAN | changes)


def test_transcripts_and_plans_of_other_runs_are_refused():
    canaries, transcript = ideal(count=20)
    other = plan_gradient_canaries(20)
    bound = PLAN | {"bindings": {whitebox.COMMITMENT: other.commitment}}
    wrong = [
        (other, transcript, PLAN),
        (canaries, replace(transcript, commitment=other.commitment), PLAN),
        (canaries, transcript, bound),
        (canaries, transcript, PLAN | {"digest": "sha256:other"}),
        (canaries, replace(transcript, projections=transcript.projections[:, :19]), PLAN),
    ]
    for given in wrong:
        with pytest.raises(IntegrityError, match="of others"):
            judge_whitebox(*given)


def test_coins_are_fair_committed_to_and_not_published():
    drawn = plan_gradient_canaries(4000)
    assert 1850 < len(drawn.members) < 2150
    assert drawn != plan_gradient_canaries(4000)
    assert plan_gradient_canaries(9, secret=b"s") == plan_gradient_canaries(9, secret=b"s")
    assert set(drawn.public()) == {"schema", "canaries", "commitment"}
    value = drawn.to_json()
    assert GradientCanarySet.from_json(json.loads(json.dumps(value))) == drawn
    value["included"][7] = 1 - value["included"][7]
    with pytest.raises(IntegrityError, match="a coin or the seed was changed"):
        GradientCanarySet.from_json(value)
    for broken in ({"seed": "00"}, {"included": None}, {"schema": "other"}):
        with pytest.raises(UserError, match="malformed field"):
            GradientCanarySet.from_json(value | broken)


def test_set_and_transcript_are_sealed_whole(tmp_path):
    identity = new_identity()
    canaries, transcript = ideal(count=20)
    folder = SealedFolder.create(tmp_path / "sealed", [identity.recipient], role="training")
    assert GradientCanarySet.read(folder) is None
    canaries.write(folder)
    transcript.write(folder)
    folder.finish({})
    folder = SealedFolder.open(tmp_path / "sealed", [identity])
    again = Transcript.read(folder)
    assert GradientCanarySet.read(folder) == canaries
    assert np.array_equal(again.projections, transcript.projections)
    assert again.commitment == canaries.commitment
    # Neither coins nor directions lie with it.
    facts = folder.read_json("gradient_projections.json")
    assert set(facts) == {"schema", "shape", "plan", "commitment"}
    folder.write_bytes("gradient_projections", bytes(40))
    with pytest.raises(IntegrityError, match="a transcript of 10 numbers"):
        Transcript.read(folder)
