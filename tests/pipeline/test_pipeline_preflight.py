"""What can be known before the first stage is refused there, and nothing is written or charged."""

import json
import os

import pytest
from small_run import WORDS, write_run_file

from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.preflight import preflight
from dpmlm.pipeline.preview import preview
from dpmlm.pipeline.run import execute_run
from dpmlm.pipeline.workspace import Workspace
from dpmlm.tokens import train_tokenizer
from dpmlm.training import new_model


@pytest.fixture
def quick(small):
    """The small run with the accountant that calibrates fastest."""
    write_run_file(small, privacy__accountant="rdp")
    (small / "garbage.json").write_text("{]")
    (small / "other.jsonl").write_text('{"body": "no text here"}\n')
    (small / "blank.jsonl").write_text('{"text": " "}\n')
    (small / "broken.jsonl").write_bytes(b"\xff\xfe\n")
    (small / "unread.jsonl").write_text('{"text": "a note", "spans": null}\n')
    (small / "rows.jsonl").write_text(json.dumps({"id": "1", "text": "a", "name": "b"}) + "\n")
    other = train_tokenizer([" ".join(WORDS[:12])], vocab_size=300)
    new_model("tiny", other, 48, seed=0).save_pretrained(small / "reference")
    other.save_pretrained(small / "reference")
    ours = train_tokenizer([" ".join(WORDS)], vocab_size=400, unused=200)
    ours.save_pretrained(small / "ours")
    (small / "few").mkdir()
    train_tokenizer([" ".join(WORDS)], vocab_size=150).save_pretrained(small / "few")
    return small


CASES = {
    "telemetry in the workspace": ({"telemetry.file": "work/events.jsonl"}, "telemetry.file"),
    "a textfile in the workspace": (
        {"telemetry.prometheus.textfile": "work/new/run.prom"},
        "telemetry.prometheus.textfile",
    ),
    "TensorBoard in the workspace": ({"telemetry.tensorboard": "work"}, "telemetry.tensorboard"),
    "an address that is not here": (
        {"telemetry.prometheus.port": 9100, "telemetry.prometheus.address": "192.0.2.1"},
        "telemetry.prometheus 192.0.2.1 port 9100",
    ),
    "MLflow without TLS": (
        {"telemetry.mlflow.uri": "http://192.0.2.1:5000"},
        "telemetry.mlflow.uri",
    ),
    "telemetry over another file": ({"telemetry.file": "broken.jsonl"}, "telemetry file"),
    "no reference": ({"audit.reference": "nope"}, "audit.reference"),
    "a reference of another vocabulary": (
        {"audit.reference": "reference", "tokens.train": None, "tokens.vocabulary": "ours"},
        "audit.reference",
    ),
    "one canary": ({"audit.canaries": 1}, "audit.canaries 1"),
    "too short rows": ({"tokens.window": 12}, "14 in all"),
    "too few slots": ({"tokens.window": 16, "masking.strategy": "token"}, "masked slots"),
    "too few tokens for canaries": (
        {"tokens.train": None, "tokens.vocabulary": "few"},
        "canary",
    ),
    "no vocabulary": ({"tokens.train": None, "tokens.vocabulary": "nope.txt"}, "nope.txt"),
    "a vocabulary that is none": (
        {"tokens.train": None, "tokens.vocabulary": "garbage.json"},
        "garbage.json",
    ),
    "control without the field": ({"audit.control.corpus": "other.jsonl"}, "other.jsonl"),
    "control with another field": ({"audit.control.text": "body"}, "body"),
    "control that is no text": ({"audit.control.corpus": "broken.jsonl"}, "broken.jsonl"),
    "control of blanks": ({"audit.control.corpus": "blank.jsonl"}, "blank.jsonl"),
    "vocabulary's text without the field": ({"tokens.train.text": "body"}, "body"),
    "no gold": ({"scrub.gold": "nope.jsonl"}, "check scrub.gold"),
    "gold that nobody has read": ({"scrub.gold": "unread.jsonl"}, "unread.jsonl, line 1"),
    "gold that is no gold": ({"scrub.gold": "private.jsonl"}, "private.jsonl, line 1"),
    "corpus without the person": ({"corpus.path": "rows.jsonl"}, "author"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_before_any_stage(quick, monkeypatch, case):
    change, named = CASES[case]
    monkeypatch.chdir(quick)
    ledger = (quick / "ledger.jsonl").read_bytes()
    with pytest.raises(UserError) as caught:
        execute_run(load_config(quick / "run.yaml", change))
    assert named in str(caught.value)
    assert not (quick / "work").exists()
    assert (quick / "ledger.jsonl").read_bytes() == ledger


def test_no_canaries_need_no_slots(quick):
    from dpmlm.pipeline.context import Run
    from dpmlm.pipeline.progress import Progress

    change = {"audit.canaries": 0, "tokens.window": 16}
    preflight(Run.load(load_config(quick / "run.yaml", change), Progress(quiet=True)))


def test_calibration_is_announced_on_standard_error(quick, capsys):
    preview(load_config(quick / "run.yaml"))
    shown = capsys.readouterr()
    assert "calibrating" in shown.err
    assert shown.out == ""
    with pytest.raises(UserError):
        execute_run(load_config(quick / "run.yaml", {"privacy.epsilon": 40}))
    assert "calibrating" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_a_folder_that_cannot_be_written_is_no_other_process(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "w", type(tmp_path)("/proc/w")):
        with pytest.raises(UserError, match="cannot be written"), Workspace(path).locked():
            pytest.fail("it was locked")


def test_a_second_process_is_kept_out(tmp_path):
    with (
        Workspace(tmp_path / "w").locked(),
        pytest.raises(UserError, match="another process"),
        Workspace(tmp_path / "w").locked(),
    ):
        pytest.fail("it was locked twice")


def test_an_error_of_the_work_is_not_the_locks(tmp_path):
    with pytest.raises(OSError, match="mine"), Workspace(tmp_path / "w").locked():
        raise OSError("mine")
