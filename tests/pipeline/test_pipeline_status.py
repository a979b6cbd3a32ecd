"""The file that says how a run ended."""

import json
import stat

import pytest

from dpmlm.cli.main import Terminated
from dpmlm.errors import UserError
from dpmlm.pipeline.status import status_file, tell_refused, telling_status
from dpmlm.training import Interrupted


def told(folder):
    return json.loads(status_file(folder / "work").read_text())


def fails(folder, error):
    """A run that leaves two checkpoints and ends so."""
    with telling_status(folder / "work", "small"):
        assert told(folder) == {
            "schema": "dpmlm.status/1",
            "run": "small",
            "state": "running",
            "status": None,
            "reason": "",
            "step": None,
        }
        (folder / "work/training/checkpoints/step-00000012").mkdir(parents=True)
        (folder / "work/training/checkpoints/step-00000009").mkdir()
        raise error


@pytest.mark.parametrize(
    ("error", "state", "status", "reason"),
    [
        (UserError("a", "b", "c"), "refused", 2, "a: b; c"),
        (Interrupted(15), "stopped", 143, "a signal"),
        (Interrupted(2), "stopped", 130, "a signal"),
        (Terminated(), "stopped", 143, "a signal"),
        (KeyboardInterrupt(), "stopped", 130, "a signal"),
        (OSError(28, "No space left on device", "x"), "refused", 2, "OSError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "refused", 2, "RuntimeError"),
        (RuntimeError("somebody's text"), "failed", 70, "RuntimeError"),
        (ValueError("somebody's text"), "failed", 70, "ValueError"),
    ],
)
def test_it_says_what_came(tmp_path, error, state, status, reason):
    with pytest.raises(type(error)):
        fails(tmp_path, error)
    found = told(tmp_path)
    assert (found["state"], found["status"], found["reason"]) == (state, status, reason)
    assert found["step"] == 12
    assert stat.S_ISREG(status_file(tmp_path / "work").stat().st_mode)


@pytest.mark.parametrize(
    ("verdict", "status"), [(None, 0), ("PASS", 0), ("FAIL", 1), ("INCONCLUSIVE", 1)]
)
def test_a_verdict_is_no_failure(tmp_path, verdict, status):
    with telling_status(tmp_path / "work", "small") as ending:
        ending.verdict = verdict
    assert (told(tmp_path)["state"], told(tmp_path)["status"]) == ("done", status)


def test_a_refusal_before_the_run_is_told_where_nothing_was(tmp_path):
    tell_refused(tmp_path / "new/work", "small", UserError("a", "b", "c"))
    found = told(tmp_path / "new")
    assert (found["state"], found["status"], found["reason"]) == ("refused", 2, "a: b; c")
    assert found["step"] is None
    tell_refused(tmp_path / "new/work", "small", UserError("later", "b", "c"))
    assert told(tmp_path / "new") == found  # of whoever holds the workspace


@pytest.mark.parametrize(("ranks", "there"), [(2, True), (1, False)])
def test_a_run_of_several_ranks_that_is_refused_at_once_says_so(small, monkeypatch, ranks, there):
    """Under a launcher, whose own status tells a refusal from nothing."""
    from dpmlm.config import load_config
    from dpmlm.pipeline import run

    several = run.Ranks(0, ranks)
    monkeypatch.setattr(several, "same", lambda *told: None)
    monkeypatch.setattr(run.Ranks, "current", lambda: several)
    config = load_config(small / "run.yaml", {"privacy.delta": 0.5})
    with pytest.raises(UserError, match=r"delta 0\.5"):
        run.execute_run(config)
    assert status_file(config.workspace).exists() == there
