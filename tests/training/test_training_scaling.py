"""Scales from public text, and a training with them."""

import math
import os
import signal
from contextlib import nullcontext

import pytest
import torch
from small_training import (
    Every,
    Numbered,
    a_model,
    a_plan,
    a_recipe,
    documents,
    weights,
    without_noise,
)

from dpmlm.clipping import Scale
from dpmlm.errors import UserError
from dpmlm.training import Interrupted, loop, public_scales, scaling
from dpmlm.training.scaling import GROUP
from dpmlm.training.units import View

VIEWS = [View(example, visit) for visit in range(3) for example in documents()]


def by_autograd(model, recipe):
    """The naive twin: mean over the groups of squared gradients of a group's summed loss."""
    squares = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    groups = [VIEWS[begin : begin + GROUP] for begin in range(0, len(VIEWS), GROUP)]
    for group in groups:
        model.zero_grad()
        batch = recipe.batch([[view] for view in group])
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        for row in range(len(group)):
            used = batch.masked_weights[row] > 0
            if used.any():
                at = logits[row, batch.masked_positions[row, used]]
                torch.nn.functional.cross_entropy(at, batch.masked_labels[row, used]).backward(
                    retain_graph=True
                )
        for name, p in model.named_parameters():
            if p.grad is not None:
                squares[name] += p.grad.square() / len(groups)
    model.zero_grad()
    return squares


def test_they_follow_the_gradients_of_public_text():
    model, recipe = a_model().eval(), a_recipe()
    found = public_scales(model, VIEWS, recipe, 0.25)
    squares = by_autograd(model, recipe)
    assert found.keys() == squares.keys()
    total = sum(float((s * found[name].full().square()).sum()) for name, s in squares.items())
    assert total == pytest.approx(sum(float(s.sum()) for s in squares.values()), rel=1e-4)
    name = "bert.encoder.layer.0.output.dense.weight"
    square = squares[name]
    lines = square.mean(1) + 0.01 * square.mean()
    expected = (lines / lines[0]).pow(-0.25)
    torch.testing.assert_close(
        found[name].factors[0] / found[name].factors[0][0], expected, rtol=1e-4, atol=0
    )


def test_nothing_of_the_model_changes_and_they_are_the_same_again():
    model, recipe = a_model(), a_recipe()
    model.bert.embeddings.position_embeddings.requires_grad_(False)
    before = weights(model)
    first, second = (public_scales(model, VIEWS, recipe, 0.25) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model)))
    assert all(p.grad is None for p in model.parameters())
    assert "bert.embeddings.position_embeddings.weight" not in first
    for name, scale in first.items():
        assert torch.equal(scale.full(), second[name].full())


@pytest.mark.parametrize("limit", [1 << 18, None])
def test_they_are_the_same_whatever_fits_into_memory(monkeypatch, limit):
    """By a limit that is given, or where memory runs out with more than five rows."""
    whole, rows, work = some_scales(), [], scaling.clip_and_sum

    def counted(model, batch, norm):
        if limit is None and len(batch) > 5:
            raise torch.OutOfMemoryError
        rows.append(len(batch))
        return work(model, batch, norm)

    monkeypatch.setattr(scaling, "clip_and_sum", counted)
    with nullcontext() if limit else pytest.warns(UserWarning, match="memory ran out"):
        found = some_scales(physical_batch_size=16, memory_limit=limit)
    assert 1 < max(rows) < GROUP
    assert sum(rows) == len(VIEWS)
    for name, scale in whole.items():
        torch.testing.assert_close(found[name].full(), scale.full(), rtol=1e-4, atol=0)


@pytest.fixture
def by_parity(monkeypatch, known_exact):
    """Batches without chance, so that two trainings see the same."""
    monkeypatch.setattr(loop, "PoissonSampler", Every)


def moved(fit, scales, plan, folder, **settings):
    """What a training makes of the first weights."""
    model = a_model().eval()
    fit(model, Numbered(documents()), plan, a_recipe(scales=scales, **settings), folder=folder)
    return torch.cat([w.flatten() for w in weights(model)])


def some_scales(**settings):
    return public_scales(a_model().eval(), VIEWS, a_recipe(**settings), 0.5)


def test_without_clipping_and_noise_adamw_goes_the_same_way(fit, by_parity):
    """So that scales change what is clipped and what noise meets, and nothing else."""
    plan = without_noise(max_grad_norm=math.inf, steps=1)
    plain = moved(fit, None, plan, "plain")
    scaled = moved(fit, some_scales(), plan, "scaled")
    begun = torch.cat([w.flatten() for w in weights(a_model())])
    steps = (plain - begun).abs()
    far = steps > 0.999 * steps.max()  # else gradients are as small as AdamW's epsilon
    assert far.float().mean() > 0.5
    assert ((plain - scaled).abs()[far] < 0.01 * steps.max()).float().mean() > 0.95


def test_with_clipping_it_goes_another_way(fit, by_parity):
    plan = without_noise(max_grad_norm=0.05)
    plain = moved(fit, None, plan, "plain")
    scaled = moved(fit, some_scales(), plan, "scaled")
    assert ((plain - scaled).abs() > 1e-3 * 1e-2).float().mean() > 0.5


def test_an_interrupted_training_with_scales_ends_as_one_that_was_not(fit, by_parity):
    plan, scales = without_noise(max_grad_norm=0.05), some_scales()
    whole = moved(fit, scales, plan, "whole")
    model = a_model().eval()
    recipe = a_recipe(scales=scales)

    def stop(done, total):
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        fit(model, Numbered(documents()), plan, recipe, folder="parts", report=stop)
    again = a_model().eval()
    fit(again, Numbered(documents()), plan, recipe, folder="parts")
    torch.testing.assert_close(
        torch.cat([w.flatten() for w in weights(again)]), whole, rtol=0, atol=1e-6
    )


def test_scales_of_another_model_are_refused(fit, by_parity):
    scales = {name: Scale(one.factors[:1]) for name, one in some_scales().items()}
    with pytest.raises(UserError, match="one of its own shape"):
        moved(fit, scales, a_plan(), "other")
