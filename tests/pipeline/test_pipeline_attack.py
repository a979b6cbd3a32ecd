"""What `dpmlm audit` prints where a model could not be scored."""

from pathlib import Path

import pytest

from audits.attack import Attack

UNSCORED = {"applicable": False, "reason": "its scores are not finite"}
TRIED = {"applicable": True, "p_value": 1.0}


def printed(*, target=TRIED, rejected=(), power=None):
    subject = dict.fromkeys(("gating", "exposure", "canary_extraction"), target)
    power = power or {"status": "shown", "control_rejected_by": ["x"], "untrained_rejected_by": []}
    evidence = {"subjects": {"target": {**subject, "rejected_by": rejected}}, "power": power}
    return Attack(evidence, Path("e.json")).text().splitlines()


def test_a_model_without_scores_is_not_said_to_have_withstood():
    assert printed()[1] == "claim    not contradicted by any test"
    assert printed(rejected=["gating"])[1] == "claim    CONTRADICTED by gating"
    assert printed(target=UNSCORED)[1] == "claim    not tested: its scores are not finite"


def test_the_verdict_is_a_pass_with_power_alone():
    silent = {"status": "not shown", "control_rejected_by": None, "untrained_rejected_by": []}
    assert printed()[0] == "verdict  PASS"
    assert printed(power=silent)[0] == "verdict  INCONCLUSIVE"
    assert printed(rejected=["gating"])[0] == "verdict  FAIL"
    assert printed(target=TRIED | {"extracted": 1, "n": 50})[0] == "verdict  FAIL"
    assert printed(target=TRIED | {"extracted": 0, "n": 50})[0] == "verdict  PASS"


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
    assert said in printed(power=power)[3]
