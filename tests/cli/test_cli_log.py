"""`dpmlm log`, and a run that enters its release: the log's verbs on a finished run."""

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dpmlm.artifacts import load_signing_key
from dpmlm.artifacts.notes import Checkpoint
from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.logged import check_run_log, enter_finished
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_run
from dpmlm.release import Outside, verify_bundle
from dpmlm.release.log.appending import append
from dpmlm.release.log.reading import read_log

DOCS = (Path(__file__).parents[2] / "docs/log.md").read_text()
TRUSTED = ("--trusted-keys", "keys/trusted")
SIGNED = ("--signing-key", "keys/sign.key", *TRUSTED)
pytestmark = pytest.mark.xdist_group("finished")


def documented(schema: str) -> set[str]:
    body = DOCS[DOCS.index(f"`{schema}`:") :].split("\n\n")[1]
    return set(re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE))


CALLS = [
    ("dpmlm.log/1", "log", "show", "releases.log", "--head", "noted"),
    ("dpmlm.log-head/1", "log", "head", "releases.log"),
    ("dpmlm.log-entered/1", "log", "append", "releases.log", "work/bundle", *SIGNED),
    ("dpmlm.log-check/1", "log", "verify", "releases.log", *TRUSTED, "--head", "noted"),
]


def test_the_verbs_of_a_log_print_their_documented_schemas_and_read_well(copy, call):
    noted = call("log", "head", "releases.log")
    assert noted.out.encode() == Path("releases.log.head").read_bytes()
    Path("noted").write_text(noted.out)
    said = {}
    for schema, *words in CALLS:
        shown = call(*words, "--json")
        assert shown.status == 0, shown.err
        value = json.loads(shown.out)
        assert value.pop("schema") == schema
        assert set(value) == documented(schema)
        if words[1] != "append":  # as it verifies the whole bundle
            said[words[1]] = call(*words).out
        else:
            assert (value["index"], value["size"], value["added"]) == (0, 1, False)
    assert "entry 1: " in said["show"]
    assert "it goes on from the noted head" in said["show"]
    assert "it goes on from one noted head" in said["verify"]
    assert "held against no head" in call("log", "verify", "releases.log", *TRUSTED).out
    proof = json.loads(Path("work/bundle/attestations/log.json").read_text())
    assert proof.pop("schema") == "dpmlm.log-proof/1"
    assert set(proof) == documented("dpmlm.log-proof/1")
    out = call("log", "prove", "releases.log", "work/bundle", "--out", "proof.json")
    assert out.out == "wrote proof.json\n"
    beside = ("--log", "releases.log", "--head", "noted", "--proof", "proof.json")
    verified = call("verify", "work/bundle", *TRUSTED, *beside, "--ledger", "ledger.jsonl")
    assert verified.status == 0, verified.out
    assert "note: it is entry 1 of 1 of log dpmlm-log/" in verified.out
    assert "note: its charges are lines of ledger ledger.jsonl" in verified.out


def test_a_broken_log_is_status_1_and_a_missing_one_status_2(copy, call, refused):
    Path("noted").write_bytes(Path("releases.log.head").read_bytes())
    whole = Path("releases.log").read_bytes()
    Path("releases.log").write_bytes(b"")
    called = call("log", "verify", "releases.log", *TRUSTED)
    assert called.status == 1
    assert called.out.startswith("NOT INTACT")
    shown = call("log", "verify", "releases.log", *TRUSTED, "--json")
    assert json.loads(shown.out)["intact"] is False
    assert "its head was signed over 1" in refused("log", "show", "releases.log")
    assert "its head was signed over 1" in refused(
        "log", "append", "releases.log", "work/bundle", *SIGNED
    )
    Path("releases.log").write_bytes(whole)
    assert "no such log" in refused("log", "show", "none")
    assert "no such log" in refused("log", "verify", "none", *TRUSTED)
    assert "no such file" in refused("log", "verify", "releases.log", *TRUSTED, "--head", "none")
    assert "no such folder" in refused("log", "prove", "releases.log", "none", "--out", "proof")


def test_a_log_that_does_not_go_on_from_a_noted_head_is_status_1(copy, call):
    Path("noted").write_bytes(Path("releases.log.head").read_bytes())
    Path("releases.log").unlink()
    Path("releases.log.head").unlink()
    entered = call("log", "append", "releases.log", "work/bundle", *SIGNED)
    assert "entered as entry 1 of 1; copy the head elsewhere" in entered.out
    called = call("log", "show", "releases.log", "--head", "noted")
    assert called.status == 1
    assert "another log stands in its place" in called.out
    called = call("log", "verify", "releases.log", *TRUSTED, "--head", "noted")
    assert called.status == 1
    assert "another log stands in its place" in called.out


@pytest.mark.full
def test_a_bundle_made_again_supersedes_the_one_before(copy):
    shutil.copytree("work/bundle", "old")
    (Path("work/bundle") / "report.html").unlink()
    result = execute_run(load_config("run.yaml"))
    now, log = datetime.now(UTC), Path("releases.log")
    beside = Outside(log=log, head=None, ledger=Path("ledger.jsonl"))
    checked = verify_bundle(result.bundle, Path("keys/trusted"), now=now, outside=beside)
    assert checked.ok, checked.findings
    assert len(log.read_text().splitlines()) == 2
    older = verify_bundle(Path("old"), Path("keys/trusted"), now=now, outside=beside)
    (finding,) = older.findings
    assert "entry 2 of" in finding.what
    assert "superseded it" in finding.what


BROKEN = {
    "changed": lambda log: log.write_bytes(log.read_bytes().replace(b"PASS", b"FAIL")),
    "headless": lambda log: log.with_name("releases.log.head").unlink(),
    "no log": lambda log: (log.write_text("notes\n"), log.with_name(f"{log.name}.head").unlink()),
}


@pytest.mark.parametrize("case", [*BROKEN, "another key's", "in the workspace", "a folder"])
def test_a_run_whose_log_is_broken_is_refused_before_it_starts(copy, case):
    settings = {}
    if case in BROKEN:
        BROKEN[case](Path("releases.log"))
    elif case == "another key's":
        from dpmlm.artifacts.keys import create_keys

        create_keys(Path("others"))
        settings = {"keys.signing": "others/sign.key"}
    else:
        settings = {"release.log": "work/r.log" if case == "in the workspace" else "keys"}
    run = Run.load(load_config("run.yaml", settings), Progress(quiet=True))
    before = Path("releases.log").read_bytes()
    with pytest.raises(UserError, match="log") as refused:
        check_run_log(run)
    assert refused.value.next_step
    assert Path("releases.log").read_bytes() == before
    if case == "changed":  # and that is what a run does first
        with pytest.raises(UserError, match="not those that its head"):
            execute_run(load_config("run.yaml", {"workspace": "fresh"}))
        assert not Path("fresh").exists()


@pytest.mark.parametrize("case", ["missing", "put back", "another"])
def test_a_run_signs_no_second_head_beside_the_one_in_its_bundle(copy, call, case):
    """With the disk and no key: the log taken away, or an older one put back."""
    for file in ("releases.log", "releases.log.head"):
        Path(file).unlink()
    if case != "missing":
        key = load_signing_key(Path("keys/sign.key"))
        entry = json.loads(Path("work/bundle/attestations/log.json").read_text())["entry"]
        trusted = {key.key_id: key.verify_key}
        log, _, _ = append(Path("releases.log"), entry | {"created": "2026"}, key, trusted)
        if case == "put back":
            origin = json.loads(Path("work/bundle/attestations/log.json").read_text())
            origin = origin["checkpoint"].partition("\n")[0]
            head = Checkpoint(origin, 1, log.checkpoint.root).sign([key])
            Path("releases.log.head").write_bytes(head)
    sentence = {
        "missing": "it is missing, though it had 1 entry",
        "put back": "the view is split",
        "another": "another log stands in its place",
    }[case]
    before = sorted(path.name for path in Path().iterdir())
    # Another setting of the release would have it made again, and entered again.
    config = load_config("run.yaml", {"release.intended_use": "other notes"})
    with pytest.raises(UserError, match=sentence) as refused:
        execute_run(config)
    assert "restore the log" in refused.value.next_step
    assert sorted(path.name for path in Path().iterdir()) == before
    # The log may change between the run's start and its release.
    with pytest.raises(UserError, match=sentence):
        check_run_log(Run.load(config, Progress(quiet=True)))
    Path("work/bundle").rename("bundle.before")
    check_run_log(Run.load(config, Progress(quiet=True)))  # another log, begun on purpose


def test_a_release_that_its_log_does_not_hold_is_entered_by_the_next_run(copy, call, capsys):
    config = load_config("run.yaml", {"release.log": "later.log"})
    proof = Path("work/bundle/attestations/log.json")
    run = Run.load(config, Progress())
    proof.unlink()  # as of a bundle that was made without a log
    enter_finished(run)
    assert "did not hold this bundle, so it was entered, as entry 1" in capsys.readouterr().err
    (entry,) = read_log(Path("later.log"), None).entries
    assert entry == read_log(Path("releases.log"), None).entries[0]
    enter_finished(run)
    assert capsys.readouterr().err == ""
    assert len(read_log(Path("later.log"), None).entries) == 1


@pytest.mark.full
def test_a_log_that_is_named_after_the_release_gets_it_from_the_run_itself(copy, capsys):
    use = {"release.intended_use": "other notes"}
    execute_run(load_config("run.yaml", use | {"release.log": None}))
    assert len(read_log(Path("releases.log"), None).entries) == 1
    for said in (1, 0):
        capsys.readouterr()
        execute_run(load_config("run.yaml", use))
        assert capsys.readouterr().err.count("it was entered, as entry 2") == said
    now, beside = datetime.now(UTC), Outside(log=Path("releases.log"))
    checked = verify_bundle(Path("work/bundle"), Path("keys/trusted"), now=now, outside=beside)
    assert checked.ok, checked.findings
