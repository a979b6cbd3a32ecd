"""Attempts at one small training in forked processes, each killed where it is told.

Imports once, then forks for each line of standard input: a JSON object with `folder`, which holds
`ledger.jsonl` and `trainer.key`, the `minutes` between checkpoints, and at most one way to end:

    after       seconds of wall time, after which this process sends SIGKILL, or `signal`
    at, step    the attempt kills itself at one of MOMENTS of a step, counted from 0

Ledger, checkpoints, stream, sampler, clipping, optimizer and loop are real. The check of the model
is made once, before the forks. A line goes to `folder`/noted, outside of what is under test, for
every draw, sample, noise tensor and checkpoint: what it was, attempt, step and a hash. The answer
is one line: exit status, negative for a signal, and seconds.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import torch
from small_training import Numbered, a_model, a_plan, a_recipe, documents

import dpmlm.artifacts.atomic as atomic
import dpmlm.privacy.journal as journal
from dpmlm.artifacts import load_identity
from dpmlm.privacy import Ledger
from dpmlm.training import Checkpoints, LedgerCharges, checkpoint, loop, optimizer, train

STEPS, UNITS = 6, 60
OF_THE_COMMIT = ("before the commit", "half a commit", "after the commit")
"""Moments of the last step alone."""
MOMENTS = (
    "half a charge", "charged", "drawn", "half the noise", "noised", "updated",
    "half of weights", "half of optimizer", "half of state", "half of manifest",
    "before the rename", "after the rename", "half removed", "half a keep",
    *OF_THE_COMMIT,
)  # fmt: skip
"""In the order of a step."""


def the_plan():
    return a_plan(units=UNITS, expected_batch_size=UNITS / 2, steps=STEPS)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def digest_of(model, optimizer, progress) -> str:
    """Of everything a checkpoint holds."""
    found = hashlib.sha256()
    for name, param in model.named_parameters():
        found.update(name.encode() + param.detach().numpy().tobytes())
    for index, state in sorted(optimizer.state_dict()["state"].items()):
        for key, value in sorted(state.items()):
            found.update(f"{index}/{key}".encode() + torch.as_tensor(value).numpy().tobytes())
    found.update(json.dumps(progress.events, sort_keys=True).encode())
    return found.hexdigest()


class Noted:
    """Writes the lines, and dies at the one moment it is told."""

    def __init__(self, path: Path, at: str | None, step: int | None):
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(self._handle, b"\n")  # ends a line that a kill cut
        self._at, self._step = at, step
        self.attempt = 0

    def note(self, what: str, attempt: int, step: int, value: str = "-") -> None:
        os.write(self._handle, f"{what} {attempt} {step} {value} .\n".encode())

    def now(self, moment: str, step: int) -> bool:
        return self._at == moment and self._step == step

    def die_if(self, moment: str, step: int) -> None:
        if self.now(moment, step):
            die()


class HalfOs:
    """`os` for a module that writes: the write that `chosen` picks ends half-way in a kill."""

    def __init__(self, chosen):
        self._chosen, self._paths = chosen, {}

    def __getattr__(self, name):
        return getattr(os, name)

    def open(self, path, *arguments):
        handle = os.open(path, *arguments)
        self._paths[handle] = str(path)
        return handle

    def write(self, handle, data):
        return self._half(handle, data, lambda part: os.write(handle, part))

    def fdopen(self, handle, *arguments):
        file, halves = os.fdopen(handle, *arguments), self

        class Half:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.__exit__(*error)

            def __getattr__(self, name):
                return getattr(file, name)

            def write(self, data):
                return halves._half(handle, bytes(data), file.write, file.flush)

        return Half()

    def _half(self, handle, data, write, flush=lambda: None):
        if not self._chosen(self._paths.get(handle, ""), data):
            return write(data)
        write(data[: len(data) // 2])
        flush()
        os.fsync(handle)
        die()


def watch_draws(noted: Noted) -> None:
    begin, draw = LedgerCharges.begin, loop.PoissonSampler.draw

    def begun(charges, from_step, from_attempt):
        noted.attempt = begin(charges, from_step, from_attempt)
        return noted.attempt

    def drawn(sampler, step):
        noted.note("drawing", noted.attempt, step)
        noted.die_if("charged", step)
        sample = draw(sampler, step)
        value = hashlib.sha256(json.dumps(sample).encode()).hexdigest()
        noted.note("sample", noted.attempt, step, value)
        noted.die_if("drawn", step)
        return sample

    LedgerCharges.begin, loop.PoissonSampler.draw = begun, drawn


def watch_noise(noted: Noted) -> None:
    noise, add = optimizer.gaussian_noise, optimizer.SecureDPOptimizer.add_noise

    def noised(*arguments, step, label, **names):
        tensor = noise(*arguments, step=step, label=label, **names)
        value = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        noted.note("noise", noted.attempt, step, value)
        if label == "noise/7":
            noted.die_if("half the noise", step)
        return tensor

    def added(private):
        add(private)
        noted.die_if("noised", private._step_index)

    optimizer.gaussian_noise, optimizer.SecureDPOptimizer.add_noise = noised, added


def watch_checkpoints(noted: Noted) -> None:
    prepare, load, sync = Checkpoints.prepare, Checkpoints.load, atomic.sync_folder
    rmtree, current = shutil.rmtree, {"step": -1}

    def prepared(checkpoints, model, optimizer, progress):
        noted.note("saving", progress.attempt, progress.step, digest_of(model, optimizer, progress))
        write = prepare(checkpoints, model, optimizer, progress)

        def written():
            current["step"] = progress.step - 1
            write()
            current["step"] = -1

        return written

    def loaded(checkpoints, model, optimizer):
        progress = load(checkpoints, model, optimizer)
        if progress:
            value = digest_of(model, optimizer, progress)
            noted.note("loaded", progress.attempt, progress.step, value)
        return progress

    def placed(draft, target):
        noted.die_if("before the rename", current["step"])
        atomic.sync_folder = synced
        try:
            atomic.place_folder(draft, target)
        finally:
            atomic.sync_folder = sync

    def synced(folder):
        noted.die_if("after the rename", current["step"])
        sync(folder)

    def removed(path):
        if path.name.startswith("step-") and noted.now("half removed", current["step"]):
            (path / "state.sealed").unlink()
            die()
        rmtree(path)

    def half(path, data):
        for part in ("weights", "optimizer", "state", "manifest"):
            if f"/unfinished/.{part}." in path and noted.now(f"half of {part}", current["step"]):
                return True
        return False

    Checkpoints.prepare, Checkpoints.load = prepared, loaded
    checkpoint.place_folder, checkpoint.shutil = placed, SimpleNamespace(rmtree=removed)
    atomic.os = HalfOs(half)


def watch_ledger(noted: Noted) -> None:
    commit = Ledger.commit

    def committed(ledger, run_id, steps, attempt):
        noted.die_if("before the commit", STEPS - 1)
        commit(ledger, run_id, steps, attempt)
        noted.die_if("after the commit", STEPS - 1)

    def half(path, data):
        entry = json.loads(data)
        if entry["kind"] == "charge":
            return noted.now("half a charge", entry["step"])
        if entry["kind"] == "keep":
            return noted.now("half a keep", entry["steps"] - 1)
        return entry["kind"] == "commit" and noted.now("half a commit", STEPS - 1)

    Ledger.commit, journal.os = committed, HalfOs(half)


def attempt(request: dict) -> None:
    folder, plan = Path(request["folder"]), the_plan()
    noted = Noted(folder / "noted", request.get("at"), request.get("step"))
    for watch in (watch_draws, watch_noise, watch_checkpoints, watch_ledger):
        watch(noted)
    identity = load_identity(folder / "trainer.key")
    checkpoints = Checkpoints(folder / "checkpoints", identity, [identity.recipient], plan.digest)
    charges = LedgerCharges(Ledger.open(folder / "ledger.jsonl"), "run", plan)
    train(
        a_model(), Numbered(documents(UNITS)), plan,
        a_recipe(checkpoint_minutes=request.get("minutes", 0.0)),
        charges=charges, checkpoints=checkpoints,
        report=lambda done, total: noted.die_if("updated", done - 1),
    )  # fmt: skip


def wait(child: int, after: float | None, number: int) -> int:
    """Exit status of the child, which gets the signal after so many seconds."""
    end = time.monotonic() + (after if after is not None else 1e9)
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            os.kill(child, number)
            end = float("inf")
        time.sleep(0.0005)


def serve() -> None:
    for line in sys.stdin:
        request, start = json.loads(line), time.monotonic()
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)
            status = 1
            try:
                attempt(request)
                status = 0
            except SystemExit as stopping:
                status = stopping.code
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        number = request.get("signal", signal.SIGKILL)
        print(wait(child, request.get("after"), number), time.monotonic() - start, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe = a_recipe()
    checked = loop.refuse_inexact(a_model(), recipe.table.vocab_size, window=recipe.window)
    answer = SimpleNamespace(padding_matters=checked.padding_matters)
    loop.refuse_inexact = lambda *_, **__: answer
    print("ready", flush=True)
    serve()
