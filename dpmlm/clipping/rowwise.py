"""Clipping one row at a time: exact for every model whose forward pass autograd can follow.

Slower than one pass, and done where a model's inner workings are not known. A row is run alone, so
nothing that the model does can bring another unit into its gradient.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dpmlm.clipping.head import losses_and_log_probabilities, masked_logits
from dpmlm.clipping.precision import full_float32
from dpmlm.clipping.recompute import without_recomputing
from dpmlm.clipping.result import ClipResult
from dpmlm.clipping.scale import Scales
from dpmlm.clipping.units import UnitLayout
from dpmlm.masking import MaskedBatch


def clip_rows(
    model: nn.Module,
    trainable: tuple[nn.Parameter, ...],
    batch: MaskedBatch,
    layout: UnitLayout,
    coefficients: Callable[[Tensor], Tensor],
    scales: Scales | None = None,
) -> ClipResult:
    """Adds the clipped sum to `p.grad`; holds the gradient of one unit at a time.

    `coefficients` maps norms, float32 [U], to factors. A unit whose loss or norm is not finite is
    left out.
    """
    norms, losses = [], []
    for unit in range(layout.count):
        rows = (layout.index_B == unit).nonzero()[:, 0].tolist()
        loss, gradient = unit_gradient(model, trainable, batch, rows)
        with torch.no_grad(), full_float32(loss.device):
            if scales is not None:
                gradient = [
                    None if g is None else g * scales[param].full()
                    for param, g in zip(trainable, gradient)
                ]
            squares = [g.square().sum() for g in gradient if g is not None]
            norm = torch.stack(squares).sum().sqrt() if squares else torch.zeros_like(loss)
            norms.append(norm)
            losses.append(loss)
            if not bool(torch.isfinite(norm) & torch.isfinite(loss)):
                continue
            factor = coefficients(norm[None])[0]
            for param, g in zip(trainable, gradient):
                if g is not None and param.grad is None:
                    param.grad = g * factor
                elif g is not None and param.grad is not None:
                    param.grad.addcmul_(g, factor)
    return ClipResult(norms=torch.stack(norms), losses=torch.stack(losses))


def unit_gradient(
    model: nn.Module, trainable: tuple[nn.Parameter, ...], batch: MaskedBatch, rows: list[int]
) -> tuple[Tensor, list[Tensor | None]]:
    """(loss float32 [], gradient by parameter) of the unit that `rows` make up.

    None where a parameter is not reached. Uses the whole head.
    """
    total: list[Tensor | None] = [None] * len(trainable)
    loss = torch.zeros((), device=batch.input_ids.device)
    for row in rows:
        alone = batch.rows(slice(row, row + 1))
        layout = UnitLayout.of(1, None, loss.device)
        with torch.enable_grad(), without_recomputing(model):
            logits = masked_logits(model, None, alone)
            of_row, _ = losses_and_log_probabilities(logits, alone, layout)
            share = of_row[0] / len(rows)
            found = torch.autograd.grad(share, trainable, allow_unused=True)
        loss = loss + share.detach()
        for place, g in enumerate(found):
            before = total[place]
            if g is not None:
                total[place] = g if before is None else before + g
    return loss, total
