"""A bundle that is gone, damaged or for somebody else is made again; nothing before it is."""

import json
import shutil
from datetime import UTC, datetime

import pytest

from dpmlm.artifacts import create_keys
from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.export import open_report
from dpmlm.pipeline.run import execute_run
from dpmlm.privacy import Ledger, make_plan
from dpmlm.release import load_released, verify_bundle

pytestmark = pytest.mark.xdist_group("finished")


@pytest.fixture
def copy(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    return folder


def facts_of(bundle):
    names = ("statement", "decision", "ledger", "evidence", "plan", "training")
    return {name: json.loads((bundle / f"{name}.json").read_text()) for name in names}


def stamps(work):
    """Everything in the workspace but the release and its bundle."""
    return {
        path: path.stat().st_mtime_ns
        for path in work.rglob("*")
        if path.is_file() and path.relative_to(work).parts[0] not in ("release", "bundle")
    }


def change_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "gone": lambda work: shutil.rmtree(work / "bundle"),
    "a page": lambda work: change_a_byte(work / "bundle/report.html"),
    "weights": lambda work: change_a_byte(work / "bundle/model/weights.sealed"),
    "the signature": lambda work: change_a_byte(work / "bundle/manifest.dsse.json"),
    "the auditor's page": lambda work: change_a_byte(work / "release/auditor/report.sealed"),
}


def test_a_choice_made_since_makes_the_release_again(copy):
    """Whoever picks among runs by private text after the bundle was made has no PASS any more."""
    config = load_config(copy / "run.yaml")
    before = facts_of(copy / "work/bundle")
    assert before["decision"]["verdict"] == "PASS"
    run_id = before["ledger"]["run_id"]
    Ledger.open(copy / "ledger.jsonl").choose([run_id], label="private")
    kept = stamps(copy / "work")
    assert execute_run(config).verdict == "FAIL"
    after = facts_of(copy / "work/bundle")
    failed = [rule["id"] for rule in after["decision"]["rules"] if rule["status"] == "fail"]
    assert failed == ["ledger.choices"]
    assert "looked at private text uncharged" in after["statement"]["sentence"]
    assert stamps(copy / "work") == kept


@pytest.mark.parametrize(
    "case",
    [case if case == "weights" else pytest.param(case, marks=pytest.mark.full) for case in DAMAGES],
)
def test_a_damaged_bundle_is_made_again_from_the_same_decision(copy, case):
    work = copy / "work"
    before, kept = facts_of(work / "bundle"), stamps(work)
    DAMAGES[case](work)
    # What the ledger would say by now is another claim than the one that was decided on.
    plan = make_plan(
        epsilon=1, delta=1e-6, units=200, unit="person", expected_batch_size=10, steps=5,
        max_grad_norm=1.0, accountant="rdp", scope="deduplicated corpus",
    )  # fmt: skip
    Ledger.open(copy / "ledger.jsonl").reserve("other", plan)
    ledger = (copy / "ledger.jsonl").read_bytes()
    result = execute_run(load_config(copy / "run.yaml"))
    assert result.verdict == "PASS"
    assert facts_of(result.bundle) == before
    checked = verify_bundle(result.bundle, copy / "keys/trusted", now=datetime.now(UTC))
    assert checked.ok, checked.findings
    open_report(load_config(copy / "run.yaml"), copy / "page.html", identity=None)
    assert stamps(work) == kept
    assert (copy / "ledger.jsonl").read_bytes() == ledger
    assert sorted(path.name for path in work.iterdir() if "bundle" in path.name) == ["bundle"]


def test_other_recipients_are_wrapped_for_without_new_budget(copy):
    create_keys(copy / "others")
    kept, ledger = stamps(copy / "work"), (copy / "ledger.jsonl").read_bytes()
    use = "To find codes in notes, and for nothing else."
    others = [str(copy / "others/consumer.pub")]
    change = {"release.recipients": others, "release.intended_use": use}
    result = execute_run(load_config(copy / "run.yaml", change))
    assert result.verdict == "PASS"
    for name in ("MODEL_CARD.md", "report.html"):
        assert use in (result.bundle / name).read_text()
    trusted = copy / "keys/trusted"
    load_released(result.bundle, identity=copy / "others/consumer.key", trusted_keys=trusted)
    with pytest.raises(UserError):
        load_released(result.bundle, identity=copy / "keys/consumer.key", trusted_keys=trusted)
    assert stamps(copy / "work") == kept
    assert (copy / "ledger.jsonl").read_bytes() == ledger


def test_another_policy_is_another_decision(copy):
    before = facts_of(copy / "work/bundle")["decision"]
    partner = {"release.policy": "partner"}
    result = execute_run(load_config(copy / "run.yaml", partner))
    after = facts_of(result.bundle)["decision"]
    assert result.verdict == after["verdict"] != "PASS"
    assert after["policy_digest"] != before["policy_digest"]
    with pytest.raises(UserError):
        load_released(
            result.bundle, identity=copy / "keys/consumer.key", trusted_keys=copy / "keys/trusted"
        )


def test_the_old_bundle_stays_until_the_new_one_is_whole(copy, monkeypatch):
    from dpmlm.pipeline import outcome

    before = facts_of(copy / "work/bundle")

    def killed(*arguments, **names):
        raise KeyboardInterrupt

    monkeypatch.setattr(outcome, "write_bundle", killed)
    with pytest.raises(KeyboardInterrupt):
        execute_run(load_config(copy / "run.yaml", {"release.policy": "partner"}))
    assert facts_of(copy / "work/bundle") == before
    monkeypatch.undo()
    result = execute_run(load_config(copy / "run.yaml", {"release.policy": "partner"}))
    assert facts_of(result.bundle)["decision"]["policy"].startswith("partner")


def test_other_recipients_do_not_excuse_other_text(copy):
    create_keys(copy / "others")
    with (copy / "private.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "text": "one more", "author": "x"}) + "\n")
    change = {"release.recipients": [str(copy / "others/consumer.pub")]}
    with pytest.raises(UserError, match="stage corpus"):
        execute_run(load_config(copy / "run.yaml", change))
