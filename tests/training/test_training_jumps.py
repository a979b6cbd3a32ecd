"""A jump of the loss: found as its twin finds it, told privately, and nothing follows from it."""

import numpy as np
import pytest
import torch
from small_training import Charges, Numbered, a_model, a_plan, documents, weights

from dpmlm.artifacts import new_identity
from dpmlm.pipeline.jumps import jumps_row, loss_jumps
from dpmlm.privacy.noise import REPRODUCIBLE_NOISE
from dpmlm.telemetry import Label
from dpmlm.telemetry.sinks import cleared
from dpmlm.training import loop
from dpmlm.training.checkpoint import Checkpoints, Progress
from dpmlm.training.jumps import DEVIATIONS, LEAST, NATS, WINDOW, jump_of

pytestmark = pytest.mark.usefixtures("known_exact")


def events(losses):
    return [{"step": n, "private": {"loss": one}} for n, one in enumerate(losses, 1)]


def naive(losses):
    """Of the last one, with numpy."""
    before = np.array([one for one in losses[-1 - WINDOW : -1] if one is not None])
    if losses[-1] is None or len(before) < LEAST:
        return None
    middle = np.median(before)
    deviation = 1.4826 * np.median(np.abs(before - middle))
    above = losses[-1] - middle
    return above if above > DEVIATIONS * deviation and above > NATS else None


def test_jumps_equal_their_naive_twin():
    draw = np.random.default_rng(4)
    found = 0
    for _ in range(400):
        size, spread = int(draw.integers(1, 40)), float(draw.choice([0.001, 0.1, 1.0]))
        losses = [float(x) for x in draw.normal(6, spread, size)]
        losses[-1] += float(draw.choice([0, 0.4, 0.6, 3, 20]))
        losses = [None if draw.random() < 0.1 else one for one in losses]
        *before, now = events(losses)
        assert jump_of(before, now) == pytest.approx(naive(losses))
        found += jump_of(before, now) is not None
    assert 20 < found < 300


def test_loss_that_falls_or_varies_as_before_is_no_jump():
    draw = np.random.default_rng(5)
    losses = [9 - 3 * n / 500 + float(draw.normal(0, 0.3)) for n in range(500)]
    told = events(losses)
    assert [n for n in range(500) if jump_of(told[:n], told[n]) is not None] == []


def spoiled(model, at):
    """What a step with bad text may leave: told after the step of that number."""

    def report(done, total):
        if done == at:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(-30)

    return report


def test_a_jump_is_told_to_the_operator_and_changes_nothing(fit):
    plan = a_plan(steps=14, expected_batch_size=700.0)  # somebody is drawn
    model, charges = a_model(), Charges()
    units = Numbered(documents())
    progress = fit(model, units, plan, charges=charges, report=spoiled(model, 11))
    told = [e["step"] for e in progress.events if "loss_jump" in e["private"]]
    assert told[0] == 12
    above = progress.events[11]["private"]["loss_jump"]
    losses = [e["private"]["loss"] for e in progress.events[:12]]
    assert above == pytest.approx(losses[-1] - np.median(losses[:-1]))
    assert (progress.step, progress.finished) == (14, True)
    assert [one for one in charges.seen if one[0] == "charge"] == [
        ("charge", 1, step) for step in range(14)
    ]
    for item in progress.events:
        for clearance in (Label.PUBLIC, Label.DP):
            assert "loss_jump" not in str(cleared(item, clearance))


def test_the_weights_are_those_of_a_run_that_does_not_look(fit, monkeypatch):
    found = []
    for name, above in (("told", 3.0), ("quiet", None)):
        monkeypatch.setattr(loop, "jump_of", lambda before, now, above=above: above)
        plan, model = a_plan(noise_seed=7, noise_source=REPRODUCIBLE_NOISE), a_model()
        progress = fit(model, Numbered(documents()), plan, folder=name)
        found.append((weights(model), progress))
    (one, told), (other, quiet) = found
    assert all(torch.equal(a, b) for a, b in zip(one, other))
    assert [e["private"]["loss_jump"] for e in told.events] == [3.0] * plan.steps
    assert "loss_jump" not in str(quiet.events)


def test_jumps_are_read_from_the_newest_checkpoint(tmp_path):
    identity = new_identity()
    assert loss_jumps(tmp_path, identity) is None
    told = [{"step": n, "private": {"loss": 1.0}} for n in range(1, 4)]
    told[1]["private"]["loss_jump"] = 2.5
    model = torch.nn.Linear(2, 2)
    folder = tmp_path / "training/checkpoints"
    files = Checkpoints(folder, identity, [identity.recipient], "plan", keep=5)
    for steps in (1, 3):
        optimizer = torch.optim.AdamW(model.parameters())
        files.save(model, optimizer, Progress(steps, 1, told[:steps]))
    found = loss_jumps(tmp_path, identity)
    assert found == [{"step": 2, "above": 2.5}]
    assert jumps_row(found) == ("loss jumps", "step 2 (+2.50 nats)")
    assert jumps_row([])[1] == "none"
