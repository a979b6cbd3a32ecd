"""`MaskedLMGradSampleModule`: an Opacus grad-sample module that clips in one pass.

Opacus keeps `p.grad_sample` of size [B, *p.shape], or runs a second backward pass. This module
keeps each layer's input and output gradient from one backward pass that skips weight gradients,
takes the norms from these factors, and forms the clipped sum with the coefficients inside the one
weight-gradient product (book-keeping: Bu et al. 2023, arXiv 2210.00038).
"""

import math
from functools import partial

import torch
from opacus.grad_sample.gsm_base import AbstractGradSampleModule
from torch import Tensor, nn

from dpmlm.clipping.buffers import unchanged_buffers
from dpmlm.clipping.head import (
    check_batch,
    logit_gradient,
    losses_and_log_probabilities,
    masked_logits,
)
from dpmlm.clipping.layers import Term, merge_terms, squared_norms
from dpmlm.clipping.precision import full_float32
from dpmlm.clipping.recorder import Recorder
from dpmlm.clipping.result import ClipResult
from dpmlm.clipping.rowwise import clip_rows
from dpmlm.clipping.structure import Structure
from dpmlm.clipping.units import UnitLayout
from dpmlm.errors import UserError
from dpmlm.masking import MaskedBatch

FLOAT32_TAU = 1e-5
"""Bound on the relative error of a float32 norm. Measured against float64: at most 3e-7 for hidden
sizes 128 to 512, 12 to 256 positions, vocabularies to 30,522. It holds for reduced types of the
model too, as norm and sum come from the same recorded factors; `check_model` holds one against the
other to it, on the model itself."""


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

    def clip_and_sum(self, batch: MaskedBatch, max_grad_norm: float) -> ClipResult:
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
        check_batch(structure.model, batch)
        device = structure.trainable[0].device if structure.trainable else batch.input_ids.device
        layout = UnitLayout.of(len(batch), batch.unit_index, device)
        with unchanged_buffers(structure.model):
            result = self._clipped(structure, batch, layout, max_grad_norm)
        for param in structure.trainable:
            # a parameter that no unit reached still takes its noise
            if param.grad is None:
                param.grad = torch.zeros_like(param, requires_grad=False)
        return result

    def _clipped(
        self, structure: Structure, batch: MaskedBatch, layout: UnitLayout, max_grad_norm: float
    ) -> ClipResult:
        if batch.masked_positions.numel() == 0:
            zeros = torch.zeros(layout.count, device=layout.index_B.device)
            return ClipResult(norms=zeros, losses=zeros.clone())
        if structure.family is None:
            bound = partial(clipping_coefficients, max_grad_norm=max_grad_norm, tau=self.tau)
            return clip_rows(structure.model, structure.trainable, batch, layout, bound)
        losses, terms = self._factors(structure, batch, layout)
        return self._clip(terms, losses, layout, max_grad_norm)

    def _factors(
        self, structure: Structure, batch: MaskedBatch, layout: UnitLayout
    ) -> tuple[Tensor, dict[nn.Parameter, list[Term]]]:
        with torch.enable_grad(), Recorder(structure, len(batch)) as recorder:
            logits = masked_logits(structure.model, structure.family, batch)
            with torch.no_grad():
                losses, log_p = losses_and_log_probabilities(logits.detach(), batch, layout)
                gradient = logit_gradient(log_p, batch, layout).to(logits.dtype)
            recorder.backward(logits, gradient)
        with torch.no_grad():
            return losses, {p: merge_terms(terms) for p, terms in recorder.terms().items()}

    @torch.no_grad()
    def _clip(
        self,
        terms: dict[nn.Parameter, list[Term]],
        losses: Tensor,
        layout: UnitLayout,
        max_grad_norm: float,
    ) -> ClipResult:
        with full_float32(losses.device):
            squares = [squared_norms(of_param, layout) for of_param in terms.values()]
            norms = torch.stack(squares).sum(0).sqrt() if squares else torch.zeros_like(losses)
            coefficients = clipping_coefficients(norms, max_grad_norm, self.tau)
            sound = torch.isfinite(norms) & torch.isfinite(losses)
            if not bool(sound.all()):
                coefficients = coefficients.masked_fill(~sound, 0)
                left_out = ~sound[layout.index_B]
                terms = {p: [t.without(left_out) for t in of] for p, of in terms.items()}
            for param, of_param in terms.items():
                for term in of_param:
                    term.add_clipped(param, coefficients, layout)
        return ClipResult(norms=norms, losses=losses)


def clipping_coefficients(norms_U: Tensor, max_grad_norm: float, tau: float) -> Tensor:
    """min(1, C / ((1 + tau) * norm)), 1 for norm 0; the caller deselects non-finite norms."""
    if math.isinf(max_grad_norm):
        return torch.ones_like(norms_U)
    return (max_grad_norm / ((1 + tau) * norms_U)).clamp(max=1.0)
