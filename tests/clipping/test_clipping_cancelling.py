"""Positions that cancel: a norm is never told too small, whatever it is summed of."""

import pytest
import torch
from microbatch import awkward_batch, tiny_model, vector
from variants import rest_in_full

from dpmlm.clipping import FLOAT32_TAU, clip_and_sum
from dpmlm.clipping.layers import linear
from dpmlm.clipping.layers.term import ROUNDING

SHAPES = [(128, 256, 1024), (130, 768, 768), (512, 256, 256), (20, 256, 30_522)]


def cancelling(positions, inputs, outputs, common, seed):
    """Inputs with a common part, output gradients that add up to zero, as a key projection has."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(1, 1, inputs, generator=generator) * common
    a = a + torch.randn(1, positions, inputs, generator=generator)
    g = torch.randn(1, positions, outputs, generator=generator)
    return a, g - g.mean(1, keepdim=True)


def relative_error(a, g) -> float:
    true = torch.bmm(g.double().mT, a.double()).square().sum().sqrt()
    return float(linear.gram_inner(a, g).clamp_min(0).sqrt() / true - 1)


@pytest.mark.parametrize("common", rest_in_full([0, 1, 30, 1000, 30_000], [0, 30, 30_000]))
@pytest.mark.parametrize("shape", SHAPES)
def test_a_norm_is_not_told_too_small(shape, common):
    assert min(relative_error(*cancelling(*shape, common, seed)) for seed in range(3)) > -1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_where_nothing_cancels_it_is_as_exact_as_tau_allows(shape):
    assert abs(relative_error(*cancelling(*shape, 0, 0))) < FLOAT32_TAU / 10


def test_without_the_allowance_it_would_be_told_too_small(monkeypatch):
    """Which way a sum is rounded is as good as a coin, and another one on each processor."""
    monkeypatch.setattr(linear, "ROUNDING", 0.0)
    worst = min(
        relative_error(*cancelling(128, 768, 768, common, seed))
        for common in (1000, 30_000)
        for seed in range(12)
    )
    assert worst < -1e-3
    assert ROUNDING > 0


def test_a_unit_whose_positions_cancel_stays_below_the_bound():
    """Key weights alone are trained, on a row of one repeated token far from all others."""
    model = tiny_model("bert")
    for name, param in model.named_parameters():
        param.requires_grad_("key.weight" in name)
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.bias.mul_(0).add_(300.0)
    batch = awkward_batch(0)
    for row in range(len(batch)):
        model.zero_grad()
        alone = batch.rows(slice(row, row + 1))
        clip_and_sum(model, alone, 1e-12)
        added = float(
            vector({n: p.grad for n, p in model.named_parameters() if p.requires_grad}).norm()
        )
        assert added <= 1e-12 * (1 + 1e-6)


def test_nothing_as_large_as_the_vocabulary_is_formed_for_a_unit():
    assert not linear.forming_is_cheaper(76, 128, 30_522)
    assert not linear.forming_is_cheaper(8 * 19, 256, 30_522)
    assert not linear.forming_is_cheaper(10_000, 256, 30_522)
    assert linear.forming_is_cheaper(512, 768, 3072)
    assert linear.forming_is_cheaper(128, 8, 768)  # an adapter's
