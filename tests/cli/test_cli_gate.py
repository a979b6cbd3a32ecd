"""`dpmlm gate waive`: from a run that fails to a release that says who waived what."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
import yaml

pytestmark = pytest.mark.xdist_group("finished")
WAIVE = ("gate", "waive", "run.yaml", "--reason", "Reviewed.", "--out", "w.json")
KEY = ("--signing-key", "approver/approver.key")
VERIFY = ("verify", "work/bundle", "--trusted-keys", "keys/trusted")


def test_a_waiver_takes_a_failed_run_to_a_pass_that_names_it(copy, call):
    day = (datetime.now(UTC) + timedelta(days=9)).date().isoformat()
    until, rule = ("--expires", day), ("--rule", "dp.epsilon")
    assert call("keys", "new", "approver", "--role", "approver").status == 0
    tight = (copy / "few-canaries.yaml").read_text().replace("max: 8.0", "max: 0.5")
    (copy / "tight.yaml").write_text(tight)
    told = yaml.safe_load((copy / "run.yaml").read_text())
    told["release"] |= {"policy": "tight.yaml", "approvers": ["approver/approver.pub"]}
    (copy / "run.yaml").write_text(yaml.safe_dump(told))
    refused = [
        ((*rule, *until, "--signing-key", "keys/sign.key"), "none of the keys of release.appr"),
        ((*rule, *KEY, "--expires", "1999-01-01"), "that is over"),
        (("--rule", "dp.delta", *until, *KEY), "this one is: pass"),
        (("--rule", "dp.epsilom", *until, *KEY), "did you mean dp.epsilon"),
    ]
    for words, says in refused:
        called = call(*WAIVE, *words)
        assert called.status == 2
        assert says in called.err
        assert not (copy / "w.json").exists()
    written = call(*WAIVE, *rule, *until, *KEY, "--json")
    assert written.status == 0, written.err
    assert json.loads(written.out)["written"] == ["w.json"]
    assert "never written over" in call(*WAIVE, *rule, *until, *KEY).err
    told["release"]["waivers"] = ["w.json"]
    (copy / "run.yaml").write_text(yaml.safe_dump(told))
    assert call("run", "run.yaml").status == 0
    judged = call("gate", "run.yaml")
    assert judged.status == 0
    assert f"Waived until {day}T23:59:59+00:00" in judged.out
    unknown = call(*VERIFY)
    assert unknown.status == 1
    assert "no key is trusted" in unknown.out
    (copy / "keys/trusted/approver").mkdir()
    shutil.copy(copy / "approver/approver.pub", copy / "keys/trusted/approver")
    known = call(*VERIFY)
    assert known.status == 0, known.out
    assert "WARNING: rule dp.epsilon does not hold. Waived until" in known.out
    # Another policy is tried without it, and the run's own key is no approver's.
    assert call("gate", "run.yaml", "--policy", "tight.yaml").status == 1
    shutil.copy(copy / "keys/sign.pub", copy / "approver/approver.pub")
    assert call("gate", "run.yaml").status == 2
