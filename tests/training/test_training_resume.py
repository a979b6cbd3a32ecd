"""Resuming: what a killed or stopped run draws, logs and keeps when it goes on."""

import os
import shutil
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from small_training import (
    Charges,
    Every,
    Numbered,
    a_model,
    a_plan,
    a_recipe,
    documents,
    weights,
    without_noise,
)

from dpmlm.errors import UserError
from dpmlm.privacy import Ledger
from dpmlm.training import Checkpoints, Interrupted, LedgerCharges, interrupts, loop, optimizer
from dpmlm.training.schedules import learning_rate_at


class Crash(Exception):
    pass


def crash_at(step, when=None):
    """A `report` that ends the attempt after `step` steps, before their checkpoint."""

    def report(done, total):
        if done == step:
            raise when or Crash

    return report


def test_a_resumed_run_is_the_uninterrupted_one_but_for_sampling_and_noise(fit, monkeypatch):
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    whole, resumed = a_model(), a_model()
    plan = without_noise(max_grad_norm=0.5)
    straight = fit(whole, Numbered(documents()), plan, folder="straight")
    charges = Charges()
    with pytest.raises(Crash):
        fit(resumed, Numbered(documents()), plan, charges=charges, report=crash_at(4))
    again = a_model(seed=9)  # its weights come from the checkpoint
    progress = fit(again, Numbered(documents()), plan, charges=charges)
    assert progress.attempt == 2
    assert progress.events == straight.events
    for one, other in zip(weights(whole), weights(again)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)
    # Step 4 (numbered 3) was drawn, not saved, and drawn again under a charge of its own.
    steps = [entry[1:] for entry in charges.seen if entry[0] == "charge"]
    assert steps == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 3), (2, 4), (2, 5)]


def test_a_step_drawn_again_has_another_sample_and_other_noise_and_one_event(fit, monkeypatch):
    noises, noise = [], optimizer.gaussian_noise

    def noised(*arguments, step, label, **names):
        drawn = noise(*arguments, step=step, label=label, **names)
        if label == "noise/0":
            noises.append((step, drawn.clone()))
        return drawn

    monkeypatch.setattr(optimizer, "gaussian_noise", noised)
    plan, charges = a_plan(expected_batch_size=500), Charges()
    units = Numbered(documents() * 10)
    with pytest.raises(Crash):
        fit(a_model(), units, plan, charges=charges, report=crash_at(4))
    first = {index for step, index in units.asked if step == 3}
    units.asked.clear()
    progress = fit(a_model(), units, plan, charges=charges)
    second = {index for step, index in units.asked if step == 3}
    assert {step for step, _ in units.asked} == {3, 4, 5}
    assert first != second  # equal by chance once in 2^120
    one, other = (drawn for step, drawn in noises if step == 3)
    assert abs(np.corrcoef(one.flatten(), other.flatten())[0, 1]) < 0.2
    # What the attempt that crashed logged of that step is gone.
    assert [event["step"] for event in progress.events] == [1, 2, 3, 4, 5, 6]
    sizes = Counter(step for step, _ in units.asked)
    assert [event["private"]["units"] for event in progress.events[3:]] == [
        sizes[step] for step in (3, 4, 5)
    ]


def test_a_run_killed_before_its_commit_draws_nothing_more(fit):
    class Stubborn(Charges):
        def commit(self, attempt, steps):
            super().commit(attempt, steps)
            if len([entry for entry in self.seen if entry[0] == "commit"]) == 1:
                raise Crash

    charges, units = Stubborn(), Numbered(documents())
    plan = a_plan()
    with pytest.raises(Crash):
        fit(a_model(), units, plan, charges=charges)
    units.asked.clear()
    model = a_model()
    progress = fit(model, units, plan, charges=charges)
    assert units.asked == []
    assert charges.seen[-2:] == [("commit", 1, 6), ("commit", 1, 6)]
    assert (progress.step, progress.attempt) == (6, 1)


def stop_at(step):
    def report(done, total):
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigpending()

    return report


@pytest.mark.parametrize(("step", "committed"), [(2, False), (6, True)])
def test_sigterm_stops_after_a_checkpoint_and_in_the_last_step_after_the_commit(
    fit, step, committed
):
    before = signal.getsignal(signal.SIGTERM)
    charges = Charges()
    recipe = a_recipe(checkpoint_minutes=1e9)
    units = Numbered(documents())
    with pytest.raises(Interrupted) as caught:
        fit(a_model(), units, a_plan(), recipe, charges=charges, report=stop_at(step))
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert (charges.seen[-1] == ("commit", 1, 6)) is committed
    units.asked.clear()
    progress = fit(a_model(), units, a_plan(), recipe, charges=charges)
    assert progress.step == 6
    assert charges.seen[-1] == ("commit", 1 if committed else 2, 6)
    assert {visit for visit, _ in units.asked} <= set(range(step, 6))


def signalled_at(monkeypatch, call, *signals):
    """Signals arrive in the `call`-th physical batch, counted from 1."""
    calls, whole = [], loop.clip_and_sum

    def slow(*arguments, **names):
        calls.append(1)
        if len(calls) == call:
            for number in signals:
                os.kill(os.getpid(), number)
        return whole(*arguments, **names)

    monkeypatch.setattr(loop, "clip_and_sum", slow)
    return calls


@pytest.mark.usefixtures("known_exact")
@pytest.mark.parametrize("call", [1, 2, 8])
def test_sigterm_gives_up_the_step_in_hand_before_its_noise(fit, tmp_path, monkeypatch, call):
    """Two physical batches of six rows each in a step, of which the second is never begun."""
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    calls = signalled_at(monkeypatch, call, signal.SIGTERM)
    noised = []
    noise = optimizer.gaussian_noise
    monkeypatch.setattr(
        optimizer, "gaussian_noise",
        lambda *args, step, **names: (noised.append(step), noise(*args, step=step, **names))[1],
    )  # fmt: skip
    recipe = a_recipe(checkpoint_minutes=1e9, physical_batch_size=3)
    model, charges, seen = a_model(), Charges(), []
    with pytest.raises(Interrupted) as caught:
        fit(
            model, Numbered(documents()), a_plan(), recipe, charges=charges,
            report=lambda done, total: seen.append(weights(model)),
        )  # fmt: skip
    assert caught.value.code == 143
    assert len(calls) == call
    step = (call - 1) // 2
    assert charges.seen == [("charge", 1, one) for one in range(step + 1)]
    assert set(noised) == set(range(step))  # none of the step that was given up
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert kept == ([f"step-{step:08d}"] if step else [])
    if step:
        assert all(torch.equal(a, b) for a, b in zip(seen[-1], weights(model)))
    monkeypatch.undo()
    progress = fit(a_model(seed=5), Numbered(documents()), a_plan(), recipe, charges=charges)
    assert [event["step"] for event in progress.events] == [1, 2, 3, 4, 5, 6]
    assert charges.seen[step + 1] == ("charge", 2, step)


@pytest.mark.usefixtures("known_exact")
def test_what_a_given_up_step_computed_shows_nowhere(fit, monkeypatch):
    """Its second attempt starts from the weights, the optimizer and the events before it."""
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    plan, recipe = without_noise(max_grad_norm=0.5), a_recipe(physical_batch_size=3)
    whole = a_model()
    straight = fit(whole, Numbered(documents()), plan, recipe, folder="straight")
    with monkeypatch.context() as patch:
        signalled_at(patch, 6, signal.SIGTERM)
        with pytest.raises(Interrupted):
            fit(a_model(), Numbered(documents()), plan, recipe)
    again = a_model(seed=9)
    progress = fit(again, Numbered(documents()), plan, recipe)
    assert progress.events == straight.events
    for one, other in zip(weights(whole), weights(again)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


@pytest.mark.usefixtures("known_exact")
@pytest.mark.parametrize(
    ("signals", "status", "kept"),
    [
        ([signal.SIGTERM, signal.SIGTERM], 143, [2]),  # Slurm's and torchrun's
        ([signal.SIGINT, signal.SIGTERM], 130, [2]),
        ([signal.SIGINT, signal.SIGINT], 130, []),
        ([signal.SIGTERM, signal.SIGINT], 130, []),
    ],
)
def test_a_copy_of_sigterm_is_no_second_request_but_ctrl_c_is(
    fit, tmp_path, monkeypatch, signals, status, kept
):
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    signalled_at(monkeypatch, 3, *signals)
    with pytest.raises(Interrupted) as caught:
        fit(a_model(), Numbered(documents()), a_plan(), a_recipe(checkpoint_minutes=1e9))
    assert caught.value.code == status
    found = (tmp_path / "checkpoints").glob("step-*")
    assert [int(path.name[-8:]) for path in found] == kept


@pytest.mark.usefixtures("known_exact")
def test_a_sigterm_a_minute_after_the_first_stops_at_once(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "REPEAT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    signalled_at(monkeypatch, 3, signal.SIGTERM, signal.SIGTERM)
    with pytest.raises(Interrupted):
        fit(a_model(), Numbered(documents()), a_plan(), a_recipe(checkpoint_minutes=1e9))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.usefixtures("known_exact")
def test_the_average_is_released_and_survives_a_resume(fit, monkeypatch):
    """Against sums by hand over the weights of every step; training itself goes on from those."""
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    plan, recipe = without_noise(max_grad_norm=0.5), a_recipe(average=0.7)
    seen, model = [], a_model()
    fit(
        model, Numbered(documents()), plan, recipe, folder="straight",
        report=lambda done, total: seen.append(weights(model)),
    )  # fmt: skip
    shares = [0.3 * 0.7 ** (5 - step) / (1 - 0.7**6) for step in range(6)]
    for name, released in enumerate(weights(model)):
        by_hand = sum(share * step[name].double() for share, step in zip(shares, seen))
        torch.testing.assert_close(released.double(), by_hand, rtol=1e-5, atol=1e-7)
    with pytest.raises(Crash):
        fit(a_model(), Numbered(documents()), plan, recipe, report=crash_at(4))
    again = a_model(seed=9)
    fit(again, Numbered(documents()), plan, recipe)
    for one, other in zip(weights(model), weights(again)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    finished = a_model(seed=8)  # a kill between the last checkpoint and its commit
    fit(finished, Numbered(documents()), plan, recipe)
    for one, other in zip(weights(again), weights(finished)):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("known_exact")
def test_the_schedule_of_the_rate_is_the_recipes(fit):
    recipe = a_recipe(schedule="wsd", warmup=0.2, decay=0.5, learning_rate=0.01)
    progress = fit(a_model(), Numbered(documents()), a_plan(), recipe)
    told = [event["public"]["learning_rate"] for event in progress.events]
    assert told == [
        learning_rate_at(step, steps=6, peak=0.01, warmup=0.2, shape="wsd", decay=0.5)
        for step in range(6)
    ]
    assert len(set(told)) > 3


def test_a_checkpoint_that_vanished_is_known_to_the_ledger(tmp_path, fit):
    """Its figures were told to whoever watched; the claim then counts the steps drawn again."""
    plan = a_plan(units=60, expected_batch_size=30)
    ledger = Ledger.register(tmp_path / "ledger", epsilon=1e6, delta=1e-3, corpus="small")
    charges = LedgerCharges(ledger, "run", plan)

    class Crash(Exception):
        pass

    def crash(done, total):
        if done == 4:
            raise Crash

    with pytest.raises(Crash):
        fit(a_model(), Numbered(documents()), plan, charges=charges, report=crash)
    assert [e["steps"] for e in ledger.entries if e["kind"] == "keep"] == [1, 2, 3]
    shutil.rmtree(tmp_path / "checkpoints")
    fit(a_model(), Numbered(documents()), plan, charges=charges)
    summary = ledger.summary("run")
    assert (summary["committed_steps"], summary["claimed_steps"]) == (6, 10)


def test_that_training_diverged_is_known_to_the_ledger(tmp_path, fit, monkeypatch):
    plan = a_plan(units=60, expected_batch_size=30)
    ledger = Ledger.register(tmp_path / "ledger", epsilon=1e6, delta=1e-3, corpus="small")
    charges = LedgerCharges(ledger, "run", plan)
    recipe = a_recipe(checkpoint_minutes=1e9)
    monkeypatch.setattr(loop, "finite", lambda tensors: False)
    with pytest.raises(UserError, match="diverged"):
        fit(a_model(), Numbered(documents()), plan, recipe, charges=charges)
    monkeypatch.undo()
    fit(a_model(), Numbered(documents()), plan, recipe, charges=charges)
    assert ledger.summary("run")["claimed_steps"] == 7


class Killed(BaseException):
    pass


@pytest.mark.usefixtures("known_exact")
def on_machines(fit, tmp_path):
    """A ledger, its plan, and attempts at the plan on machines with disks of their own."""
    plan = a_plan(units=60, expected_batch_size=30)
    ledger = Ledger.register(tmp_path / "ledger", epsilon=1e6, delta=1e-3, corpus="small")

    def attempt(machine, **more):
        charges, recipe = LedgerCharges(ledger, "run", plan), a_recipe(checkpoint_minutes=1e9)
        shelf = {"local": tmp_path / machine}
        fit(a_model(), Numbered(documents()), plan, recipe, charges=charges, shelf=shelf, **more)

    return ledger, plan, attempt


@pytest.mark.parametrize("mended", [True, False])
def test_what_lies_on_another_machine_is_no_part_of_what_a_later_attempt_left(
    fit, tmp_path, monkeypatch, mended
):
    """Attempt 2 is killed with five steps on the disk of machine a, and attempt 3 keeps four of its
    own on machine b. If the five were gone on from, every step drawn again would be claimed."""
    ledger, plan, attempt = on_machines(fit, tmp_path)

    def killed(self, sealed):
        raise Killed

    with pytest.raises(Interrupted):
        attempt("a", report=stop_at(2))
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_copy", killed)
        with pytest.raises(Killed):
            attempt("a", report=stop_at(5))
    with pytest.raises(Interrupted):
        attempt("b", report=stop_at(4))
    assert (tmp_path / "a/step-00000005").is_dir()
    if not mended:
        monkeypatch.setattr(Checkpoints, "_attempt_of", lambda *_: 0)
    attempt("a")
    begun = [e for e in ledger.entries if e["kind"] == "attempt"]
    places = [(entry["from_step"], entry["from_attempt"]) for entry in begun]
    assert places == [(0, 0), (2, 1), (2, 1), (4, 3) if mended else (5, 2)]
    summary = ledger.summary("run")
    assert summary["claimed_steps"] == (plan.steps if mended else summary["billed_steps"])
    assert summary["billed_steps"] == plan.steps + (3 if mended else 2)


def test_what_one_machine_finished_is_committed_after_another_began(fit, tmp_path, monkeypatch):
    """Killed before its copy; the other machine began anew and left nothing."""
    ledger, plan, attempt = on_machines(fit, tmp_path)

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_copy", killed)
        with pytest.raises(Killed):
            attempt("a")
    with pytest.raises(Killed):
        attempt("b", report=killed)
    attempt("a")
    attempt("a")  # killed once more, between commit and what follows it
    commits = [e["attempt"] for e in ledger.entries if e["kind"] == "commit"]
    assert commits == [3]
    summary = ledger.summary("run")
    assert (summary["claimed_steps"], summary["billed_steps"]) == (plan.steps, plan.steps + 1)
