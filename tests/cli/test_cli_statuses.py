"""Exit statuses: what the process leaves with, whatever happened."""

import errno
import json
import os
import signal
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

import dpmlm.training.memory  # noqa: F401 - as it is wherever a tensor was made
from dpmlm.cli import main
from dpmlm.errors import IntegrityError, UserError, VerdictNo


def ending(monkeypatch, outcome, capsys, *options):
    """Status, standard error and output of `dpmlm keys new x` when its work ends in `outcome`."""

    def work(*given, **named):
        raise outcome

    monkeypatch.setattr("dpmlm.artifacts.keys.create_keys", work)
    status = main.status_of(["keys", "new", "x", *options])
    said = capsys.readouterr()
    return status, said.err, said.out


OUTCOMES = pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (VerdictNo("no"), 1, "no\n"),
        (UserError("a", "b", "c"), 2, "error: a: b; c\n"),
        (IntegrityError("a", "b", "c"), 2, "error: a: b; c\n"),
        (OSError(errno.ENOSPC, "full", "x"), 2, "free space"),
        (IsADirectoryError(errno.EISDIR, "dir", "x"), 2, "error: x"),
        (MemoryError(), 2, "error: the memory of this machine: "),
        (torch.OutOfMemoryError("CUDA out of memory. 0.5"), 2, "training.physical_batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "training.memory_gib"),
        (RuntimeError("odd"), 70, "\nRuntimeError\n"),
        (KeyboardInterrupt(), 130, "run the same command to resume"),
        (main.Terminated(), 143, "run the same command to resume"),
        (SystemExit(143), 143, ""),
        (ValueError("odd"), 70, "\nValueError\n"),
        (OSError("without a number"), 70, "Traceback"),
    ],
)


@OUTCOMES
def test_every_outcome_has_its_status(monkeypatch, capsys, outcome, status, said):
    found, err, out = ending(monkeypatch, outcome, capsys)
    assert found == status
    assert out == ""
    assert said in err
    assert ("Traceback" in err) is (status == 70)


def test_a_bug_shows_where_it_is_and_not_what_the_exceptions_quote(monkeypatch, capsys):
    """They may hold private text; whoever may see that asks for it."""

    person = "Jane Roe"

    def work(*given, **named):
        try:
            int(person)
        except ValueError:
            raise RuntimeError(f"about {person}") from KeyError(person)

    monkeypatch.setattr("dpmlm.artifacts.keys.create_keys", work)
    assert main.status_of(["keys", "new", "x"]) == 70
    said = capsys.readouterr().err
    assert "Roe" not in said
    assert said.index("KeyError\n") < said.index("\nRuntimeError\n")
    assert "in work\n" in said
    assert "DPMLM_SHOW_EXCEPTIONS=1" in said
    monkeypatch.setenv("DPMLM_SHOW_EXCEPTIONS", "1")
    assert main.status_of(["keys", "new", "x"]) == 70
    assert "RuntimeError: about Jane Roe" in capsys.readouterr().err


@OUTCOMES
def test_with_json_every_outcome_is_one_object_on_standard_output(
    monkeypatch, capsys, outcome, status, said
):
    found, err, out = ending(monkeypatch, outcome, capsys, "--json")
    assert found == status
    assert said in err
    assert out.count("\n") == 1
    shown = json.loads(out)
    assert shown.pop("schema") == "dpmlm.error/1"
    assert shown.pop("status") == status
    assert set(shown) == {"given", "rule", "next_step"}
    assert all(isinstance(text, str) and text for text in shown.values())
    if status == 2 and said.startswith("error: a"):
        assert shown == {"given": "a", "rule": "b", "next_step": "c"}
    if status == 70:
        assert shown["given"] == type(outcome).__name__
        assert str(outcome) not in out


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["verify", "none", "--trusted-keys", "none", "--json"], 2),
        (["plan", "--json"], 2),
        (["plan", "--json", "--bogus"], 2),
        (["keys", "new", "--json", "a", "b"], 2),
        (["plan", "none.yaml", "--json", "--set", "a"], 2),
        (["ledger", "register", "x", "--epsilon", "many", "--delta", "1e-5", "--json"], 2),
        (["plan", "\udcff\ud800.yaml", "--json"], 2),
    ],
)
def test_bad_usage_with_json_is_an_object_too(capsys, tmp_path, monkeypatch, words, status):
    monkeypatch.chdir(tmp_path)
    assert main.status_of(words) == status
    shown = capsys.readouterr()
    assert json.loads(shown.out)["status"] == status
    assert shown.err.startswith("error: ")


def test_json_behind_two_dashes_is_a_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.status_of(["plan", "--", "--json"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_process_becomes_its_status(signum, status):
    code = (
        "import dpmlm.artifacts.keys, time\n"
        "def work(*given, **named): print('ready', flush=True); time.sleep(60)\n"
        "dpmlm.artifacts.keys.create_keys = work\n"
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


def test_the_version_names_what_results_depend_on(capsys):
    assert main.status_of(["--version"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"dpmlm {version('dpmlm-framework')} (")
    for name in ("torch", "opacus", "transformers"):
        assert f"{name} {version(name)}" in shown


def test_the_version_is_told_where_a_library_is_missing(capsys, monkeypatch):
    def of(name):
        if name == "opacus":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(main, "version", of)
    assert main.status_of(["--version"]) == 0
    assert "opacus not installed" in capsys.readouterr().out


def test_nothing_is_collected_on_the_way_out():
    code = (
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_freeze_count(), len(gc.get_objects())))\n"
        "from dpmlm.cli.main import main; main(['--version'])\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    frozen, left = map(int, done.stdout.splitlines()[-1].split())
    assert frozen > 10_000 > left


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
