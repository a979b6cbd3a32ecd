"""What `dpmlm audit` prints and concludes."""

from pathlib import Path

import pytest

from audits.attack import Attack
from audits.subject import TESTS

UNSCORED = {"applicable": False, "reason": "its scores are not finite"}
TRIED = {"applicable": True, "p_value": 1.0}
EXPOSED = TRIED | {"n": 132, "ceiling_bits": 12.98}
UNTOLD = {"p_value": None, "test": {"applicable": False, "reason": "nothing is claimed"}}


def the_attack(*, target=TRIED, rejected=(), power=None, inserted=200, **more):
    subject = dict.fromkeys(("gating", "exposure", "canary_extraction"), target)
    subject["canary_extraction"] = {"n": inserted, "extracted": 0, **target}
    tests = {test: {"power": test == "gating"} for test in TESTS}
    power = power or {"status": "shown", "control_rejected_by": ["gating"],
                      "untrained_rejected_by": [], "tests": tests}  # fmt: skip
    subject |= {"rejected_by": rejected, "lower_bound": {}} | more.pop("subject", {})
    claim = {"epsilon": 8.0, "delta": 1e-6, "recomputed_epsilon": 8.0} | more
    evidence = {"subjects": {"target": subject}, "power": power, "claim": claim,
                "declared": {"bound_by": "commitment file"}}  # fmt: skip
    return Attack(evidence, Path("e.json"), Path("e.scores.json"), Path("plan.json"))


def test_a_model_without_scores_is_not_said_to_have_withstood():
    told = "claim    epsilon 8, delta 1e-06, by plan.json: not contradicted by any test"
    assert the_attack().text().splitlines()[1] == told
    assert "was there before the training is for you to know" in the_attack().text()
    assert "CONTRADICTED by gating" in the_attack(rejected=["gating"]).text()
    silent = the_attack(target=UNSCORED)
    assert "claim    not tested: its scores are not finite" in silent.text()
    assert silent.verdict.word == "INCONCLUSIVE"


def test_a_test_that_caught_the_control_has_to_be_made_of_the_model():
    part = {"gating": UNSCORED}
    assert the_attack(subject=part).verdict.word == "INCONCLUSIVE"
    assert "gating caught the control" in the_attack(subject=part).verdict.reason
    assert the_attack(subject={"exposure": UNSCORED}).verdict.word == "PASS"


def test_a_test_without_power_is_named_as_silent():
    reason = the_attack().verdict.reason
    assert "gating caught the control" in reason
    for test in ("exposure", "canary_extraction"):
        assert f"{test}: its silence says nothing" in reason
    assert "gating: its silence" not in reason


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "PASS"),
        ({"rejected": ["gating"]}, "FAIL"),
        ({"target": TRIED | {"extracted": 1}}, "INCONCLUSIVE"),
        ({"target": TRIED | {"extracted": 1}, "rejected": ["canary_extraction"]}, "FAIL"),
        ({"target": UNTOLD | {"extracted": 1}, "epsilon": "inf"}, "FAIL"),
        ({"target": UNTOLD, "epsilon": "inf"}, "INCONCLUSIVE"),
        ({"subject": {"lower_bound": {"one_run": 9.0}}}, "PASS"),
        ({"recomputed_epsilon": 8.5}, "FAIL"),
        ({"recomputed_epsilon": "inf"}, "FAIL"),
        ({"recomputed_epsilon": 8.1}, "PASS"),
        ({"inserted": 99}, "INCONCLUSIVE"),
        ({"inserted": 100}, "PASS"),
        ({"subject": {"exposure": EXPOSED | {"mean_bits": 13.0}}}, "PASS"),
        ({"subject": {"exposure": EXPOSED | {"mean_bits": 13.3}}}, "PASS"),
        ({"subject": {"exposure": EXPOSED | {"mean_bits": 14.0}}}, "INCONCLUSIVE"),
        ({"subject": {"gating": TRIED | {"correct": 40, "guesses": 104}}}, "PASS"),
        ({"subject": {"gating": TRIED | {"correct": 2, "guesses": 104}}}, "INCONCLUSIVE"),
    ],
)
def test_the_verdict_follows_from_the_figures(changed, word):
    assert the_attack(**changed).verdict.word == word


@pytest.mark.parametrize(
    ("by_control", "by_untrained", "said"),
    [
        (None, None, "no --control was given"),
        ([], [], "no test catches the control"),
        (["x"], None, "no --untrained model was given"),
        (["x"], [], "the untrained model could not be scored"),
        (["x"], ["y"], "the untrained model is rejected too, by y"),
    ],
)
def test_missing_power_has_its_reason(by_control, by_untrained, said):
    power = {"status": "not shown", "control_rejected_by": by_control,
             "untrained_rejected_by": by_untrained}  # fmt: skip
    verdict = the_attack(power=power).verdict
    assert verdict.word == "INCONCLUSIVE"
    assert said in verdict.reason
