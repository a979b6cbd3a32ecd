"""Every column does the work that its name says: gradients agree where they must."""

import math
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from dpmlm.bench.steps import STEPS
from dpmlm.clipping import clip_and_sum

PEERS = ("opacus_hooks", "opacus_ghost")


def gradients(work, column, max_grad_norm=math.inf, batch=None):
    """Gradient by name of the parameter; a decoder that is not tied counts to the embedding."""
    step = STEPS[column].step(work, max_grad_norm)
    step.run(work.batch() if batch is None else batch)
    found = {
        name.removeprefix("_module."): p.grad.clone() for name, p in step.model.named_parameters()
    }
    untied = [name for name in found if name.endswith("decoder.weight")]
    embedding = next(name for name in found if "embeddings" in name)
    for name in untied:
        found[embedding] += found.pop(name)
    step.clear()
    assert all(p.grad is None for p in step.model.parameters())
    return found


def same(ours, theirs, rtol=2e-4, atol=1e-7):
    """Biases that a peer has and ours lacks, or names by another alias, are left out.

    A key's bias has gradient 0 but for rounding: `atol` is for it.
    """
    shared = ours.keys() & theirs.keys()
    assert len(shared) >= len(ours) - 1
    for name in shared:
        size = float(ours[name].norm())
        assert size > 0, name
        assert float((ours[name] - theirs[name]).norm()) <= rtol * size + atol, name


def test_own_gradient_is_the_plain_one_up_to_the_normaliser(work):
    plain, own = gradients(work, "plain"), gradients(work, "own")
    assert plain.keys() == own.keys()
    same(own, {name: g * work.rows for name, g in plain.items()})


def test_private_without_clipping_is_the_own_sum(work):
    same(gradients(work, "own"), gradients(work, "private", math.inf))


compiled = [
    pytest.mark.full,
    pytest.mark.skipif(shutil.which("c++") is None, reason="torch compiles with c++, not found"),
]


@pytest.mark.parametrize(
    "column",
    ["private_recomputed", "private_rows"],
)
def test_other_ways_give_the_same_clipped_sum(bert, column):
    bound = 0.05
    same(gradients(bert, "private", bound), gradients(bert, column, bound))


@pytest.mark.parametrize(
    "column", [pytest.param("plain_compiled", marks=compiled), "plain_recomputed"]
)
def test_other_ways_of_the_plain_step_give_its_gradient(bert, column):
    same(gradients(bert, "plain"), gradients(bert, column))


@pytest.mark.parametrize("column", PEERS)
def test_peers_without_clipping_give_the_same_sum(work, column):
    ours, theirs = gradients(work, "private", math.inf), gradients(work, column, 1e6)
    same(ours, theirs)
    bias = "cls.predictions.decoder.bias"
    if bias in theirs:  # the bias that one name was taken from is trained all the same
        assert torch.allclose(theirs[bias], ours["cls.predictions.bias"], atol=1e-6)


def test_hooks_clip_to_the_same_sum(work):
    """A tied model has the same norms, so at a bound that clips the sums agree too."""
    model = work.build()
    bound = float(clip_and_sum(model, work.batch(), math.inf).norms.median())
    free, clipped = gradients(work, "private", math.inf), gradients(work, "private", bound)
    same(clipped, gradients(work, "opacus_hooks", bound))
    name = next(iter(free))
    assert not torch.allclose(free[name], clipped[name])


@pytest.mark.parametrize(
    "column", [pytest.param(c, marks=compiled if "compiled" in c else []) for c in STEPS]
)
def test_a_run_leaves_nothing_for_the_next(work, column):
    step = STEPS[column].step(work)
    seen = []
    for _ in range(2):
        step.run(work.batch())
        seen.append([p.grad.clone() for p in step.model.parameters()])
        step.clear()
    for first, second in zip(*seen):
        assert torch.equal(first, second)


def test_plain_is_the_mean_over_masked_tokens_of_the_batch(bert):
    batch, model = bert.batch(), bert.build()
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    picked = logits[torch.arange(len(batch))[:, None], batch.masked_positions]
    loss = nn.functional.cross_entropy(picked.flatten(0, 1), batch.masked_labels.flatten())
    loss.backward()
    found = gradients(bert, "plain")
    same({n: p.grad for n, p in model.named_parameters()}, found, rtol=1e-5)


def test_workload_is_the_same_every_time_and_has_no_dropout(work):
    first, second = work.build(), work.build()
    for a, b in zip(first.parameters(), second.parameters()):
        assert torch.equal(a, b)
    assert torch.equal(work.batch().input_ids, work.batch().input_ids)
    assert first.training
    assert all(m.p == 0 for m in first.modules() if isinstance(m, nn.Dropout))
    assert work.batch().masked_positions.shape == (4, work.slots)


def test_bfloat16_runs_our_columns(bert):
    low = replace(bert, precision="bfloat16")
    for column in ("plain", "own", "private"):
        same(gradients(bert, column), gradients(low, column), rtol=0.1, atol=1e-5)
