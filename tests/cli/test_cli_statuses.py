"""Exit statuses: what the process leaves with, whatever happened."""

import errno
import os
import signal
import subprocess
import sys
import warnings

import pytest

from dpmlm.cli import main
from dpmlm.errors import IntegrityError, UserError, VerdictNo


def ending(monkeypatch, outcome, capsys):
    """Status and standard error of `dpmlm keys new x` when its work ends in `outcome`."""

    def work(folder):
        raise outcome

    monkeypatch.setattr("dpmlm.artifacts.create_keys", work)
    return main.status_of(["keys", "new", "x"]), capsys.readouterr().err


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (VerdictNo("no"), 1, "no\n"),
        (UserError("a", "b", "c"), 2, "error: a: b; c\n"),
        (IntegrityError("a", "b", "c"), 2, "error: a: b; c\n"),
        (OSError(errno.ENOSPC, "full", "x"), 2, "free space"),
        (IsADirectoryError(errno.EISDIR, "dir", "x"), 2, "error: x"),
        (KeyboardInterrupt(), 130, "run the same command to resume"),
        (main.Terminated(), 143, "run the same command to resume"),
        (SystemExit(143), 143, ""),
        (ValueError("odd"), 70, "ValueError: odd"),
        (OSError("without a number"), 70, "Traceback"),
    ],
)
def test_every_outcome_has_its_status(monkeypatch, capsys, outcome, status, said):
    found, err = ending(monkeypatch, outcome, capsys)
    assert found == status
    assert said in err
    assert ("Traceback" in err) is (status == 70)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_process_becomes_its_status(signum, status):
    code = (
        "import dpmlm.artifacts, time\n"
        "def work(folder): print('ready', flush=True); time.sleep(60)\n"
        "dpmlm.artifacts.create_keys = work\n"
        "from dpmlm.cli.main import main; main(['keys', 'new', 'x'])\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A background job inherits an ignored SIGINT, and so would the child.
    pipes["preexec_fn"] = lambda: signal.signal(signum, signal.SIG_DFL)
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "resume" in err
    assert "Traceback" not in err


def test_a_reader_that_went_away_is_no_bug(tmp_path):
    main.status_of(["ledger", "register", f"{tmp_path}/l", "--epsilon", "8", "--delta", "1e-5"])
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "dpmlm.cli.main", "ledger", "verify", f"{tmp_path}/l"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 2
    assert done.stderr == ""


def test_a_warning_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "showwarning", main._warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = main._warn
        warnings.warn("take care", stacklevel=1)
    assert capsys.readouterr().err == "warning: take care\n"
