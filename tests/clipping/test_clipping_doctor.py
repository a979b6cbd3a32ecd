"""`check_model`, and the models that are refused."""

import pytest
import torch
from microbatch import FAMILIES, assert_same, awkward_batch, grads, micro_batch, tiny_model
from torch import nn
from transformers import (
    CamembertConfig,
    CamembertForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)
from variants import rest_in_full

from dpmlm.clipping import FLOAT32_TAU, check_model, clip_and_sum
from dpmlm.clipping.layers import registry
from dpmlm.clipping.layers.embedding import LookupTerm
from dpmlm.clipping.layers.linear import OuterTerm
from dpmlm.clipping.layers.term import CROSS_RULES
from dpmlm.errors import UserError

SIZES = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}


@pytest.mark.parametrize("tied_weights", rest_in_full([True, False], [True]))
@pytest.mark.parametrize("family", FAMILIES)
def test_supported_families_are_exact(family, tied_weights):
    model = tiny_model(family, tied=tied_weights)
    report = check_model(model, vocab_size=61)
    assert report.exact, report.reason
    assert 0 < report.max_relative_error < 1e-5
    assert report.reason == ""
    assert report.trainable == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("config", "kind"),
    [(XLMRobertaConfig, XLMRobertaForMaskedLM), (CamembertConfig, CamembertForMaskedLM)],
)
def test_relatives_of_roberta_are_exact(config, kind):
    assert check_model(kind(config(**SIZES, pad_token_id=1))).exact


def test_the_check_leaves_gradients_mode_and_random_state():
    model = tiny_model("bert").train()
    clip_and_sum(model, awkward_batch(0), 1.0)
    found, state = [p.grad for p in model.parameters()], torch.get_rng_state()
    values = [g.clone() for g in found]
    model.bert.encoder.eval()
    check_model(model)
    assert all(p.grad is g for p, g in zip(model.parameters(), found))
    assert all(torch.equal(g, value) for g, value in zip(found, values))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.bert.encoder.training


def broken_pad(model):
    model.bert.embeddings.word_embeddings = nn.Embedding(61, 24, max_norm=1.0)


def unknown_module(model):
    model.bert.encoder.layer[0].output.LayerNorm = nn.RMSNorm(24)


def subclassed(model):
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model.bert.encoder.layer[1].output.dense = Scaled(40, 24)


def raw_parameter(model):
    model.bert.encoder.layer[0].register_parameter("gate", nn.Parameter(torch.ones(1)))


class LowRank(nn.Module):
    """y = x + x A^T B^T with raw matrices, which no rule knows."""

    def __init__(self, size):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4, size)), nn.Parameter(torch.randn(size, 4))

    def forward(self, x):
        return x + x @ self.a.T @ self.b.T


def low_rank(model):
    model.bert.encoder.layer[0].output.dropout = LowRank(24)


class Adapted(nn.Module):
    """A low-rank adapter around a frozen layer, as PEFT builds it: two plain layers beside it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, 4, bias=False)
        self.up = nn.Linear(4, layer.out_features, bias=False)

    def forward(self, x):
        return self.layer(x) + 2 * self.up(self.down(x))


def half(model):
    model.bfloat16()


def decoder(model):
    model.config.is_decoder = True


def running_statistics(model):
    model.bert.encoder.layer[0].output.LayerNorm = nn.BatchNorm1d(14)
    model.train()


def compiled(model):
    model.bert.encoder.layer[1].compile()


REFUSED = [
    pytest.param(compiled, "compile", marks=pytest.mark.full),
    (broken_pad, "max_norm"),
    (running_statistics, r"bert.encoder.layer.0.output.LayerNorm \(BatchNorm1d\)"),
    (half, "bfloat16"),
    (decoder, "is_decoder"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_what_cannot_be_exact_is_refused_by_name(change, words):
    model = tiny_model("bert")
    change(model)
    report = check_model(model)
    assert not report.exact
    assert report.max_relative_error is None
    with pytest.raises(UserError, match=words) as refusal:
        clip_and_sum(model, awkward_batch(0), 1.0)
    assert report.reason == str(refusal.value)
    assert all(p.grad is None for p in model.parameters())


ODD = [unknown_module, subclassed, raw_parameter, low_rank]


@pytest.mark.parametrize("change", rest_in_full(ODD, [unknown_module, low_rank]))
def test_what_is_not_known_is_done_row_by_row_and_is_exact(change):
    model = tiny_model("bert")
    change(model)
    report = check_model(model)
    assert (report.exact, report.path) == (True, "row by row"), report.reason
    batch = awkward_batch(0)
    truth = micro_batch(model, batch)
    clip_and_sum(model, batch, bound := float(truth.norms.median()))
    assert_same(grads(model), truth.clipped(bound, FLOAT32_TAU))


@pytest.mark.parametrize("change", rest_in_full(ODD, ODD[:1]))
def test_freezing_the_odd_module_makes_it_one_pass(change):
    model = tiny_model("bert")
    known = {id(p) for p in model.parameters()}
    change(model)
    for param in model.parameters():
        param.requires_grad_(id(param) in known)
    report = check_model(model)
    assert (report.exact, report.path) == (True, "one pass"), report.reason


def test_adapters_of_plain_layers_are_done_in_one_pass():
    model = tiny_model("bert").requires_grad_(False)
    for layer in model.bert.encoder.layer:
        layer.output.dense = Adapted(layer.output.dense)
    report = check_model(model)
    assert (report.exact, report.path) == (True, "one pass"), report.reason
    assert report.trainable == 2 * 4 * (40 + 24)


def test_an_unused_parameter_is_named():
    model = tiny_model("bert")
    raw_parameter(model)
    assert check_model(model).unused == ("bert.encoder.layer.0.gate",)


def test_only_models_of_transformers_are_taken():
    assert "transformers" in check_model(nn.Linear(2, 2)).reason


def test_a_tokenizer_larger_than_the_embedding_is_a_reason():
    report = check_model(tiny_model("bert"), vocab_size=62)
    assert not report.exact
    assert "62" in report.reason
    assert check_model(tiny_model("bert"), vocab_size=30).exact


def test_everything_frozen_is_a_reason():
    assert check_model(tiny_model("bert").requires_grad_(False)).reason


def test_a_rule_that_forgets_padding_is_found(monkeypatch):
    def careless(module, a, g):
        yield module.weight, LookupTerm(a, g)

    monkeypatch.setitem(registry.LAYER_RULES, nn.Embedding, careless)
    report = check_model(tiny_model("bert"))
    assert not report.exact
    assert report.max_relative_error > 1e-4


def test_a_missing_cross_term_is_found(monkeypatch):
    monkeypatch.setitem(
        CROSS_RULES, (OuterTerm, LookupTerm), lambda *terms: torch.zeros(terms[2].count)
    )
    assert not check_model(tiny_model("bert")).exact
    assert check_model(tiny_model("bert", tied=False)).exact


def test_a_model_whose_rows_see_each_other_is_found():
    model = tiny_model("bert")
    model.bert.embeddings.register_forward_hook(lambda _, args, out: out - out.mean(0))
    report = check_model(model)
    assert not report.exact
    assert report.max_relative_error > 1e-2


def test_what_torch_compile_made_is_refused():
    model = torch.compile(tiny_model("bert"))
    assert "torch.compile" in check_model(model).reason
    with pytest.raises(UserError, match=r"torch\.compile"):
        clip_and_sum(model, awkward_batch(0), 1.0)
