"""`MaskedLMGradSampleModule`: an Opacus grad-sample module that clips in one pass.

Opacus keeps `p.grad_sample` of size [B, *p.shape], or runs a second backward pass. This module
keeps each layer's input and output gradient from one backward pass that skips weight gradients,
takes the norms from these factors, and forms the clipped sum with the coefficients inside the one
weight-gradient product (book-keeping: Bu et al. 2023, arXiv 2210.00038).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from opacus.grad_sample.gsm_base import AbstractGradSampleModule
from torch import Tensor, nn

from dpmlm.clipping.buffers import unchanged_buffers
from dpmlm.clipping.head import (
    check_batch,
    logit_gradient,
    losses_and_log_probabilities,
    masked_head,
)
from dpmlm.clipping.layers import Term, squared_norms
from dpmlm.clipping.precision import full_float32
from dpmlm.clipping.recompute import recomputing, repeatable
from dpmlm.clipping.recorder import Consumer, Recorder
from dpmlm.clipping.result import ClipResult
from dpmlm.clipping.rowwise import clip_rows
from dpmlm.clipping.scale import Scales, refuse_unfit
from dpmlm.clipping.scratch import Scratch, forget_scratch, scratch_of
from dpmlm.clipping.structure import Structure, unwrapped
from dpmlm.clipping.units import UnitLayout
from dpmlm.errors import UserError
from dpmlm.masking import MaskedBatch

FLOAT32_TAU = 1e-5
"""Bound on the relative error of a float32 norm; tests/clipping/test_clipping_exact.py holds the
error against float64 to a tenth of it. It holds for reduced types of the
model too, as norm and sum come from the same recorded factors; `check_model` holds one against the
other to it, on the model itself."""


@dataclass(frozen=True)
class _Task:
    """A physical batch, the model that sees it, and what its units are clipped to."""

    structure: Structure
    batch: MaskedBatch
    layout: UnitLayout
    max_grad_norm: float
    scales: Scales | None


class MaskedLMGradSampleModule(AbstractGradSampleModule):
    """Wraps a supported masked LM; `clip_and_sum` leaves the clipped sum in `p.grad`.

    Nothing stays on the model: hooks live for one call, parameters carry no attributes. The
    optimizers of `opacus.optimizers` that expect a summed gradient
    (`DPOptimizerFastGradientClipping` and its kin) take `p.grad` from here.
    """

    def __init__(self, model: nn.Module, *, tau: float = FLOAT32_TAU) -> None:
        """`tau`: relative error of the norms, at least 0; raises UserError as `Structure.of`."""
        if not 0 <= tau < 1:
            raise UserError(f"tau {tau}", "it is a relative error in [0, 1)", "leave the default")
        Structure.of(model)
        super().__init__(model, loss_reduction="sum")
        self.cleanup()
        self.tau = tau

    def remove_hooks(self) -> None:
        """Nothing to remove: hooks do not outlive a call."""

    def set_grad_sample_to_none(self) -> None:
        """Nothing to reset: parameters carry no grad samples."""

    def del_grad_sample(self) -> None:
        """Nothing to delete: parameters carry no grad samples."""

    def clip_and_sum(
        self, batch: MaskedBatch, max_grad_norm: float, scales: Scales | None = None
    ) -> ClipResult:
        """See `dpmlm.clipping.clip_and_sum`."""
        if not max_grad_norm > 0:
            raise UserError(
                f"max_grad_norm {max_grad_norm}",
                "it must be above 0",
                "give the clipping norm, or math.inf for none",
            )
        if torch.is_inference_mode_enabled():
            raise UserError(
                "torch.inference_mode",
                "no gradient can be had inside",
                "leave it, or use torch.no_grad: gradients are taken all the same",
            )
        structure = Structure.of(self._module)
        if scales is not None:
            refuse_unfit(scales, structure.trainable)
        check_batch(structure.model, batch)
        device = structure.trainable[0].device if structure.trainable else batch.input_ids.device
        layout = UnitLayout.of(len(batch), batch.unit_index, device)
        with unchanged_buffers(structure.model):
            result = self._clipped(_Task(structure, batch, layout, max_grad_norm, scales))
        for param in structure.trainable:
            # a parameter that no unit reached still takes its noise
            if param.grad is None:
                param.grad = torch.zeros_like(param, requires_grad=False)
        return result

    def _clipped(self, task: _Task) -> ClipResult:
        structure, layout = task.structure, task.layout
        if task.batch.masked_positions.numel() == 0:
            zeros = torch.zeros(layout.count, device=layout.index_B.device)
            return ClipResult(norms=zeros, losses=zeros.clone())
        if structure.family is None:
            bound = partial(clipping_coefficients, max_grad_norm=task.max_grad_norm, tau=self.tau)
            return clip_rows(
                structure.model, structure.trainable, task.batch, layout, bound, task.scales
            )
        return self._two_passes(task) if structure.recomputed else self._one_pass(task)

    def _one_pass(self, task: _Task) -> ClipResult:
        """Keeps all factors until the norms are known."""
        terms: dict[nn.Parameter, list[Term]] = {}
        losses = _losses(task, terms.__setitem__)
        with torch.no_grad(), full_float32(losses.device):
            scratch = scratch_of(task.structure.model)
            squares = [squared_norms(of_param, task.layout, scratch) for of_param in terms.values()]
            norms = torch.stack(squares).sum(0).sqrt() if squares else torch.zeros_like(losses)
            add = self._adding(norms, losses, task)
            for param in list(terms):
                add(param, terms.pop(param))
        return ClipResult(norms=norms, losses=losses)

    def _two_passes(self, task: _Task) -> ClipResult:
        """Norms first, then all again for the sum; both drop factors as soon as they were used."""
        layout, recomputed = task.layout, task.structure.recomputed
        device = layout.index_B.device
        first, second = (torch.zeros(layout.count, device=device) for _ in range(2))

        def measure(param: nn.Parameter, terms: list[Term]) -> None:
            with full_float32(device):
                first.add_(squared_norms(terms, layout, Scratch()))

        with recomputing(recomputed), repeatable(device):
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                losses = _losses(task, measure, at_once=True)
            norms = first.sqrt()
            add = self._adding(norms, losses, task)

            def measure_and_add(param: nn.Parameter, terms: list[Term]) -> None:
                with full_float32(device):
                    second.add_(squared_norms(terms, layout, Scratch()))
                add(param, terms)

            _losses(task, measure_and_add, at_once=True)
        sound = torch.isfinite(norms) & torch.isfinite(losses)
        apart = (second.sqrt() - norms).abs()
        if not bool((apart <= 0.5 * max(self.tau, FLOAT32_TAU) * norms)[sound].all()):  # or NaN
            raise UserError(
                "gradient checkpointing",
                "the model gives other results when it runs again, so that the norms of its "
                "gradients are not those of the sum",
                "call model.gradient_checkpointing_disable() and use smaller physical batches",
            )
        return ClipResult(norms=norms, losses=losses)

    def _adding(self, norms: Tensor, losses: Tensor, task: _Task) -> Consumer:
        """Adds a parameter's terms to its `p.grad`, each unit clipped by its norm."""
        coefficients = clipping_coefficients(norms, task.max_grad_norm, self.tau)
        sound = torch.isfinite(norms) & torch.isfinite(losses)
        all_sound = bool(sound.all())
        if not all_sound:
            coefficients = coefficients.masked_fill(~sound, 0)

        def add(param: nn.Parameter, terms: list[Term]) -> None:
            with full_float32(losses.device):
                for term in terms:
                    if not all_sound:
                        term.leave_out(~sound, task.layout)
                    term.add_clipped(param, coefficients, task.layout)

        return add


@contextmanager
def own_scratch(model: nn.Module) -> Iterator[None]:
    """Inside, `model` begins with no memory kept from earlier steps; what it keeps between the
    steps inside is freed at the end. `model` is as `clip_and_sum` takes it."""
    core = unwrapped(model._module if isinstance(model, MaskedLMGradSampleModule) else model)
    forget_scratch(core)
    try:
        yield
    finally:
        forget_scratch(core)


def _losses(task: _Task, consume: Consumer, *, at_once: bool = False) -> Tensor:
    """float32 [U]: unit losses of a forward and a backward pass whose terms go to `consume`."""
    structure, batch = task.structure, task.batch
    recorder = Recorder(structure, len(batch), consume, at_once=at_once, scales=task.scales)
    with (
        torch.enable_grad(),
        recorder,
        masked_head(structure.model, structure.family, batch) as logits,
    ):
        with torch.no_grad():
            losses, log_p = losses_and_log_probabilities(logits.detach(), batch, task.layout)
            gradient = logit_gradient(log_p, batch, task.layout).to(logits.dtype)
        recorder.backward(logits, gradient)
    return losses


def clipping_coefficients(norms_U: Tensor, max_grad_norm: float, tau: float) -> Tensor:
    """min(1, C / ((1 + tau) * norm)), 1 for norm 0; the caller deselects non-finite norms."""
    if math.isinf(max_grad_norm):
        return torch.ones_like(norms_U)
    return (max_grad_norm / ((1 + tau) * norms_U)).clamp(max=1.0)
