"""Activation checkpointing: two passes give what one gives, and hold less meanwhile."""

from contextlib import nullcontext
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
)
from small_models import MAPPING, VOCABULARY, small_model
from torch import nn
from transformers import BertConfig, BertForMaskedLM
from variants import rest_in_full

from dpmlm.clipping import (
    FLOAT32_TAU,
    activation_checkpointing,
    check_model,
    clip_and_sum,
    families,
)
from dpmlm.clipping.probe import probe_batch
from dpmlm.clipping.structure import Structure
from dpmlm.errors import UserError
from dpmlm.training.memory import LiveBytes


def state(model):
    return [
        (module.training, module.__dict__.get("_gradient_checkpointing_func"))
        for module in model.modules()
    ]


def both_ways(model, batch, bound, seed=0):
    """(norms, losses, sum) of one pass and of two."""
    found = []
    for way in (nullcontext(), activation_checkpointing(model)):
        model.zero_grad()
        torch.manual_seed(seed)
        with way:
            before = state(model)
            result = clip_and_sum(model, batch, bound)
            assert state(model) == before
        found.append((result, grads(model)))
    assert not Structure.of(model).recomputed
    return found


def same(one, other):
    """Norms and sums agree but for the order of additions."""
    for field in ("norms", "losses"):
        mine, theirs = (getattr(each[0], field) for each in (one, other))
        torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=0)
    assert_same(one[1], other[1], 2e-6)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_one_unit_at_a_time_gives(family, tied):
    model = tiny_model(family, tied=tied)
    batch = awkward_batch(model.config.pad_token_id)
    batch = replace(batch, unit_index=torch.tensor([3, 0, 4, 1, 0, 3, 3]))
    truth = micro_batch(model, batch)
    bound = float(truth.norms[[0, 1, 3]].median())
    with activation_checkpointing(model):
        result = clip_and_sum(model, batch, bound)
    torch.testing.assert_close(result.norms.double(), truth.norms, rtol=1e-5, atol=0)
    assert_same(grads(model), truth.clipped(bound, FLOAT32_TAU))


ONE_PASS = [c.model_type for c in MAPPING if MAPPING[c].__name__ in families.FAMILIES]
NOT_SUPPORTED = {"albert", "flaubert", "squeezebert", "xlm"}
USUAL = {"bert", "modernbert", "convbert"}


@pytest.mark.parametrize("kind", rest_in_full(ONE_PASS, USUAL | NOT_SUPPORTED))
def test_every_type_gives_the_same_both_ways(kind):
    model = small_model(kind)
    if kind in NOT_SUPPORTED:
        with pytest.raises(UserError, match="no layers"), activation_checkpointing(model):
            pass
        return
    if kind == "big_bird":
        model.base_model.set_attention_type("original_full")
    same(*both_ways(model, probe_batch(model, VOCABULARY, 12), 0.5))
    with activation_checkpointing(model):
        assert Structure.of(model).recomputed
        report = check_model(model, VOCABULARY)
    assert report.exact, report.reason


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_drops_the_same_in_both_passes(family):
    names = {"distilbert": ("dropout", "attention_dropout")}
    settings = dict.fromkeys(names.get(family, ("hidden_dropout_prob",)), 0.3)
    model = tiny_model(family, **settings).train()
    same(*both_ways(model, awkward_batch(model.config.pad_token_id), 0.1))


def test_a_unit_that_is_no_number_is_left_out_of_both():
    model = tiny_model("bert", tied=False)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[59] = 3e38
    batch = awkward_batch(0)
    batch.input_ids[4, 6] = 59
    one, other = both_ways(model, batch, 0.5)
    assert not torch.isfinite(other[0].losses[4])
    assert all(bool(torch.isfinite(g).all()) for g in other[1].values())
    assert_same(other[1], one[1], 2e-6)


@pytest.mark.parametrize("frozen", ["embeddings", "encoder.layer.0", "encoder"])
def test_frozen_layers(frozen):
    model = tiny_model("bert")
    for name, param in model.named_parameters():
        if frozen in name:
            param.requires_grad_(False)
    one, other = both_ways(model, awkward_batch(0), 0.5)
    assert any(bool(g.any()) for g in other[1].values())
    same(one, other)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("reentrant", rest_in_full([True, False], [True]))
def test_the_models_own_method_asks_for_it_too(reentrant):
    model, batch = tiny_model("bert"), awkward_batch(0)
    clip_and_sum(model, batch, 0.5)
    once = grads(model)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert Structure.of(model).recomputed
    model.zero_grad()
    clip_and_sum(model, batch, 0.5)
    assert_same(grads(model), once, 2e-6)
    assert check_model(model).exact


def test_calls_accumulate():
    model = tiny_model("bert")
    batch = awkward_batch(0)
    with activation_checkpointing(model):
        clip_and_sum(model, batch, 0.5)
        once = grads(model)
        clip_and_sum(model, batch, 0.5)
    assert_same(grads(model), {name: 2 * g for name, g in once.items()})


def test_reduced_types_are_summed_in_float32():
    model = tiny_model("bert")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, other = both_ways(model, awkward_batch(0), 0.5)
        with activation_checkpointing(model):
            report = check_model(model)  # holds what a unit adds to its norm
    assert report.exact, report.reason
    torch.testing.assert_close(one[0].norms, other[0].norms, rtol=0.02, atol=0)
    assert {g.dtype for g in other[1].values()} == {torch.float32}


def test_a_model_that_is_random_on_its_own_is_refused():
    model = tiny_model("bert")
    generator = torch.Generator().manual_seed(0)

    def noisy(module, args, output):
        return output + torch.randn(output.shape, generator=generator)

    model.bert.embeddings.register_forward_hook(noisy)
    with activation_checkpointing(model):
        with pytest.raises(UserError, match="other results when it runs again"):
            clip_and_sum(model, awkward_batch(0), 0.5)
        assert not check_model(model).exact


def test_settings_are_put_back_after_an_error():
    model = tiny_model("bert")
    before = state(model)

    def fails(module, args, output):
        raise RuntimeError("broken")

    handle = model.cls.register_forward_hook(fails)
    with pytest.raises(RuntimeError, match="broken"), activation_checkpointing(model):
        clip_and_sum(model, awkward_batch(0), 0.5)
    handle.remove()
    assert state(model) == before
    assert all(p.requires_grad for p in model.parameters())


class ByKeyword(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, hidden, *args, **kwargs):
        return self.layer(hidden, *args, extra=hidden * 2, **kwargs)


def test_a_gradient_through_a_keyword_is_refused_rather_than_lost():
    model = tiny_model("bert")
    model.bert.encoder.layer[0] = ByKeyword(model.bert.encoder.layer[0])
    with pytest.raises(UserError, match="by keyword"), activation_checkpointing(model):
        clip_and_sum(model, awkward_batch(0), 0.5)


def test_it_holds_less():
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4}
    config = BertConfig(vocab_size=200, intermediate_size=256, **sizes)
    model = BertForMaskedLM(config).eval()
    batch = probe_batch(model, 200, 256)
    peaks = []
    for way in (nullcontext(), activation_checkpointing(model)):
        model.zero_grad()
        with way, LiveBytes() as live:
            clip_and_sum(model, batch, 1.0)
        peaks.append(live.peak)
    assert peaks[1] < 0.5 * peaks[0]
