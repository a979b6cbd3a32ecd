"""Attempts at a run in forked processes, each killed where it is told.

Imports and models of scrubbing take seconds and many attempts less than one, so this program loads
them once and forks for each line of its standard input: a JSON object with `run` (the run file),
`drawn` (a file outside the workspace that gets a line before every private draw) and at most one
moment to die or stop at:

    cpu      after so many seconds of processor time, wherever that is
    write    half-way in the first file whose temporary path holds this text
    noise    at this step, after its charge and its draw, before its noise
    commit   when the ledger is asked to commit
    sigterm  SIGTERM to itself when this step is drawn

With `command` the command line runs instead of `execute_run`. The answer is one line: the exit
status, negative for a signal.
"""

import json
import os
import signal
import sys
import threading
import time

import dpmlm.artifacts.atomic as atomic
import dpmlm.training.optimizer as optimizer
from dpmlm.cli.main import main
from dpmlm.config import load_config
from dpmlm.pipeline.run import execute_run
from dpmlm.privacy import Ledger, PoissonSampler
from dpmlm.scrub import Scrubber, load_policy
from dpmlm.training.charges import LedgerCharges, PublicText


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def note_draws(path: str, sigterm: int | None) -> None:
    """A durable line "attempt step" before each draw that is charged; the control has none."""
    begin, draw = LedgerCharges.begin, PoissonSampler.draw
    current = {"attempt": 0}
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def begun(charges, from_step, from_attempt):
        current["attempt"] = begin(charges, from_step, from_attempt)
        return current["attempt"]

    def public(charges, from_step, from_attempt):
        current["attempt"] = 0
        return 1

    def drawn(sampler, step):
        if current["attempt"]:
            os.write(handle, f"{current['attempt']} {step}\n".encode())
            os.fsync(handle)
            if step == sigterm:
                os.kill(os.getpid(), signal.SIGTERM)
        return draw(sampler, step)

    LedgerCharges.begin, PublicText.begin, PoissonSampler.draw = begun, public, drawn


def die_after(seconds: float) -> None:
    def watch():
        while time.process_time() < seconds:
            time.sleep(0.001)
        die()

    threading.Thread(target=watch, daemon=True).start()


class HalfWritten:
    """A file whose first write takes half of the bytes, brings them to the disk, and dies."""

    def __init__(self, file):
        self._file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        self._file.write(bytes(data)[: len(data) // 2])
        self._file.flush()
        os.fsync(self._file.fileno())
        die()


class WatchedOs:
    """`os` as `atomic_write` sees it."""

    def __init__(self, part: str):
        self._part, self._watched = part, -1

    def __getattr__(self, name):
        return getattr(os, name)

    def open(self, path, *arguments):
        handle = os.open(path, *arguments)
        if self._part in str(path):
            self._watched = handle
        return handle

    def fdopen(self, handle, *arguments):
        file = os.fdopen(handle, *arguments)
        return HalfWritten(file) if handle == self._watched else file


def arrange(request: dict) -> None:
    note_draws(request["drawn"], request.get("sigterm"))
    if "cpu" in request:
        die_after(request["cpu"])
    if "write" in request:
        atomic.os = WatchedOs(request["write"])
    if "commit" in request:
        Ledger.commit = lambda *arguments: die()
    if "noise" in request:
        noise = optimizer.gaussian_noise

        def watched(*arguments, step, **names):
            if step == request["noise"]:
                die()
            return noise(*arguments, step=step, **names)

        optimizer.gaussian_noise = watched


def attempt(request: dict) -> None:
    arrange(request)
    if "command" in request:
        main(request["command"])
    result = execute_run(load_config(request["run"]))
    assert result.verdict in ("PASS", "FAIL", "INCONCLUSIVE")


def serve() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)
            status = 1
            try:
                attempt(json.loads(line))
                status = 0
            except SystemExit as left:
                status = int(left.code or 0)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    Scrubber(load_policy("default")).scrub("")  # children find the models loaded
    print("ready", flush=True)
    serve()
