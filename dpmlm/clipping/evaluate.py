"""Loss and accuracy at masked positions, without gradients, by the path that training uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dpmlm.clipping.families import family_of
from dpmlm.clipping.head import (
    check_batch,
    losses_and_log_probabilities,
    masked_logits,
    used_slots,
)
from dpmlm.clipping.structure import unwrapped
from dpmlm.clipping.units import UnitLayout
from dpmlm.masking import MaskedBatch


class MaskedLMLoss(NamedTuple):
    """Losses by unit and hits by slot."""

    losses: Tensor
    """float32 [U], nats a masked token, weighted as in `clip_and_sum`."""
    correct1: Tensor
    """bool [B, K]: the label has the highest logit; False in unused slots."""
    correct5: Tensor
    """bool [B, K]: the label is among the five highest logits; False in unused slots."""
    cross_entropies: Tensor
    """float32 [B, K], nats; 0 in unused slots."""
    confidences: Tensor
    """float32 [B, K]: probability of the first guess; 0 in unused slots."""


@dataclass(frozen=True)
class EvalResult:
    """Sums over the weighted slots of a batch; add over batches, then divide by `weight_sum`."""

    loss_sum: float
    """Weighted cross-entropies, nats."""
    weight_sum: float
    """Weights of the slots."""
    top1: float
    """Weight of the slots whose label has the highest logit."""
    top5: float
    """Weight of the slots whose label is among the five highest logits."""


@torch.no_grad()
def masked_lm_loss(model: nn.Module, batch: MaskedBatch) -> MaskedLMLoss:
    """Forward pass only, in the model's present mode; UserError as `clip_and_sum`."""
    model = unwrapped(model)
    check_batch(model, batch)
    device = batch.input_ids.device
    layout = UnitLayout.of(len(batch), batch.unit_index, device)
    used = used_slots(batch)
    if used.numel() == 0:
        losses = torch.zeros(layout.count, device=device)
        return MaskedLMLoss(losses, used, used.clone(), used.float(), used.float())
    losses, log_p = losses_and_log_probabilities(
        masked_logits(model, family_of(model), batch), batch, layout
    )
    labels = batch.masked_labels.masked_fill(~used, 0)[..., None]
    guesses = log_p.topk(min(5, log_p.shape[2]))
    best = guesses.indices == labels
    entropies = -log_p.gather(2, labels)[..., 0].masked_fill(~used, 0)
    confidences = guesses.values[..., 0].exp().masked_fill(~used, 0)
    return MaskedLMLoss(losses, best[..., 0] & used, best.any(2) & used, entropies, confidences)


def evaluate_batch(model: nn.Module, batch: MaskedBatch) -> EvalResult:
    """`masked_lm_loss` with dropout off, summed over the batch's slots."""
    with evaluating(model):
        found = masked_lm_loss(model, batch)
    weights = batch.masked_weights.double()
    return EvalResult(
        loss_sum=float((weights * found.cross_entropies).sum()),
        weight_sum=float(weights.sum()),
        top1=float((weights * found.correct1).sum()),
        top5=float((weights * found.correct5).sum()),
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's own mode is put back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
