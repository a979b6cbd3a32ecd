"""`dpmlm audit recheck`: what others make of evidence."""

import copy
import json

import pytest

import audits
from dpmlm.cli.main import status_of
from dpmlm.errors import UserError
from dpmlm.pipeline.attack import recheck


@pytest.fixture(scope="module")
def told(untrained, canaries, plan):
    return audits.audit(untrained, plan=plan, canaries=canaries)


def test_evidence_is_computed_again_and_lies_are_found(told, plan, tmp_path):
    claim, file = tmp_path / "plan.json", tmp_path / "evidence.json"
    claim.write_text(json.dumps(plan))

    def rechecked(evidence):
        file.write_text(json.dumps(evidence))
        return recheck(file, claim)

    found = rechecked(told)
    assert (found.findings, found.verdict.word) == ((), "INCONCLUSIVE")
    assert "every figure follows from the counts" in found.text()
    lie = copy.deepcopy(told)
    lie["subjects"]["target"]["gating"]["correct"] -= 3
    assert any(where.startswith("subjects.target.gating") for where, _ in rechecked(lie).findings)
    assert "contradicts itself" in rechecked(lie).text()
    claim.write_text(json.dumps(plan | {"steps": plan["steps"] + 1}))
    assert rechecked(told).findings[0][0] == "claim.plan_digest"
    for other in ({}, {"schema": "dpmlm.plan/1"}, [told]):
        with pytest.raises(UserError, match="no evidence"):
            rechecked(other)


def test_the_command_prints_one_object_and_says_no(told, plan, tmp_path, capsys):
    claim, file = tmp_path / "plan.json", tmp_path / "evidence.json"
    claim.write_text(json.dumps(plan))
    file.write_text(json.dumps(told))
    asked = ["audit", "recheck", str(file), "--plan", str(claim)]
    assert status_of([*asked, "--json"]) == 1  # INCONCLUSIVE
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"schema", "findings", "verdict", "reason"}
    assert (shown["schema"], shown["findings"]) == ("dpmlm.recheck/1", [])
    file.write_text("{")
    assert status_of(asked) == 2
    assert "no JSON" in capsys.readouterr().err
