"""Checkpoints written beside the training: what may follow, and when."""

import os
import signal
import threading
import time
import warnings
from itertools import product

import pytest
from small_training import Charges, Every, Numbered, a_model, a_plan, documents
from variants import rest_in_full

from dpmlm.errors import UserError
from dpmlm.training import Checkpoints, Interrupted, loop

pytestmark = pytest.mark.usefixtures("known_exact")


class Noting(Charges):
    """Notes checkpoints that the ledger heard of, too, and from which thread."""

    def keep(self, attempt, steps):
        assert threading.current_thread() is threading.main_thread()
        self.seen.append(("keep", attempt, steps))


class Told:
    """A sink that notes of which steps it got figures."""

    def __init__(self, seen):
        self.seen = seen

    def write(self, events):
        self.seen.append(("told", len(events)))

    def gauge(self, name, value, **labels):
        if name == "checkpoint_write_seconds":
            assert value > 0
            self.seen.append(name)

    def close(self):
        pass


class Slow:
    """A disk on which a checkpoint takes until `open` is set; notes when one is there."""

    def __init__(self, monkeypatch, seen):
        self.open, write = threading.Event(), Checkpoints._write

        def slowly(shelf, step, *rest):
            assert threading.current_thread() is not threading.main_thread()
            assert self.open.wait(30)
            write(shelf, step, *rest)
            seen.append(("there", step))

        monkeypatch.setattr(Checkpoints, "_write", slowly)


def test_training_goes_on_while_a_checkpoint_is_written(fit, monkeypatch):
    """The first one takes three steps; ledger and sinks hear of it when it is there."""
    charges = Noting()
    slow = Slow(monkeypatch, charges.seen)

    waiting = iter([0.0, 1e9])  # due after the first step, then at the end alone
    monkeypatch.setattr(loop.Saving, "due", lambda saving: next(waiting, 1e9) == 0.0)

    def report(done, total):
        if done == 4:
            slow.open.set()
            while ("there", 1) not in charges.seen:
                time.sleep(0.001)

    fit(
        a_model(), Numbered(documents()), a_plan(), charges=charges, telemetry=[Told(charges.seen)],
        report=report,
    )  # fmt: skip
    charged = [("charge", 1, step) for step in range(6)]
    assert charges.seen == [
        *charged[:4], ("there", 1),
        ("keep", 1, 1), "checkpoint_write_seconds", ("told", 1), *charged[4:],
        ("there", 6), ("keep", 1, 6), "checkpoint_write_seconds", ("told", 6),
        ("commit", 1, 6),
    ]  # fmt: skip


def test_of_two_checkpoints_the_second_waits_for_the_first(fit, monkeypatch):
    charges = Noting()
    Slow(monkeypatch, charges.seen).open.set()
    fit(a_model(), Numbered(documents()), a_plan(), charges=charges)
    done = [entry for entry in charges.seen if entry[0] in ("there", "keep")]
    assert done == [entry for k in range(1, 7) for entry in (("there", k), ("keep", 1, k))]


def full_disk(monkeypatch, step, *, copy=False):
    """No room for the checkpoint of that step, or for its copy out of the local folder."""
    name = "_copy" if copy else "_write"
    whole = getattr(Checkpoints, name)

    def written(shelf, given, *rest):
        if given == step or str(given).endswith(f"-{step:08d}"):
            raise UserError("a disk", "could not be written (No space left on device)", "make room")
        whole(shelf, given, *rest)

    monkeypatch.setattr(Checkpoints, name, written)


@pytest.mark.parametrize(
    ("step", "copy"), rest_in_full(product([2, 6], [False, True]), [(2, True), (6, False)])
)
def test_a_full_disk_is_said_before_the_next_checkpoint_and_nothing_follows(
    fit, tmp_path, monkeypatch, step, copy
):
    charges, more = Noting(), {}
    if copy:
        more["local"] = tmp_path / "local"
    full_disk(monkeypatch, step, copy=copy)
    with pytest.raises(UserError, match="No space left"):
        fit(a_model(), Numbered(documents()), a_plan(), charges=charges, shelf=more)
    kept = [entry[2] for entry in charges.seen if entry[0] == "keep"]
    assert kept == list(range(1, step))
    assert ("commit", 1, 6) not in charges.seen
    monkeypatch.undo()
    progress = fit(a_model(seed=4), Numbered(documents()), a_plan(), charges=charges, shelf=more)
    assert [event["step"] for event in progress.events] == [1, 2, 3, 4, 5, 6]
    # What reached the local disk is not lost.
    assert charges.attempts == 2 or (copy and step == 6)
    begun = [entry[2] for entry in charges.seen if entry[:2] == ("charge", 2)][:1]
    assert begun == ([] if copy and step == 6 else [step if copy else step - 1])


def test_a_crash_waits_for_the_checkpoint_in_hand_and_the_ledger_hears_of_it(fit, monkeypatch):
    class Crash(Exception):
        pass

    def crash(done, total):
        if done == 2:
            raise Crash

    charges = Noting()
    Slow(monkeypatch, charges.seen).open.set()
    with pytest.raises(Crash):
        fit(a_model(), Numbered(documents()), a_plan(), charges=charges, report=crash)
    assert charges.seen[-1] == ("keep", 1, 1)


def test_a_second_ctrl_c_waits_for_no_disk(fit, monkeypatch):
    """The disk never answers; the first signal waits for it, the second does not."""
    charges = Noting()
    Slow(monkeypatch, charges.seen)
    monkeypatch.setattr(loop, "PoissonSampler", Every)

    def report(done, total):
        if done == 1:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    begun = time.monotonic()
    with pytest.raises(Interrupted):
        fit(a_model(), Numbered(documents()), a_plan(), charges=charges, report=report)
    assert time.monotonic() - begun < 10
    assert charges.seen == [("charge", 1, 0)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileExistsError(17, "File exists", "figures.jsonl"), "File exists"),
        (UserError("telemetry file x", "something else lies there", "move it"), "move it"),
        (ValueError("loss 0.5 of somebody's text"), "ValueError"),
    ],
)
def test_a_sink_that_fails_is_dropped_with_one_warning_and_training_goes_on(fit, error, reason):
    told, sound = [], []

    class Failing(Told):
        def write(self, events):
            super().write(events)
            raise error

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        sinks = [Failing(told), Told(sound)]
        progress = fit(a_model(), Numbered(documents()), a_plan(steps=3), telemetry=sinks)
    assert progress.step == 3
    assert told == ["checkpoint_write_seconds", ("told", 1)]
    assert [one for one in sound if one != "checkpoint_write_seconds"] == [
        ("told", step) for step in (1, 2, 3)
    ]
    said = [str(one.message) for one in warned if "Failing" in str(one.message)]
    assert len(said) == 1
    assert reason in said[0]
    assert "0.5" not in said[0]
