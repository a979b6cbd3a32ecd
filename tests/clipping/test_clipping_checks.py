"""Every check of `check_model` beside the comparison with one-unit gradients, seen refusing."""

import pytest
import torch
from microbatch import tiny_model
from torch import nn

from dpmlm.clipping import MaskedLMGradSampleModule, check_model

REASONS = ("second call", "other units", "missing", "relative error")
"""Words of the reasons, of which a report must hold its own and none of the others."""


def assert_refused(report, words):
    assert not report.exact
    assert words in report.reason
    assert not [other for other in REASONS if other != words and other in report.reason]


@pytest.fixture
def faulty(monkeypatch):
    """Installs `fault(model, batch, result, call)` behind each call; calls count from 1."""

    def install(fault):
        true, calls = MaskedLMGradSampleModule.clip_and_sum, []

        def clip_and_sum(self, batch, max_grad_norm):
            result = true(self, batch, max_grad_norm)
            calls.append(batch)
            fault(self.to_standard_module(), batch, result, len(calls))
            return result

        monkeypatch.setattr(MaskedLMGradSampleModule, "clip_and_sum", clip_and_sum)

    return install


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_without_a_fault_nothing_is_refused(faulty, kind):
    faulty(lambda *_: None)
    assert check_model(tiny_model(kind)).exact


def test_a_second_call_that_gives_other_norms_is_refused(faulty):
    faulty(lambda model, batch, result, call: result.norms.mul_(1.001 if call > 1 else 1))
    assert_refused(check_model(tiny_model("bert")), "second call")


def test_a_forward_pass_that_changes_with_every_call_is_refused(faulty):
    """The first call is right, so that the comparison with one-unit gradients holds."""
    model = tiny_model("bert")

    def drift(module, _inputs, output):
        return output * module.scale

    embeddings = model.bert.embeddings
    embeddings.scale = 1.0
    embeddings.register_forward_hook(drift)
    faulty(lambda *_: setattr(embeddings, "scale", embeddings.scale * 1.02))
    assert_refused(check_model(model), "second call")


def test_a_norm_that_depends_on_the_other_units_is_refused(faulty):
    """Only where another text stands in unit 0, so that all else agrees."""
    first = []

    def couple(model, batch, result, call):
        first.append(batch.input_ids)
        if batch.input_ids.shape == first[0].shape and not torch.equal(batch.input_ids, first[0]):
            result.norms[1:].mul_(1.001)

    faulty(couple)
    assert_refused(check_model(tiny_model("bert")), "other units")


def scale(model, factor):
    for param in model.parameters():
        param.grad.mul_(factor)


def assert_refused_for_its_vector(report):
    assert not report.exact
    assert "norm" in report.reason
    assert not [words for words in REASONS if words in report.reason]


def test_a_unit_that_adds_another_vector_than_its_norm_is_refused(faulty):
    faulty(lambda model, batch, *_: scale(model, 1.001 if len(batch) == 1 else 1))
    assert_refused_for_its_vector(check_model(tiny_model("bert")))


def test_under_autocast_what_a_unit_adds_is_held_to_its_norm_all_the_same(faulty):
    """1 % is within what bf16 may differ from one-unit gradients, and breaks the bound."""
    faulty(lambda model, *_: scale(model, 1.01))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_refused_for_its_vector(check_model(tiny_model("bert")))


class Gate(nn.Module):
    """A parameter of so little influence that its gradient is lost in the whole."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return x + 1e-7 * self.weight * x


@pytest.mark.parametrize("name", ["bert.embeddings.word_embeddings.weight", "gate"])
def test_a_parameter_that_is_missing_in_the_sum_is_refused(faulty, name):
    model = tiny_model("bert")
    if name == "gate":
        model.bert.encoder.layer[0].output.dropout = Gate(24)
        name = "bert.encoder.layer.0.output.dropout.weight"
    assert check_model(model).exact
    faulty(lambda model, *_: model.get_parameter(name).grad.zero_())
    report = check_model(model)
    assert_refused(report, "missing")
    assert name in report.reason
