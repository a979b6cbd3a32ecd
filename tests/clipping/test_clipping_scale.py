"""Gradients that are multiplied before they are clipped, against a naive twin."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from microbatch import (
    FAMILIES,
    Truth,
    assert_same,
    awkward_batch,
    grads,
    micro_batch,
    tiny_model,
    vector,
)
from small_models import small_model
from variants import rest_in_full

from dpmlm.clipping import FLOAT32_TAU, Scale, activation_checkpointing, clip_and_sum, scales_from
from dpmlm.clipping.layers import linear
from dpmlm.clipping.scale import LEAST
from dpmlm.errors import UserError


def random_scales(model, seed=0):
    """From a tenth to ten, an axis."""
    generator = torch.Generator().manual_seed(seed)
    return {
        p: Scale(tuple(10 ** (2 * torch.rand(n, generator=generator) - 1) for n in p.shape))
        for p in model.parameters()
        if p.requires_grad
    }


def scaled(truth: Truth, model, scales) -> Truth:
    """The naive twin: whole gradients of single units, number by number."""
    letters = "abcd"
    full = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            axes = letters[: p.ndim]
            full[name] = torch.einsum(f"{','.join(axes)}->{axes}", *scales[p].factors)
    gradients = [{name: g * full[name] for name, g in of.items()} for of in truth.gradients]
    return Truth(truth.losses, torch.stack([vector(g).norm() for g in gradients]), gradients)


def check(model, batch, scales):
    truth = scaled(micro_batch(model, batch), model, scales)
    bound = float(truth.norms[truth.norms > 0].median())
    model.zero_grad()
    found = clip_and_sum(model, batch, bound, scales=scales)
    torch.testing.assert_close(found.norms.double(), truth.norms, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.losses, truth.losses, rtol=1e-5, atol=0)
    assert_same(grads(model), truth.clipped(bound, FLOAT32_TAU))


@pytest.mark.parametrize("forms", [True, False], ids=["formed", "gram"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", rest_in_full(FAMILIES, ["bert"]))
def test_norms_and_sums_are_those_of_scaled_gradients(family, tied, forms, monkeypatch):
    monkeypatch.setattr(linear, "forming_is_cheaper", lambda *_: forms)
    model = tiny_model(family, tied=tied)
    batch = awkward_batch(model.config.pad_token_id)
    check(model, batch, random_scales(model))
    check(
        model,
        replace(batch, unit_index=torch.tensor([3, 0, 4, 1, 0, 3, 3])),
        random_scales(model, 1),
    )


@pytest.mark.parametrize("kind", ["mpnet", "albert", "convbert", "funnel"])
def test_also_where_layers_are_run_again_or_rows_one_by_one(kind):
    model = small_model(kind)
    check(model, awkward_batch(model.config.pad_token_id), random_scales(model))


def test_also_with_activation_checkpointing_and_frozen_parts():
    model = tiny_model("bert")
    model.bert.embeddings.position_embeddings.requires_grad_(False)
    with activation_checkpointing(model):
        check(model, awkward_batch(0), random_scales(model))


def farthest(model, batch, bound, summed):
    """How far leaving out one unit moves the sum, as multiples of `bound`, over all units."""
    whole = summed(model, batch)
    rows = range(len(batch))
    return (
        max(
            float(
                (
                    whole - summed(model, batch.rows(torch.tensor([r for r in rows if r != out])))
                ).norm()
            )
            for out in rows
        )
        / bound
    )


def test_one_unit_moves_the_scaled_sum_by_at_most_the_bound():
    model = tiny_model("bert")
    batch, scales = awkward_batch(0), random_scales(model)
    truth = scaled(micro_batch(model, batch), model, scales)
    bound = float(truth.norms.max()) / 3

    def ours(model, batch):
        model.zero_grad()
        clip_and_sum(model, batch, bound, scales=scales)
        return vector(grads(model))

    def clipped_first(model, batch):
        """The fault: what is scaled after it was clipped has no bound."""
        model.zero_grad()
        clip_and_sum(model, batch, bound)
        return vector({n: p.grad * scales[p].full() for n, p in model.named_parameters()})

    assert 0.99 < farthest(model, batch, bound, ours) <= 1 + 1e-5
    assert farthest(model, batch, bound, clipped_first) > 1.2


SQUARES = {"matrix": (3, 5), "vector": (4,), "cube": (2, 3, 2)}


@pytest.mark.parametrize("power", [0.1, 0.25, 0.5])
def test_scales_from_squares_against_a_loop(power):
    generator = torch.Generator().manual_seed(2)
    squares = {
        torch.nn.Parameter(torch.zeros(shape)): torch.rand(shape, generator=generator) ** 4
        for shape in SQUARES.values()
    }
    found = scales_from(squares, power, damping=0.1)
    raw = {}
    for p, square in squares.items():
        v, mean = square.double().numpy(), float(square.mean())
        raw[p] = np.ones(v.shape)
        for place in np.ndindex(v.shape):
            value = mean
            for axis, at in enumerate(place):
                line = np.take(v, at, axis).mean() if v.ndim > 1 else v[at]
                value *= line / mean + 0.1
            raw[p][place] = value**-power
    before = sum(float(v.sum()) for v in squares.values())
    after = sum(float((squares[p].numpy() * raw[p] ** 2).sum()) for p in squares)
    for p in squares:
        np.testing.assert_allclose(
            found[p].full().numpy(), raw[p] * (before / after) ** 0.5, rtol=1e-5
        )
        assert found[p].fits(p)


def test_the_noise_is_least_at_a_power_of_a_quarter():
    """Noise in all numbers together, sum 1/s^2, where the scaled signal, sum s^2 v, is given."""
    generator = torch.Generator().manual_seed(3)
    lines, columns = (torch.rand(n, generator=generator) ** 6 + 1e-4 for n in (30, 40))
    p = torch.nn.Parameter(torch.zeros(30, 40))
    squares = {p: lines[:, None] * columns}
    noise = {
        power: float(scales_from(squares, power, damping=0)[p].full().pow(-2).sum())
        for power in (0.05, 0.15, 0.25, 0.35, 0.5)
    }
    assert min(noise, key=noise.get) == 0.25
    assert noise[0.25] < 0.8 * p.numel()  # without scales every number has noise of 1


@pytest.mark.parametrize("square", [0.0, 1e-20])
def test_what_nothing_reached_is_bounded(square):
    reached, not_reached = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    found = scales_from({reached: torch.ones(3), not_reached: torch.full((3,), square)})
    apart = found[not_reached].full() / found[reached].full()
    torch.testing.assert_close(apart, torch.full((3,), LEAST**-0.25), rtol=0.02, atol=0)
    assert found[not_reached].fits(not_reached)
    nothing = scales_from({not_reached: torch.zeros(3)})
    assert nothing[not_reached].full().tolist() == pytest.approx([1, 1, 1], rel=0.01)


UNFIT = {
    "none for a parameter": lambda scales, p: scales.pop(p),
    "one axis of two": lambda scales, p: scales.update({p: Scale(scales[p].factors[:1])}),
    "a length": lambda scales, p: scales.update({p: Scale((torch.ones(1), torch.ones(24)))}),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_scales_that_do_not_fit_are_refused(fault):
    model = tiny_model("bert")
    scales = random_scales(model)
    UNFIT[fault](scales, model.bert.encoder.layer[0].attention.self.query.weight)
    with pytest.raises(UserError, match="one of its own shape"):
        clip_and_sum(model, awkward_batch(0), 1.0, scales=scales)


@pytest.mark.parametrize("number", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_of_unsound_numbers_cannot_be_made(number):
    good, bad = torch.ones(3), torch.tensor([1.0, number])
    assert Scale((good,)).full().shape == (3,)
    for factors in ((bad,), (good, bad), (bad, good)):
        with pytest.raises(UserError, match="finite and above 0"):
            Scale(factors)
