"""SIGKILL in the midst of training: nothing is drawn uncharged, nothing twice, all goes on."""

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import training_kill_driver
from small_training import Charges, Numbered, a_model, a_plan, a_recipe, documents, weights
from training_kill_driver import MOMENTS, OF_THE_COMMIT, STEPS, digest_of, the_plan

from dpmlm.artifacts import load_identity, new_identity
from dpmlm.artifacts.keys import save_identity
from dpmlm.privacy import Ledger
from dpmlm.training import Checkpoints, adamw, loop

KILLED = -9

pytestmark = pytest.mark.xdist_group("training-kills")


class Driver:
    """The program of training_kill_driver.py."""

    def __init__(self, folder: Path):
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, training_kill_driver.__file__],
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},  # it forks
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n", self.said()

    def attempt(self, folder: Path, **moment) -> tuple[int, float]:
        """Exit status and seconds of one attempt at the training in `folder`."""
        self.process.stdin.write(json.dumps({"folder": str(folder), **moment}) + "\n")
        self.process.stdin.flush()
        status, seconds = self.process.stdout.readline().split()
        return int(status), float(seconds)

    def said(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()[-3000:]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.log.close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    running = Driver(tmp_path_factory.mktemp("driver"))
    yield running
    running.close()


def new_training(folder: Path) -> Path:
    """A registered ledger with room for many repeated steps, and a key."""
    folder.mkdir()
    Ledger.register(folder / "ledger.jsonl", epsilon=1e6, delta=1e-3, corpus="small")
    save_identity(folder / "trainer.key", new_identity())
    return folder


class Trace:
    """What attempts noted, and what the ledger says of them."""

    def __init__(self, folder: Path):
        path = folder / "noted"
        lines = path.read_text().splitlines() if path.exists() else []
        self._lines = [
            (what, int(attempt), int(step), value)
            for what, attempt, step, value, _ in (li.split() for li in lines if li.endswith(" ."))
        ]
        self.ledger = Ledger.open(folder / "ledger.jsonl")  # mends a torn last line
        self.ledger.verify()
        entries = self.ledger.entries
        self.charged = {(e["attempt"], e["step"]) for e in entries if e["kind"] == "charge"}
        self.committed = max((e["steps"] for e in entries if e["kind"] == "commit"), default=0)

    def of(self, what: str) -> list[tuple[int, int, str]]:
        """(attempt, step, hash) of every line of this kind."""
        return [line[1:] for line in self._lines if line[0] == what]

    def check(self) -> None:
        """What must hold after every kill."""
        drawn = [(attempt, step) for attempt, step, _ in self.of("drawing")]
        assert set(drawn) <= self.charged, "drawn without a charge"
        assert len(set(drawn)) == len(drawn), "a charge that two draws share"
        for what in ("sample", "noise"):
            values = [value for _, _, value in self.of(what)]
            assert len(set(values)) == len(values), f"the same {what} twice"
        saved = set(self.of("saving"))
        assert set(self.of("loaded")) <= saved, "what was loaded is not what was saved"
        assert self.committed <= len({step for _, step in self.charged})
        assert all((attempt, step - 1) in self.charged for attempt, step, _ in saved)


def check_finished(folder: Path) -> None:
    """The last checkpoint is of the last step; read twice it gives the same, bit for bit.

    Beside it may lie the one before, removed in part, if a kill came in that."""
    trace, plan = Trace(folder), the_plan()
    trace.check()
    assert trace.committed == STEPS
    left = [path.name for path in (folder / "checkpoints").iterdir()]
    assert max(left) == f"step-{STEPS:08d}"
    identity = load_identity(folder / "trainer.key")
    checkpoints = Checkpoints(folder / "checkpoints", identity, [identity.recipient], plan.digest)
    last = trace.of("saving")[-1]
    for seed in (1, 2):
        model = a_model(seed)
        optimizer = adamw(model, 0.1, 0.01)
        progress = checkpoints.load(model, optimizer)
        assert (progress.attempt, progress.step, digest_of(model, optimizer, progress)) == last
        assert [event["step"] for event in progress.events] == list(range(1, STEPS + 1))


def begun_at(folder: Path) -> int:
    """The step with which the next attempt goes on."""
    names = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
    return int(names[-1].removeprefix("step-")) if names else 0


def choose(rng: random.Random, moment: str | None, folder: Path, seconds: float) -> dict:
    """A moment at a step that is still to come, or an instant for None."""
    if moment is None:
        return {"after": rng.uniform(0, seconds)}
    first = max(begun_at(folder), int(moment == "half removed"))
    last = first >= STEPS or moment in OF_THE_COMMIT
    return {"at": moment, "step": STEPS - 1 if last else rng.randint(first, STEPS - 1)}


def killed(kills: int, folder: Path, driver: Driver) -> Counter:
    """So many kills, a third of them at any instant; returns how often each moment came.

    A training that ends before its moment is followed by another.
    """
    seed = int(os.environ.get("KILL_SEED") or secrets.randbits(32))
    print(f"KILL_SEED={seed}")
    rng = random.Random(seed)
    _, seconds = driver.attempt(new_training(folder / "whole"))
    check_finished(folder / "whole")
    waiting: list[str | None] = []
    done: Counter = Counter()
    runs = 0
    while done.total() < kills:
        runs += 1
        run, status = new_training(folder / f"run-{runs}"), KILLED
        while status == KILLED and done.total() < kills:
            if not waiting:
                waiting = [*MOMENTS, *[None] * (len(MOMENTS) // 2)]
                rng.shuffle(waiting)
            begun, moment = begun_at(run), choose(rng, waiting[-1], run, seconds)
            status, took = driver.attempt(run, **moment)
            print(f"run {runs}, {moment}: {status} after {took:.3f} s")
            assert status in (0, KILLED), driver.said()
            assert status == KILLED or begun or "after" in moment, "the moment never came"
            Trace(run).check()
            if status == KILLED:
                done[waiting.pop()] += 1
        if status == KILLED:
            assert driver.attempt(run)[0] == 0, driver.said()
        check_finished(run)
    return done


@pytest.mark.full
def test_training_killed_twelve_times_goes_on(tmp_path, driver):
    killed(12, tmp_path, driver)


@pytest.mark.full
def test_training_killed_fifty_times_goes_on(tmp_path, driver):
    done = killed(50, tmp_path, driver)
    assert set(MOMENTS) < set(done)


@pytest.mark.parametrize("moment", MOMENTS)
def test_training_killed_at_each_moment_goes_on(tmp_path, driver, moment):
    folder = new_training(tmp_path / "run")
    step = STEPS - 1 if moment in OF_THE_COMMIT else 2
    assert driver.attempt(folder, at=moment, step=step)[0] == KILLED, driver.said()
    Trace(folder).check()
    assert driver.attempt(folder)[0] == 0, driver.said()
    check_finished(folder)


def stopped(times: int, folder: Path, driver: Driver) -> list[int]:
    """So many times SIGTERM at any instant, each to an attempt that goes on where the last one was
    stopped; returns the exit statuses.

    What an attempt loses is at most the step in hand.
    """
    seed = int(os.environ.get("KILL_SEED") or secrets.randbits(32))
    print(f"KILL_SEED={seed}")
    rng = random.Random(seed)
    _, seconds = driver.attempt(new_training(folder / "whole"))
    statuses: list[int] = []
    while len(statuses) < times:
        run, status = new_training(folder / f"run-{len(statuses)}"), None
        while status != 0 and len(statuses) < times:
            after = rng.uniform(0.1 * seconds, seconds)
            asked = {"after": after, "signal": signal.SIGTERM, "minutes": rng.choice([0.0, 1e9])}
            status, took = driver.attempt(run, **asked)
            print(f"{run.name}, {after:.3f} s: {status} after {took:.3f} s")
            # Before the loop, where the command line has a handler of its own, this one has none.
            assert status in (0, 143, -signal.SIGTERM), driver.said()
            Trace(run).check()
            check_nothing_finished_is_lost(run)
            statuses.append(status)
        assert status == 0 or driver.attempt(run)[0] == 0, driver.said()
        check_finished(run)
    return statuses


def check_nothing_finished_is_lost(folder: Path) -> None:
    """Every attempt goes on from the last step that the one before charged, or from the next."""
    last = None
    for entry in Trace(folder).ledger.entries:
        if entry["kind"] == "attempt" and last is not None:
            assert entry["from_step"] in (last, last + 1), "more than the step in hand is lost"
        if entry["kind"] == "charge":
            last = entry["step"]


def test_training_stopped_five_times_goes_on(tmp_path, driver):
    stopped(5, tmp_path, driver)


@pytest.mark.full
def test_training_stopped_a_hundred_times_goes_on(tmp_path, driver):
    assert 143 in stopped(100, tmp_path, driver)


def test_the_check_of_what_is_lost_notices_a_kill(tmp_path, driver):
    """SIGKILL before the second checkpoint takes its name loses a finished step."""
    folder = new_training(tmp_path / "run")
    assert driver.attempt(folder, at="charged", step=5)[0] == KILLED
    shutil.rmtree(folder / "checkpoints" / f"step-{begun_at(folder):08d}")
    driver.attempt(folder)
    with pytest.raises(AssertionError, match="the step in hand"):
        check_nothing_finished_is_lost(folder)


FAULTS = {
    "drawn without a charge": "drawing 1 3 -",
    "a charge that two draws share": "drawing 1 0 -",
    "the same sample twice": "sample 2 4 {sample}",
    "the same noise twice": "noise 2 4 {noise}",
    "what was loaded is not what was saved": "loaded 1 2 0000",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_notices(tmp_path, driver, fault):
    folder = new_training(tmp_path / "run")
    driver.attempt(folder, at="charged", step=2)
    trace = Trace(folder)
    values = {what: trace.of(what)[0][2] for what in ("sample", "noise")}
    with (folder / "noted").open("a") as file:
        file.write(FAULTS[fault].format(**values) + " .\n")
    with pytest.raises(AssertionError, match=fault):
        Trace(folder).check()


class Crash(Exception):
    pass


@pytest.mark.parametrize("step", [1, 3, 5])
def test_under_one_key_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    fit, tmp_path, monkeypatch, step
):
    """With the operating system's keys replaced by one key: samples and noise are then the same
    whoever draws them, and all that is left is what a checkpoint keeps."""
    monkeypatch.setattr(loop.secrets, "token_bytes", lambda count: bytes(range(count)))
    plan, examples = a_plan(units=12, expected_batch_size=6.0), documents(12)

    def crash(done, total):
        if done == step:
            raise Crash

    whole = a_model()
    straight = fit(whole, Numbered(examples), plan, folder="whole")
    with pytest.raises(Crash):
        fit(a_model(), Numbered(examples), plan, charges=Charges(), report=crash, folder="one")
    if step > 1:
        shutil.copytree(tmp_path / "one", tmp_path / "other")
    for folder in ("one", "other"):
        again = a_model(seed=9 if step > 1 else 0)
        progress = fit(again, Numbered(examples), plan, a_recipe(), folder=folder)
        assert progress.events == straight.events
        for a, b in zip(weights(whole), weights(again)):
            assert torch.equal(a, b)
