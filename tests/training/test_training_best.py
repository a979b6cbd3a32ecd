"""The best step by public text, and ending early: what is kept, charged and claimed."""

import math
import signal

import pytest
import torch
from small_training import Charges, Numbered, a_model, a_plan, a_recipe, documents, weights

from dpmlm.errors import UserError
from dpmlm.privacy import Ledger, epsilon_of, statement
from dpmlm.training import LedgerCharges, PublicLoss
from dpmlm.training.best import PublicChoice
from dpmlm.training.interrupts import Interrupted

pytestmark = pytest.mark.usefixtures("known_exact")


class Losses:
    """A loss as told, look by look; keeps the weights that it looked at."""

    def __init__(self, *values):
        self._values, self.seen = iter(values), []

    def __call__(self, model, asked_to_stop):
        self.seen.append(weights(model))
        return next(self._values)


class Noting(Charges):
    def forgo(self, attempt):
        self.seen.append(("forgo", attempt))


def trained(fit, losses, *, every=1, patience=None, jump=None, **more):
    model, charges = a_model(), Noting()
    public = PublicLoss(losses, every, patience, jump)
    progress = fit(model, Numbered(documents()), a_plan(), charges=charges, public=public, **more)
    return model, charges.seen, progress


@pytest.mark.parametrize("values", [(5, 4, 3, 4, 5, 6), (3, 3, 3, 3, 3, 3), (6, 5, 4, 3, 2, 1)])
def test_the_weights_of_the_least_loss_are_the_result(fit, values):
    losses = Losses(*map(float, values))
    model, charged, progress = trained(fit, losses)
    best = values.index(min(values))
    assert all(torch.equal(a, b) for a, b in zip(weights(model), losses.seen[best]))
    assert (progress.step, progress.best.step) == (6, best + 1)
    assert charged[-1] == ("commit", 1, best + 1)
    assert [event["dp"]["public_loss"] for event in progress.events] == list(values)


def test_looks_come_at_their_steps_and_at_the_last(fit):
    losses = Losses(3.0, 2.0)
    _, _, progress = trained(fit, losses, every=4)
    looked = [event["step"] for event in progress.events if "public_loss" in event["dp"]]
    assert looked == [4, 6]


@pytest.mark.parametrize(("values", "taken"), [((3, 2, 3, 3), 4), ((3, 4, 2, 4, 4), 5)])
def test_training_ends_when_patience_does_and_the_rest_is_forgone(fit, values, taken):
    losses = Losses(*map(float, values))
    model, charged, progress = trained(fit, losses, patience=2)
    assert (progress.step, progress.finished) == (taken, True)
    steps = [("charge", 1, step) for step in range(taken)]
    assert charged == [*steps, ("forgo", 1), ("commit", 1, taken - 2)]
    assert all(torch.equal(a, b) for a, b in zip(weights(model), losses.seen[taken - 3]))


@pytest.mark.parametrize("high", [4.1, math.nan, math.inf])
def test_a_jump_of_the_public_loss_ends_training_and_the_weights_go_back(fit, high):
    losses = Losses(5.0, 3.0, 4.0, high, 1.0, 1.0)
    model, charged, progress = trained(fit, losses, jump=1.0)
    assert (progress.step, progress.best.step, progress.finished) == (4, 2, True)
    assert charged[-2:] == [("forgo", 1), ("commit", 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(weights(model), losses.seen[1]))


def test_without_being_asked_no_jump_ends_anything(fit):
    assert trained(fit, Losses(5.0, 3.0, 4.0, 99.0, 5.0, 6.0))[2].step == 6


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_never_the_best(fit, value):
    losses = Losses(value, 5.0, value, 4.0, value, value)
    assert trained(fit, losses)[2].best.step == 4


def test_what_was_best_survives_a_resume(fit):
    class Crash(Exception):
        pass

    def crash(done, total):
        if done == 4:
            raise Crash

    first = Losses(2.0, 1.0, 3.0, 3.0)
    with pytest.raises(Crash):
        trained(fit, first, report=crash)
    model = a_model(seed=7)
    later = PublicLoss(Losses(3.0, math.inf, 3.0), 1, None)
    progress = fit(model, Numbered(documents()), a_plan(), charges=Noting(), public=later)
    assert (progress.best.step, progress.best.loss, progress.best.worse) == (2, 1.0, 4)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), first.seen[1]))


def test_the_claim_is_that_of_the_whole_plan_whenever_training_ends(fit, tmp_path):
    """The commit is cut off by a crash at first; and what is claimed is counted by hand."""
    plan = a_plan(units=60, expected_batch_size=30)
    ledger = Ledger.register(tmp_path / "ledger", epsilon=1e6, delta=1e-3, corpus="small")

    class Cut(LedgerCharges):
        def commit(self, attempt, steps):
            raise RuntimeError("killed")

    losses = PublicLoss(Losses(1.0, 2.0, 2.0), 1, 2)
    fitted = a_model()
    with pytest.raises(RuntimeError, match="killed"):
        fit(fitted, Numbered(documents()), plan, charges=Cut(ledger, "run", plan), public=losses)
    again = a_model(seed=5)
    charges = LedgerCharges(ledger, "run", plan)
    progress = fit(again, Numbered(documents()), plan, charges=charges, public=losses)
    summary = ledger.summary("run")
    assert (progress.step, progress.best.step) == (3, 1)
    assert all(torch.equal(a, b) for a, b in zip(weights(fitted), weights(again)))
    assert (summary["committed_steps"], summary["charged_steps"]) == (1, 6)
    assert summary["claimed_steps"] == summary["billed_steps"] == plan.steps
    whole = epsilon_of(plan.accountant, plan.composition(), plan.delta)
    assert float(summary["epsilon"]) == pytest.approx(whole, rel=1e-6)
    assert "an earlier step was kept" in statement(plan, what="it", summary=summary).note
    fewer = epsilon_of(plan.accountant, plan.composition(steps=3), plan.delta)
    assert fewer < 0.99 * whole
    ledger.verify()


class Stopped(Losses):
    """A loss as told, whose look of a number is cut off by SIGTERM."""

    def __init__(self, *values, at):
        super().__init__(*values)
        self._at = at

    def __call__(self, model, asked_to_stop):
        if len(self.seen) + 1 < self._at:
            return super().__call__(model, asked_to_stop)
        self.seen.append(weights(model))
        signal.raise_signal(signal.SIGTERM)
        return None if asked_to_stop() else 0.0


def stopped_and_resumed(fit, values, at):
    """Both halves of a training that is stopped within a look: losses, charges and progress."""
    charges, halves = Noting(), (Stopped(*values[: at - 1], at=at), Losses(*values[at - 1 :]))
    for losses in halves:
        model, plan, public = a_model(), a_plan(), PublicLoss(losses, 1, 2)
        try:
            progress = fit(model, Numbered(documents()), plan, charges=charges, public=public)
        except Interrupted:
            assert charges.seen[-1] == ("charge", 1, at - 1)
    return halves, charges.seen, progress


@pytest.mark.parametrize("at", [1, 3, 4, 5])
def test_a_look_that_a_stop_cuts_off_is_made_again_before_another_step(fit, at):
    """Also where it is the one that ends the training: no step follows."""
    values = (3.0, 4.0, 2.0, 4.0, 4.0)
    (first, second), charged, progress = stopped_and_resumed(fit, values, at)
    assert all(torch.equal(a, b) for a, b in zip(first.seen[-1], second.seen[0]))
    assert [event["dp"]["public_loss"] for event in progress.events] == list(values)
    assert (progress.step, progress.best.step, progress.finished) == (5, 3, True)
    taken = [entry[2] for entry in charged if entry[0] == "charge"]
    assert taken == list(range(5))
    ends = 1 if at == 5 else 2
    assert charged[-2:] == [("forgo", ends), ("commit", ends, 3)]


def test_a_stop_within_the_look_at_the_last_step_leaves_it_to_be_made(fit):
    values = (5.0, 4.0, 3.0, 2.0, 1.0, 0.5)
    (first, second), charged, progress = stopped_and_resumed(fit, values, 6)
    assert all(torch.equal(a, b) for a, b in zip(first.seen[-1], second.seen[0]))
    assert (progress.step, progress.best.step, progress.finished) == (6, 6, True)
    assert charged[-2:] == [("charge", 1, 5), ("commit", 1, 6)]


def test_a_look_that_is_stopped_again_is_still_owed(fit):
    charges, public = Noting(), PublicLoss(Stopped(at=1), 1, None)
    for _ in range(2):
        with pytest.raises(Interrupted):
            fit(a_model(), Numbered(documents()), a_plan(), charges=charges, public=public)
    assert charges.seen == [("charge", 1, 0)]
    losses = Losses(*map(float, range(6)))
    progress = fit(
        a_model(), Numbered(documents()), a_plan(), charges=charges,
        public=PublicLoss(losses, 1, None),
    )  # fmt: skip
    assert [event["dp"]["public_loss"] for event in progress.events] == [0, 1, 2, 3, 4, 5]
    assert progress.best.step == 1


def test_steps_that_were_not_forgone_would_be_claimed_too_low(fit, tmp_path, monkeypatch):
    """The check above goes red without the charge of the rest."""
    plan = a_plan(units=60, expected_batch_size=30)
    ledger = Ledger.register(tmp_path / "ledger", epsilon=1e6, delta=1e-3, corpus="small")
    monkeypatch.setattr(LedgerCharges, "forgo", lambda *_: None)
    losses = PublicLoss(Losses(1.0, 2.0, 2.0), 1, 2)
    charges = LedgerCharges(ledger, "run", plan)
    fit(a_model(), Numbered(documents()), plan, charges=charges, public=losses)
    assert ledger.summary("run")["claimed_steps"] == 3


def test_correlated_noise_is_refused_before_a_charge(fit):
    charges = Noting()
    plan = a_plan(bands=2, coefficients=(0.9, 0.4), sampler="cyclic Poisson")
    with pytest.raises(UserError, match="accounted for over all steps"):
        fit(
            a_model(), Numbered(documents()), plan, charges=charges,
            public=PublicLoss(Losses(), 1, None),
        )  # fmt: skip
    assert charges.seen == []


def test_it_ends_training_on_twelve_documents_that_are_learnt_by_heart(fit, tmp_path):
    """Overfitting, caused: the loss on other text falls, rises, and the best weights are kept."""
    from dpmlm.clipping import evaluate_batch
    from dpmlm.training.units import View

    recipe = a_recipe(learning_rate=3e-2, checkpoint_minutes=1e9)
    others = recipe.batch([[View(example, 0)] for example in documents(40)[20:]])
    model = a_model(hidden_size=32)
    losses = []

    def loss(model, asked_to_stop=None):
        found = evaluate_batch(model, others)
        losses.append(found.loss_sum / found.weight_sum)
        return losses[-1]

    plan = a_plan(
        units=12, expected_batch_size=12.0, steps=200, noise_multiplier=0.01, max_grad_norm=5.0
    )
    progress = fit(
        model, Numbered(documents()), plan, recipe, charges=Noting(),
        public=PublicLoss(loss, 5, 4),
    )  # fmt: skip
    assert progress.step < 200
    assert losses[-1] > min(losses)
    kept = min(losses)
    assert loss(model) == pytest.approx(kept, rel=1e-5)


def test_who_does_not_look_keeps_the_last_step(fit):
    choice = PublicChoice(None, a_plan(), None)
    assert not choice.due(6)
    assert not choice.enough
    assert choice.settle(a_model()) is None


def test_where_an_average_is_kept_it_is_looked_at_and_released(fit):
    """The third look is the best; training itself goes on from the weights, not the average."""
    losses, trained_on = Losses(5.0, 4.0, 3.0, 4.0, 5.0, 6.0), []
    model = a_model()
    fit(
        model, Numbered(documents()), a_plan(), a_recipe(average=0.5), charges=Noting(),
        public=PublicLoss(losses, 1, None),
        report=lambda done, total: trained_on.append(weights(model)),
    )  # fmt: skip
    shares = [0.5 ** (2 - step) * 0.5 / (1 - 0.5**3) for step in range(3)]
    for name, released in enumerate(weights(model)):
        by_hand = sum(share * step[name].double() for share, step in zip(shares, trained_on))
        torch.testing.assert_close(released.double(), by_hand, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), losses.seen[2]))
