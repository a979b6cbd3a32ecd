"""A training that has taken its hours stops between two steps, saved, and goes on when told to."""

import pytest
import torch
from small_training import Charges, Numbered, a_model, a_plan, a_recipe, documents, weights

from dpmlm.errors import UserError
from dpmlm.pipeline.status import status_file, telling_status
from dpmlm.privacy.noise import REPRODUCIBLE_NOISE
from dpmlm.training import Interrupted, timing

pytestmark = pytest.mark.usefixtures("known_exact")


class Clock:
    """An hour a step."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(timing.time, "monotonic", lambda: self.now)

    def __call__(self, done, total):
        self.now += 3600


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def hours(limit, **more):
    return a_recipe(max_hours=limit, checkpoint_minutes=1e6, **more)


def test_it_stops_between_two_steps_and_goes_on_with_a_higher_limit(fit, clock, capfd):
    plan, charges, model = a_plan(), Charges(), a_model()
    with pytest.raises(Interrupted) as stopped:
        fit(model, Numbered(documents()), plan, hours(2.5), charges=charges, report=clock)
    assert (stopped.value.code, stopped.value.signum) == (143, 15)
    assert "training.max_hours 2.5 is reached" in stopped.value.why
    assert "training.max_hours 2.5 is reached: raise it to go on" in capfd.readouterr().err
    # The step in hand was finished and kept: none is charged twice.
    assert charges.seen == [("charge", 1, 0), ("charge", 1, 1), ("charge", 1, 2)]
    again = a_model(seed=5)
    with pytest.raises(UserError, match="has taken 3 hours already"):
        fit(again, Numbered(documents()), plan, hours(2.5), charges=charges, report=clock)
    assert len(charges.seen) == 3
    with pytest.raises(Interrupted):
        fit(again, Numbered(documents()), plan, hours(4), charges=charges, report=clock)
    progress = fit(again, Numbered(documents()), plan, hours(None), charges=charges, report=clock)
    assert (progress.step, progress.finished) == (6, True)
    assert progress.seconds == pytest.approx(6 * 3600)
    assert [one[2] for one in charges.seen if one[0] == "charge"] == list(range(6))


def test_a_limit_at_the_last_step_is_the_end(fit, clock):
    progress = fit(a_model(), Numbered(documents()), a_plan(), hours(6), report=clock)
    assert progress.finished


def test_the_limit_changes_no_weight(fit, clock):
    found = []
    for name, limit in (("with", 100), ("without", None)):
        model = a_model()
        plan = a_plan(noise_seed=7, noise_source=REPRODUCIBLE_NOISE)
        fit(model, Numbered(documents()), plan, hours(limit), report=clock, folder=name)
        found.append(weights(model))
    assert all(torch.equal(a, b) for a, b in zip(*found))


def test_the_status_file_tells_why(tmp_path):
    workspace = tmp_path / "work"
    with pytest.raises(Interrupted), telling_status(workspace, "run"):
        raise Interrupted(15, "training.max_hours 2 is reached: raise it to go on")
    told = status_file(workspace).read_text()
    assert '"state": "stopped"' in told
    assert '"status": 143' in told
    assert '"reason": "training.max_hours 2 is reached' in told
