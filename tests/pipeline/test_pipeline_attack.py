"""What `dpmlm audit` prints where a model could not be scored."""

from pathlib import Path

import pytest

from audits.attack import Attack

UNSCORED = {"applicable": False, "reason": "its scores are not finite"}
TRIED = {"applicable": True, "p_value": 1.0}


def the_attack(*, target=TRIED, rejected=(), power=None, inserted=200, **more):
    subject = dict.fromkeys(("gating", "exposure", "canary_extraction"), target)
    subject["canary_extraction"] = {"n": inserted, "extracted": 0, **target}
    power = power or {"status": "shown", "control_rejected_by": ["gating"],
                      "untrained_rejected_by": []}  # fmt: skip
    subject |= {"rejected_by": rejected, "lower_bound": {}} | more.pop("subject", {})
    claim = {"epsilon": 8.0, "recomputed_epsilon": 8.0} | more
    evidence = {"subjects": {"target": subject}, "power": power, "claim": claim}
    return Attack(evidence, Path("e.json"))


def test_a_model_without_scores_is_not_said_to_have_withstood():
    assert the_attack().text().splitlines()[1] == "claim    not contradicted by any test"
    assert "CONTRADICTED by gating" in the_attack(rejected=["gating"]).text()
    silent = the_attack(target=UNSCORED)
    assert "claim    not tested: its scores are not finite" in silent.text()
    assert silent.verdict.word == "INCONCLUSIVE"


def test_a_test_that_caught_the_control_has_to_be_made_of_the_model():
    part = {"gating": UNSCORED}
    assert the_attack(subject=part).verdict.word == "INCONCLUSIVE"
    assert "gating caught the control" in the_attack(subject=part).verdict.reason
    assert the_attack(subject={"exposure": UNSCORED}).verdict.word == "PASS"


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "PASS"),
        ({"rejected": ["gating"]}, "FAIL"),
        ({"target": TRIED | {"extracted": 1}}, "FAIL"),
        ({"subject": {"lower_bound": {"exceeds_claim": True}}}, "FAIL"),
        ({"recomputed_epsilon": 8.5}, "FAIL"),
        ({"recomputed_epsilon": "inf"}, "FAIL"),
        ({"recomputed_epsilon": 8.1}, "PASS"),
        ({"inserted": 99}, "INCONCLUSIVE"),
        ({"inserted": 100}, "PASS"),
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
        (["x"], ["y"], "y reject the untrained model too"),
    ],
)
def test_missing_power_has_its_reason(by_control, by_untrained, said):
    power = {"status": "not shown", "control_rejected_by": by_control,
             "untrained_rejected_by": by_untrained}  # fmt: skip
    verdict = the_attack(power=power).verdict
    assert verdict.word == "INCONCLUSIVE"
    assert said in verdict.reason
