"""Gradient canaries in the loop: directions, transcript, resume, refusals, faults."""

import math
import shutil

import numpy as np
import pytest
import torch
from small_training import Charges, Numbered, a_model, a_plan, a_recipe, documents, weights

from audits.claim.whitebox import Transcript, judge_whitebox, plan_gradient_canaries
from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.noise import NOISE_SOURCES, REPRODUCIBLE_NOISE
from dpmlm.training import GradientCanaries, gradients, loop, optimizer
from dpmlm.training.gradients import PlantedGradients

COUNT = 120
SET = plan_gradient_canaries(COUNT, secret=b"canaries")
CANARIES = GradientCanaries(COUNT, SET.members, bytes.fromhex(SET.seed))
STRONG = {"units": 1000, "expected_batch_size": 200.0, "noise_multiplier": 1.3, "epsilon": 4.0}
SELDOM = a_recipe(checkpoint_minutes=1e9)


class Crash(Exception):
    pass


def crash_at(step):
    def report(done, total):
        if done == step:
            raise Crash

    return report


def all_included(count):
    return GradientCanaries(count, tuple(range(count)), b"s" * 32)


def flat(params):
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
    return torch.cat([grad.flatten() for grad in grads]).double()


@pytest.fixture
def directions():
    """(planted, parameters, what each canary adds at step 2, float64 [canaries, parameters])."""
    params, plan = list(a_model().parameters()), a_plan()
    planted = PlantedGradients(all_included(COUNT), params, plan)
    rows = []
    for number in range(COUNT):
        for param in params:
            param.grad = torch.zeros_like(param)
        planted.draw(2, [number])
        planted.add()
        rows.append(flat(params))
    return planted, params, torch.stack(rows)


def test_a_canary_adds_a_direction_of_the_clipping_norm_and_none_touches_another(directions):
    _, _, rows = directions
    norms, bound = rows.norm(dim=1), a_plan().max_grad_norm
    assert float(norms.max()) <= bound
    assert float(norms.min()) >= bound * (1 - 2e-5)
    products = rows @ rows.T
    assert float((products - products.diag().diag()).abs().max()) == 0
    # Not the first parameters alone, and either sign as often.
    used = rows.abs().sum(dim=0) > 0
    assert int(used.sum()) > 0.9 * len(used)
    assert abs(float(rows[rows != 0].sign().mean())) < 0.1


def test_several_drawn_add_up_and_signs_are_drawn_anew_each_step(directions):
    planted, params, rows = directions
    found = []
    for step in (2, 3):
        for param in params:
            param.grad = None
        planted.draw(step, [5, 70])
        planted.add()
        found.append(flat(params))
    both = rows[5] + rows[70]
    assert torch.equal(found[0], both)
    assert torch.equal(found[1] != 0, both != 0)
    assert abs(float(found[1] @ both)) < 0.9 * float(both @ both)


def test_what_is_observed_is_the_product_with_each_direction(directions):
    planted, params, rows = directions
    plan = a_plan()
    rng = torch.Generator().manual_seed(1)
    noised = [torch.randn(p.shape, generator=rng) for p in params]
    for param, value in zip(params, noised):
        param.grad = value / plan.expected_batch_size
    planted.draw(2, [])
    planted.observe()
    whole = torch.cat([value.flatten() for value in noised]).double()
    units = rows / rows.norm(dim=1, keepdim=True)
    expected = (units @ whole) / plan.max_grad_norm
    np.testing.assert_allclose(planted.transcript[2], expected.numpy(), atol=1e-5)


@pytest.fixture
def fixed_key(monkeypatch):
    """Samples and noise that are the same each time: no alarm by chance."""
    monkeypatch.setattr(loop.secrets, "token_bytes", lambda count: b"k" * count)


def trained(fit, plan=None, canaries=CANARIES, **more):
    plan = plan or a_plan(steps=20, **STRONG)
    progress = fit(a_model(), Numbered(documents()), plan, SELDOM, gradients=canaries, **more)
    return plan, progress.transcript


def judged(plan, transcript):
    part = judge_whitebox(SET, Transcript(transcript, plan.digest, SET.commitment), plan.to_json())
    assert part["applicable"]
    return part


@pytest.mark.parametrize(
    "noise", ["gaussian", pytest.param("discrete_gaussian", marks=pytest.mark.full)]
)
def test_a_training_leaves_a_transcript_that_does_not_accuse_it(fit, noise, fixed_key):
    source = NOISE_SOURCES[noise]
    plan, transcript = trained(fit, a_plan(steps=20, noise=noise, noise_source=source, **STRONG))
    assert transcript.shape == (20, COUNT)
    assert transcript.dtype == np.float32
    coins = np.array(SET.included)
    # Drawn at a rate of 0.2: five standard deviations of the mean of 20 x 60 projections.
    assert transcript[:, coins].mean() == pytest.approx(0.2, abs=5 * 1.4 / math.sqrt(20 * 60))
    assert transcript[:, ~coins].mean() == pytest.approx(0, abs=5 * 1.4 / math.sqrt(20 * 60))
    assert transcript[:, ~coins].std() == pytest.approx(1.3, rel=0.1)
    part = judged(plan, transcript)
    assert part["rejected_by"] == []
    assert part["correct"] >= 13  # of 24


def test_half_the_noise_is_caught(fit, monkeypatch, fixed_key):
    noise = optimizer.gaussian_noise
    monkeypatch.setattr(
        optimizer, "gaussian_noise", lambda shape, std, *more, **names: noise(
            shape, std / 2, *more, **names
        )
    )  # fmt: skip
    assert "noise" in judged(*trained(fit))["rejected_by"]


@pytest.mark.full
def test_canaries_of_twice_the_clipping_norm_are_caught(fit, monkeypatch, fixed_key):
    monkeypatch.setattr(gradients, "FLOAT32_TAU", -0.5)
    assert "drawn" in judged(*trained(fit))["rejected_by"]


def test_canaries_that_are_not_included_leave_the_training_as_it_is(fit):
    """Text is drawn, clipped and noised as without them."""
    plan = a_plan(steps=3, noise_seed=3, noise_source=REPRODUCIBLE_NOISE)
    models = [a_model() for _ in range(3)]
    units = [Numbered(documents(20)) for _ in range(3)]
    none_in = GradientCanaries(30, (), b"s" * 32)
    given = [{}, {"gradients": none_in}, {"gradients": all_included(30)}]
    for index, more in enumerate(given):
        fit(models[index], units[index], plan, SELDOM, folder=f"run-{index}", **more)
    without, unused, used = (torch.cat([w.flatten() for w in weights(m)]) for m in models)
    assert torch.equal(without, unused)
    assert not torch.equal(without, used)
    # Names of text are the first of those drawn from: the same units, and no index of a canary.
    assert units[0].asked == units[1].asked == units[2].asked


def test_a_step_drawn_again_leaves_the_row_of_the_attempt_that_stands(fit, monkeypatch):
    seen, observe = [], PlantedGradients.observe

    def watched(planted):
        observe(planted)
        seen.append(planted.transcript[-1].copy())

    monkeypatch.setattr(PlantedGradients, "observe", watched)
    plan, recipe = a_plan(steps=6, **STRONG), a_recipe()
    given = {"gradients": CANARIES}
    with pytest.raises(Crash):
        fit(a_model(), Numbered(documents()), plan, recipe, report=crash_at(4), **given)
    progress = fit(a_model(), Numbered(documents()), plan, recipe, **given)
    assert len(seen) == 4 + 3  # step 3 of the first attempt was never kept
    assert not np.allclose(seen[3], seen[4])
    expected = np.stack([*seen[:3], *seen[4:]])
    assert np.array_equal(progress.transcript, expected)
    # A run that was killed before its commit still has it.
    again = fit(a_model(), Numbered(documents()), plan, recipe, **given)
    assert np.array_equal(again.transcript, expected)


def test_a_training_goes_on_with_the_canaries_that_it_was_begun_with(fit, tmp_path):
    plan, recipe = a_plan(steps=6, **STRONG), a_recipe()
    for count, goes_on in ((0, CANARIES), (30, CANARIES), (30, all_included(0))):
        begun = {"gradients": all_included(count)}
        with pytest.raises(Crash):
            fit(a_model(), Numbered(documents()), plan, recipe, report=crash_at(2), **begun)
        with pytest.raises(IntegrityError, match="a checkpoint of 1 steps"):
            fit(a_model(), Numbered(documents()), plan, recipe, gradients=goes_on)
        shutil.rmtree(tmp_path / "checkpoints")


BANDED = {"bands": 2, "coefficients": (0.8, 0.6), "sampler": "cyclic Poisson"}
CUT = {"max_batch_size": 90, "sampler": "truncated Poisson", "accountant": "pld"}
SILENT = {"epsilon": math.inf, "noise_multiplier": 0.0, "noise_source": "none"}


@pytest.mark.parametrize(
    ("changes", "canaries", "said"),
    [
        (BANDED, CANARIES, "bands 2 with gradient canaries"),
        (CUT, CANARIES, "max_batch_size 90 with gradient canaries"),
        (SILENT, CANARIES, "a plan without noise with gradient canaries"),
        ({}, all_included(10**5), "100000 gradient canaries"),
    ],
    ids=["bands", "cut", "silent", "many"],
)
def test_what_would_show_nothing_is_refused_before_a_charge(fit, changes, canaries, said):
    charges = Charges()
    with pytest.raises(UserError, match=said):
        trained(fit, a_plan(**changes), canaries, charges=charges)
    assert charges.attempts == 0
    assert charges.seen == []
