"""Norms and clipped sums against one-unit-at-a-time autograd."""

from dataclasses import replace

import pytest
import torch
from microbatch import (
    FAMILIES,
    assert_same,
    awkward_batch,
    grads,
    micro_batch,
    tiny_model,
    vector,
)
from small_models import small_model
from variants import rest_in_full

from dpmlm.clipping import FLOAT32_TAU, clip_and_sum
from dpmlm.clipping.layers import linear
from dpmlm.clipping.layers.linear import OuterTerm
from dpmlm.clipping.scratch import Scratch
from dpmlm.clipping.units import UnitLayout

REFERENCE = {}
KINDS = [*FAMILIES, "mpnet", "squeezebert"]


def case(family, tied):
    if (family, tied) not in REFERENCE:
        model = tiny_model(family, tied=tied)
        batch = awkward_batch(model.config.pad_token_id)
        REFERENCE[family, tied] = model, batch, micro_batch(model, batch)
    return REFERENCE[family, tied]


def check(model, batch, truth, bound, tau=FLOAT32_TAU):
    model.zero_grad()
    result = clip_and_sum(model, batch, bound, tau=tau)
    assert result.norms.dtype == result.losses.dtype == torch.float32
    torch.testing.assert_close(result.losses, truth.losses, rtol=1e-5, atol=0)
    torch.testing.assert_close(result.norms.double(), truth.norms, rtol=1e-5, atol=0)
    assert_same(grads(model), truth.clipped(bound, tau))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("times_median", [1e-4, 1.0, 1e4, float("inf")])
def test_rows_as_units(family, tied, times_median):
    model, batch, truth = case(family, tied)
    assert truth.norms[2] == 0
    assert (truth.norms[[0, 1, 3, 4, 5, 6]] > 0).all()
    check(model, batch, truth, times_median * float(truth.norms.median()))


@pytest.mark.parametrize("forms", [True, False], ids=["formed", "gram"])
@pytest.mark.parametrize("family", FAMILIES)
def test_both_ways_of_a_linear_norm(family, forms, monkeypatch):
    monkeypatch.setattr(linear, "forming_is_cheaper", lambda *_: forms)
    model, batch, truth = case(family, True)
    check(model, batch, truth, float(truth.norms.median()))


@pytest.mark.parametrize("forms", [True, False], ids=["formed", "gram"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_units_of_several_rows_far_apart(family, tied, forms, monkeypatch):
    monkeypatch.setattr(linear, "forming_is_cheaper", lambda *_: forms)
    model, batch, _ = case(family, tied)
    # unit 2 is in no row; unit 4 is the weightless row alone
    batch = replace(batch, unit_index=torch.tensor([3, 0, 4, 1, 0, 3, 3]))
    truth = micro_batch(model, batch)
    assert truth.norms[2] == truth.norms[4] == 0
    check(model, batch, truth, float(truth.norms[[0, 1, 3]].median()))


def test_units_in_another_order_than_rows():
    model, batch, truth = case("bert", True)
    order = torch.tensor([4, 0, 3, 6, 1, 2, 5])
    result = clip_and_sum(model, replace(batch, unit_index=order), 1.0)
    torch.testing.assert_close(result.norms[order].double(), truth.norms, rtol=1e-5, atol=0)


@pytest.mark.parametrize("quantile", rest_in_full([0.5, 0.9, None], [0.5]))
@pytest.mark.parametrize("kind", rest_in_full(KINDS, ["bert", "mpnet", "squeezebert"]))
def test_the_sum_does_not_depend_on_micro_batches_or_order(kind, quantile):
    """Micro-batches of 1, of 3 and of all rows, in three orders, to 1e-6 in float32."""
    model = tiny_model(kind) if kind in FAMILIES else small_model(kind)
    batch = awkward_batch(model.config.pad_token_id)
    norms = clip_and_sum(model, batch, 1.0).norms
    bound = float("inf") if quantile is None else float(norms.quantile(quantile))

    def summed(order, size):
        model.zero_grad()
        ordered, found = batch.rows(torch.tensor(order)), []
        for start in range(0, len(order), size):
            part = ordered.rows(slice(start, start + size))
            found.append(clip_and_sum(model, part, bound).norms)
        back = torch.cat(found)[torch.tensor(order).argsort()]
        return vector(grads(model)), back

    whole, _ = summed(list(range(7)), 7)
    for order in (list(range(7)), [4, 0, 3, 6, 1, 2, 5], [6, 5, 4, 3, 2, 1, 0]):
        for size in (1, 3, 7):
            moved, again = summed(order, size)
            assert float((moved - whole).norm()) <= 1e-6 * float(whole.norm())
            torch.testing.assert_close(again, norms, rtol=1e-6, atol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_kinds_bool_mask_token_types_and_chunks(family, attention):
    chunks = 2 if family != "roberta" else 0
    model = tiny_model(family, attn_implementation=attention, chunk_size_feed_forward=chunks)
    batch = awkward_batch(model.config.pad_token_id)
    types = torch.zeros_like(batch.input_ids)
    if family == "bert":
        types[:, 5:] = 1
    batch = replace(batch, attention_mask=batch.attention_mask.bool())
    if family != "distilbert":
        batch = replace(batch, token_type_ids=types)
    truth = micro_batch(model, batch)
    check(model, batch, truth, float(truth.norms.median()))


@pytest.mark.parametrize(
    "frozen",
    [
        lambda name: "word_embeddings" in name,
        lambda name: "embeddings" in name,
        lambda name: "embeddings" in name or "layer.0." in name,
        lambda name: "bias" in name,
        lambda name: "word_embeddings" not in name,
        lambda name: "LayerNorm.weight" in name or "query.weight" in name,
    ],
)
def test_frozen_parameters_are_left_out_exactly(frozen):
    model = tiny_model("bert")
    for name, param in model.named_parameters():
        param.requires_grad_(not frozen(name))
    batch = awkward_batch(0)
    truth = micro_batch(model, batch)
    check(model, batch, truth, float(truth.norms.median()))
    assert all(p.grad is None for n, p in model.named_parameters() if frozen(n))


@pytest.mark.parametrize("row", [0, 1, 3])
def test_one_row_alone(row):
    model = tiny_model("roberta")
    batch = awkward_batch(1).rows(slice(row, row + 1))
    check(model, batch, micro_batch(model, batch), 0.5)


def test_a_position_named_twice_counts_twice_and_weights_may_be_fractions():
    model = tiny_model("distilbert")
    batch = awkward_batch(0).rows(torch.tensor([0, 4, 6]))
    positions = batch.masked_positions.clone()
    positions[:, 0] = positions[:, 1] = 2
    weights = torch.tensor([[0.2, 0.3, 0.1, 0.0], [2.0, 0.5, 1.0, 1.0], [1.0, 1.0, 0.0, 0.7]])
    batch = replace(batch, masked_positions=positions, masked_weights=weights)
    check(model, batch, micro_batch(model, batch), 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_largest_norm_error_is_a_tenth_of_tau(seed):
    model = tiny_model("bert", seed=seed)
    batch = awkward_batch(0, seed=seed + 10)
    truth = micro_batch(model.double(), batch)
    model.float()
    ours = clip_and_sum(model, batch, 1.0).norms.double()
    errors = ((ours - truth.norms).abs() / truth.norms)[truth.norms > 0]
    assert float(errors.max()) < FLOAT32_TAU / 10


def squared_norm_error(a, g):
    truth = torch.bmm(g.double().mT, a.double()).square().sum((1, 2))
    ours = OuterTerm(a, g).squared_norms(UnitLayout.of(len(a), None, a.device), Scratch())
    return float(((ours - truth) / truth).abs().max())


def test_a_large_vocabulary_does_not_vanish_beside_the_label():
    """One number near -1 and V small ones, whose squares add up to 1/V."""
    logits = torch.randn(3, 4, 30_522, generator=torch.Generator().manual_seed(0))
    g = logits.softmax(-1)
    g[:, :, 17] -= 1
    assert squared_norm_error(torch.ones(3, 4, 128), g) < 1e-6


def test_a_large_formed_gradient_is_summed_in_parts():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 128, 512, generator=generator)
    g = torch.randn(2, 128, 512, generator=generator)
    assert linear.forming_is_cheaper(128, 512, 512)
    assert squared_norm_error(a, g) < 1e-6


@pytest.mark.parametrize("positions", [1, 7, 128, 255, 256, 257, 384, 511, 512, 1000])
def test_a_gram_matrix_in_parts_is_the_whole_one(positions, monkeypatch):
    monkeypatch.setattr(linear, "ROUNDING", 0.0)
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, positions, 600, generator=generator, dtype=torch.float64)
    g = torch.randn(2, positions, 1100, generator=generator, dtype=torch.float64)
    formed = torch.einsum("utp,utd->upd", g, a).square().sum((1, 2))
    torch.testing.assert_close(linear.gram_inner(a, g), formed, rtol=1e-12, atol=0)
