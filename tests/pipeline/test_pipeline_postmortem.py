"""`dpmlm runs postmortem`: public facts, room for people, and nothing that is private."""

import json
import re
import shutil

import pytest
import yaml

from dpmlm.artifacts import load_identity
from dpmlm.config import load_config
from dpmlm.errors import IntegrityError, UserError
from dpmlm.pipeline.runs.postmortem import cell, sources_told, write_postmortem
from dpmlm.pipeline.runs.shown import private_of
from dpmlm.pipeline.runs.words import flat
from dpmlm.pipeline.tombstones import file_beside
from dpmlm.pipeline.workspace import Workspace, deciding_settings
from dpmlm.privacy import Ledger, PrivacyPlan
from dpmlm.privacy.journal import Journal, create
from dpmlm.release.exports import log_export, log_of

pytestmark = pytest.mark.xdist_group("finished")
HEADINGS = ("Impact", "Detection", "Timeline", "Root cause", "What it cost", "What went well",
            "What went badly", "Actions")  # fmt: skip


@pytest.fixture
def copy(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    return folder


def quarantine_by_hand(path):
    """A person, a source, and the lift of its line, as lines of the file beside a ledger."""
    why = {"reason": "inc-7", "basis": "private", "time": "2026-01-02T03:04:05Z"}
    create(path, "register", {"schema": "dpmlm.tombstones/1", "check": "c"}, None)
    journal = Journal(path, lambda entry: None, None)
    with journal.exclusive():
        journal.append("forget", {"person": "f" * 64, "reason": "request-1", "time": why["time"]})
        journal.append("quarantine", {"source": "a", "file": "b", "rows": [3, 77], **why})
        journal.append("lift", {"of": 3, **why})


def test_it_holds_the_facts_and_room_for_people_and_no_private_figure(copy):
    config = load_config(copy / "run.yaml")
    run_id = Ledger.open(config.ledger.path).run_ids[0]
    Ledger.open(config.ledger.path).choose([run_id], label="private")
    quarantine_by_hand(file_beside(config.ledger.path))
    out = copy / "notes" / "incident.md"
    written = write_postmortem(copy / "run.yaml", out, against=copy / "work")
    page = out.read_text()
    plain = page.replace("\\", "")
    entry = json.loads((copy / "releases.log").read_text().splitlines()[0])
    statement = json.loads((copy / "work/bundle/statement.json").read_text())
    assert all(f"\n## {heading}\n" in page for heading in HEADINGS)
    rows = [
        "| 3 | 2026-01-02T03:04:05Z | a source left out, some rows of it | inc-7 | private |",
        "| 4 | 2026-01-02T03:04:05Z | line 3 lifted | inc-7 | private |",
        "Choices that looked at private text uncharged: 1",
    ]
    versions = statement["versions"]["torch"]
    for fact in (*rows, run_id, entry["release"], entry["created"], entry["model_digest"],
                 "PASS", versions):  # fmt: skip
        assert fact in plain, fact
    assert "request-1" not in page
    assert "77" not in re.findall(r"\b\d+\b", page.split("## What")[0])
    assert written.releases == [entry["release"]]
    assert written.to_fill_in == page.lower().count("*to fill in") >= 8
    # In order of time, the steps counted by hand.
    times = re.findall(
        r"^\| (\d{4}-\S+) \| ", page.split("## Timeline")[1].split("## Root")[0], re.M
    )
    assert times == sorted(times, key=lambda t: t.replace("+00:00", "Z"))
    assert len(times) > 6
    charges = [e for e in Ledger.open(config.ledger.path).entries if e["kind"] == "charge"]
    assert f"| {run_id} | 8 | {len(charges)} |" in plain
    words = re.sub(r"[0-9a-f]{12,}", "", page)  # digests hold any four digits, now and then
    for name, value in private_figures(config):
        assert str(value) not in words, name


def test_a_plan_that_ended_early_is_told_whole(copy):
    """Its last steps are charged in one line, and no line of theirs is a charge of a step."""
    config = load_config(copy / "run.yaml")
    ledger = Ledger.open(config.ledger.path)
    plan = PrivacyPlan.from_json(next(e for e in ledger.entries if e["kind"] == "reserve")["plan"])
    ledger.reserve("early", plan)
    ledger.begin_attempt("early")
    for step in range(3):
        ledger.charge("early", 1, step)
    ledger.forgo("early", 1)
    write_postmortem(copy / "run.yaml", copy / "a.md")
    page = (copy / "a.md").read_text()
    assert plan.steps > 3
    assert f"| early | 8 | {plan.steps} |" in page
    assert f"| run early: ended early, all {plan.steps} steps of its plan charged |" in page
    told = re.findall(r"run early: (.*) \|", page)
    order = ["attempt 1, from", "first step of", "last step of attempt 1, number 3", "ended early"]
    assert [line.startswith(begin) for line, begin in zip(told, order, strict=True)] == [True] * 4


def test_each_kind_of_line_is_told_counted_or_left_out_on_purpose():
    from dpmlm.pipeline.runs.postmortem import _TOLD, UNTOLD
    from dpmlm.privacy.balance import _KINDS

    assert sorted([*_TOLD, *UNTOLD, "charge"]) == sorted(_KINDS)


@pytest.fixture
def next_run(copy):
    """A run of another name on the same ledger, in a folder of its own; begun, and no release."""
    settings = yaml.safe_load((copy / "run.yaml").read_text()) | {"name": "after"}
    settings["ledger"]["path"] = str(copy / "ledger.jsonl")
    settings["release"]["log"] = "its-own.log"
    folder = copy / "after"
    folder.mkdir()
    shutil.copytree(copy / "keys", folder / "keys")
    for name in ("private.jsonl", "public.jsonl", "marked.jsonl", "few-canaries.yaml"):
        shutil.copy(copy / name, folder / name)
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    config = load_config(folder / "run.yaml")
    Workspace(config.workspace).claim(config.name, deciding_settings(config))
    return folder / "run.yaml"


def test_releases_of_the_run_beside_it_are_in_its_impact(copy, next_run):
    entry = json.loads((copy / "releases.log").read_text().splitlines()[0])
    bundle = copy / "work/bundle"
    consumer = load_identity(copy / "keys/consumer.key").key_id
    log_export(
        log_of(bundle), release=entry["release"], manifest="m", opened_by="k" * 8, target="out"
    )
    alone = write_postmortem(next_run, copy / "alone.md")
    assert alone.releases == []
    page = (copy / "alone.md").read_text()
    for absent in (
        "No release of the run's name is known to its log.",
        "no bundle in the workspace",
        "logged beside the workspace",
    ):
        assert absent in page
    write_postmortem(next_run, copy / "twice.md", against=next_run)
    page = (copy / "twice.md").read_text()
    for absent in (
        "No release of the two runs' names is known to their logs.",
        "no bundle in either workspace",
        "logged beside either workspace",
    ):
        assert absent in page
    written = write_postmortem(next_run, copy / "both.md", against=copy / "run.yaml")
    assert written.releases == [entry["release"]]
    plain = (copy / "both.md").read_text().replace("\\", "")
    impact = plain.split("\n## ")[1]
    release, run_id = entry["release"], entry["run_id"]
    for fact in (
        f"| {release} | {run_id} | {entry['created']} | PASS | log, line 1 |",
        f"release {release} (run small), can be opened by these consumers:",
        f"* {consumer} (run small)",
        f"release {release} (run {run_id}), opened by kkkkkkkk",
    ):
        assert fact in impact, fact
    assert f"run {run_id} released, verdict PASS" in plain.split("## Timeline")[1]


def test_a_workspace_beside_it_is_looked_up_in_the_log_of_the_run(copy, next_run):
    text = next_run.read_text().replace("its-own.log", str(copy / "releases.log"))
    next_run.write_text(text)
    entry = json.loads((copy / "releases.log").read_text().splitlines()[0])
    written = write_postmortem(next_run, copy / "a.md", against=copy / "work")
    assert written.releases == [entry["release"]]
    both = write_postmortem(copy / "run.yaml", copy / "b.md", against=copy / "work")
    assert both.releases == [entry["release"]], "once, though both are of it"


def private_figures(config):
    """Counts and figures that are long enough to be told from anything else."""
    found = private_of(config.workspace, load_identity(config.keys.identity))
    told = [(k, v) for k, v in flat(found["evaluation"]) if isinstance(v, float) and v % 1]
    assert len(told) > 10
    return [*told, *((k, v) for k, v in flat(found["tokens"]) if isinstance(v, int) and v > 999)]


def test_settings_that_differ_stand_beside_each_other(copy):
    marker = copy / "work/run.json"
    out = copy / "incident.md"
    shutil.copytree(copy / "work", copy / "other")
    settings = json.loads(marker.read_text())
    from dpmlm.canonical import canonical_json, digest

    settings["settings"]["training"]["steps"] = 81
    settings["digest"] = digest(settings["settings"])
    (copy / "other/run.json").write_bytes(canonical_json(settings))
    write_postmortem(copy / "run.yaml", out, against=copy / "other")
    differ = out.read_text().split("### Settings that differ")[1].split("###")[0]
    assert re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \|", differ, re.M) == [
        ("training.steps", "80", "81")
    ]


def test_it_never_takes_the_place_of_a_file(copy):
    out = copy / "incident.md"
    out.write_text("what somebody wrote")
    with pytest.raises(UserError, match="it is there already"):
        write_postmortem(copy / "run.yaml", out)
    assert out.read_text() == "what somebody wrote"
    link = copy / "link.md"
    link.symlink_to("nowhere.md")
    with pytest.raises(UserError, match="it is there already"):
        write_postmortem(copy / "run.yaml", link)
    for name, why in (("notes.txt", "Markdown"), ("run.yaml/x.md", "cannot be written")):
        with pytest.raises(UserError, match=why):
            write_postmortem(copy / "run.yaml", copy / name)
    with pytest.raises(UserError, match="name the run file"):
        write_postmortem(copy / "work", copy / "a.md")
    assert not list(copy.glob("*.new"))
    assert not list(copy.glob(".*.new"))


def test_a_changed_line_about_a_source_is_refused(copy):
    path = file_beside(load_config(copy / "run.yaml").ledger.path)
    assert sources_told(path) == []
    quarantine_by_hand(path)
    assert [line["number"] for line in sources_told(path)] == [3, 4]
    path.write_text(path.read_text().replace("inc-7", "inc-8", 1))
    with pytest.raises(IntegrityError, match="line 3"):
        write_postmortem(copy / "run.yaml", copy / "incident.md")
    assert not (copy / "incident.md").exists()


def test_a_value_stays_in_its_cell():
    assert "\n" not in cell("a|b\n`c`")
    assert cell("a|b`c`") == "a\\|b\\`c\\`"
    assert cell("<script>") == "\\<script>"
    assert cell(None) == "-"
