"""What `clip_and_sum` promises beside the numbers."""

import copy
import io
import math
from dataclasses import replace

import pytest
import torch
from microbatch import FAMILIES, assert_same, awkward_batch, grads, micro_batch, tiny_model
from opacus.grad_sample import AbstractGradSampleModule
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from small_models import small_model

from dpmlm.clipping import MaskedLMGradSampleModule, clip_and_sum, grad_sample_module
from dpmlm.clipping.grad_sample_module import clipping_coefficients
from dpmlm.clipping.layers.linear import OuterTerm
from dpmlm.clipping.precision import full_float32
from dpmlm.errors import UserError


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_batch_leaves_zeros(family):
    model = tiny_model(family)
    result = clip_and_sum(model, awkward_batch(0).rows(slice(0, 0)), 1.0)
    assert result.norms.shape == result.losses.shape == (0,)
    assert all(bool((p.grad == 0).all()) for p in model.parameters())


def test_an_empty_batch_adds_nothing_to_what_is_there():
    model = tiny_model("bert")
    clip_and_sum(model, awkward_batch(0), 1.0)
    before = grads(model)
    clip_and_sum(model, awkward_batch(0).rows(slice(0, 0)), 1.0)
    assert all(torch.equal(before[name], g) for name, g in grads(model).items())


def test_a_batch_without_slots_and_one_without_weights():
    model = tiny_model("bert")
    batch = awkward_batch(0)
    nothing = torch.zeros(7, 0)
    for empty in (
        replace(
            batch,
            masked_positions=nothing.long(),
            masked_labels=nothing.long(),
            masked_weights=nothing,
        ),
        replace(batch, masked_weights=torch.zeros_like(batch.masked_weights)),
    ):
        model.zero_grad()
        result = clip_and_sum(model, empty, 1.0)
        assert result.norms.tolist() == result.losses.tolist() == [0.0] * 7
        assert all(bool((p.grad == 0).all()) for p in model.parameters())


def test_micro_batches_accumulate_to_the_logical_batch():
    model = tiny_model("bert")
    batch = awkward_batch(0)
    clip_and_sum(model, batch, 0.7)
    whole = grads(model)
    model.zero_grad()
    for part in (slice(0, 1), slice(1, 1), slice(1, 5), slice(5, 7)):
        clip_and_sum(model, batch.rows(part), 0.7)
    assert_same(grads(model), whole)


def test_a_parameter_out_of_reach_gets_a_zero_gradient():
    model = tiny_model("bert", tied=False)
    clip_and_sum(model, awkward_batch(0), 1.0)
    assert model.cls.predictions.bias is not model.cls.predictions.decoder.bias
    assert torch.equal(model.cls.predictions.bias.grad, torch.zeros(61))


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_stays_on_the_model(family):
    model = tiny_model(family)
    first = next(model.parameters())
    first.requires_grad_(False)
    batch = awkward_batch(model.config.pad_token_id)

    def state():
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
        params = [(p.requires_grad, sorted(vars(p))) for p in model.parameters()]
        return hooks, params, [m.training for m in model.modules()]

    before, output = state(), model(batch.input_ids, batch.attention_mask).logits
    clip_and_sum(model, batch, 1.0)
    assert state() == before
    assert torch.equal(model(batch.input_ids, batch.attention_mask).logits, output)
    torch.save(model.state_dict(), io.BytesIO())
    copy.deepcopy(model)
    model(batch.input_ids, batch.attention_mask).logits.sum().backward()


def test_nothing_stays_after_an_error():
    model = tiny_model("bert")
    batch = awkward_batch(0)
    wrong = replace(batch, input_ids=batch.input_ids + 10_000)
    with pytest.raises(IndexError):
        clip_and_sum(model, wrong, 1.0)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    clip_and_sum(model, batch, 1.0)


def test_no_gradient_and_inference_callers_get_gradients_all_the_same():
    model = tiny_model("bert")
    with torch.no_grad():
        clip_and_sum(model, awkward_batch(0), 1.0)
    assert_same(grads(model), micro_batch(model, awkward_batch(0)).clipped(1.0, 1e-5))


def test_dropout_follows_the_mode():
    model = tiny_model("bert")
    batch = awkward_batch(0)
    quiet = [clip_and_sum(model, batch, 1.0).losses for _ in range(2)]
    model.train()
    torch.manual_seed(3)
    loud = [clip_and_sum(model, batch, 1.0).losses for _ in range(2)]
    torch.manual_seed(3)
    again = clip_and_sum(model, batch, 1.0).losses
    assert torch.equal(*quiet)
    assert not torch.equal(*loud)
    assert torch.equal(loud[0], again)


def test_the_wrapper_is_an_opacus_module_and_passes_calls_through():
    model = tiny_model("bert")
    wrapped = MaskedLMGradSampleModule(model)
    batch = awkward_batch(0)
    assert isinstance(wrapped, AbstractGradSampleModule)
    assert torch.equal(wrapped(batch.input_ids).logits, model(batch.input_ids).logits)
    clip_and_sum(wrapped, batch, 1.0)
    ours = grads(model)
    wrapped.zero_grad()
    assert not any(hasattr(p, "grad_sample") for p in model.parameters())
    clip_and_sum(model, batch, 1.0)
    assert all(torch.equal(ours[name], g) for name, g in grads(model).items())
    assert wrapped.to_standard_module() is model


@pytest.mark.parametrize("noise_multiplier", [0.0, 2.0])
def test_the_stock_opacus_optimizer_takes_the_sum(noise_multiplier):
    model = tiny_model("bert")
    batch = awkward_batch(0)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(model.parameters(), lr=0.5),
        noise_multiplier=noise_multiplier,
        max_grad_norm=0.7,
        expected_batch_size=4,
        generator=torch.Generator().manual_seed(0),
    )
    for part in (slice(0, 3), slice(3, 7)):
        clip_and_sum(model, batch.rows(part), 0.7)
    expected = grads(model)
    optimizer.step()
    moved = {n: (start[n] - p.detach()) * 4 / 0.5 for n, p in model.named_parameters()}
    if noise_multiplier == 0:
        for name in expected:
            torch.testing.assert_close(moved[name], expected[name], rtol=1e-4, atol=1e-5)
    else:
        noise = torch.cat([(moved[n] - expected[n]).flatten() for n in expected])
        assert float(noise.std()) == pytest.approx(2.0 * 0.7, rel=0.05)
    optimizer.zero_grad()
    clip_and_sum(model, batch.rows(slice(0, 0)), 0.7)
    before = next(model.parameters()).detach().clone()
    optimizer.step()
    assert torch.equal(before, next(model.parameters())) == (noise_multiplier == 0)


def test_autocast_and_reduced_precision_leave_the_sums_in_float32():
    model = tiny_model("bert")
    batch = awkward_batch(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = clip_and_sum(model, batch, 0.01)
    assert result.norms.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    clipped = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
    assert clipped <= 6 * 0.01
    for i in (0, 1, 4):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            clip_and_sum(model, batch.rows(slice(i, i + 1)), 0.01)
        alone = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
        assert 0.01 * (1 - 1e-4) < alone <= 0.01


BACKENDS = {"tf32": torch.backends.cuda.matmul, "bf16": torch.backends.mkldnn.matmul}
"""Backends of matrix products, each by a reduced precision that it takes."""


def precisions():
    return [backend.fp32_precision for backend in BACKENDS.values()]


@pytest.fixture
def _settings():
    whole, found = torch.get_float32_matmul_precision(), precisions()
    yield
    torch.set_float32_matmul_precision(whole)
    for backend, setting in zip(BACKENDS.values(), found):
        backend.fp32_precision = setting


def reduce(how):
    if how in BACKENDS:
        BACKENDS[how].fp32_precision = how
    else:
        torch.set_float32_matmul_precision(how)


REDUCED = [*BACKENDS, "high", "medium"]


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("how", REDUCED)
def test_reduced_precision_is_full_inside_and_put_back(how):
    reduce(how)
    before = precisions()
    assert set(before) & {"tf32", "bf16"}
    with full_float32(torch.device("cpu")):
        assert set(precisions()) <= {"ieee", "none"}
        assert all(now == "ieee" for now, was in zip(precisions(), before) if was != "none")
    assert precisions() == before
    with pytest.raises(ZeroDivisionError), full_float32(torch.device("cpu")):
        raise ZeroDivisionError
    assert precisions() == before


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("how", REDUCED)
@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_norms_and_sums_are_formed_in_full_float32(kind, how, monkeypatch):
    """One pass and row by row; the model's own forward pass keeps what the run chose."""
    seen, forward = [], []

    def coefficients(*args, **named):
        seen.append(precisions())
        return clipping_coefficients(*args, **named)

    def added(self, *args):
        seen.append(precisions())
        return add_clipped(self, *args)

    add_clipped = OuterTerm.add_clipped
    monkeypatch.setattr(OuterTerm, "add_clipped", added)
    monkeypatch.setattr(grad_sample_module, "clipping_coefficients", coefficients)
    model = small_model(kind)
    model.base_model.register_forward_hook(lambda *_: forward.append(precisions()))
    reduce(how)
    before = precisions()
    clip_and_sum(model, awkward_batch(0), 1.0)
    assert len(seen) > (5 if kind == "bert" else 0)
    assert not {setting for each in seen for setting in each} & {"tf32", "bf16"}
    assert all(each == before for each in forward)
    assert precisions() == before


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_a_bound_that_bounds_nothing_is_refused(bound):
    with pytest.raises(UserError, match="max_grad_norm"):
        clip_and_sum(tiny_model("bert"), awkward_batch(0), bound)


@pytest.mark.parametrize("tau", [-1e-3, 1.0, math.nan])
def test_tau_is_a_relative_error(tau):
    with pytest.raises(UserError, match="tau"):
        clip_and_sum(tiny_model("bert"), awkward_batch(0), 1.0, tau=tau)


@pytest.mark.parametrize(
    "fault",
    [
        {"attention_mask": torch.ones(7, 3)},
        {"masked_labels": torch.zeros(7, 3, dtype=torch.long)},
        {"masked_weights": torch.zeros(6, 4)},
        {"masked_positions": torch.zeros(7, dtype=torch.long)},
        {"unit_index": torch.zeros(6, dtype=torch.long)},
        {"unit_index": torch.full((7,), -1)},
        {
            "input_ids": torch.ones(7, 41, dtype=torch.long),
            "attention_mask": torch.ones(7, 41),
        },
    ],
)
def test_shapes_that_contradict_each_other_are_refused(fault):
    with pytest.raises(UserError):
        clip_and_sum(tiny_model("bert"), replace(awkward_batch(0), **fault), 1.0)
