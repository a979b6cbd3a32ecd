"""`public_scales`: how large each number's gradients are on public text, as scales for training."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from dpmlm.clipping import Scale, clip_and_sum, evaluating, own_scratch, scales_from
from dpmlm.training.memory import rows_that_fit
from dpmlm.training.model import activation_checkpointing_if
from dpmlm.training.physical import PhysicalBatches
from dpmlm.training.ranks import Ranks
from dpmlm.training.recipe import Recipe
from dpmlm.training.units import View

GROUP = 16
"""Rows whose summed gradient is squared: few, so that what rows have in common does not hide how
large each one's gradient is."""


def public_scales(
    model: nn.Module, rows: Sequence[View], recipe: Recipe, power: float
) -> dict[str, Scale]:
    """Scales for training `model`, by parameter name, from its gradients as it stands now.

    `rows` are of text that is declared public. The same rows and weights give the same scales, up
    to float rounding and whatever fits into memory at once; nothing of the model changes but its
    gradients, which are gone.

    Raises UserError where not even one row fits.
    """
    device = next(model.parameters()).device
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    squares = {p: torch.zeros_like(p) for p in trainable.values()}
    groups = [rows[begin : begin + GROUP] for begin in range(0, len(rows), GROUP)]
    recipe = replace(recipe, precision="float32", windows_per_draw=1)
    with (
        evaluating(model),
        own_scratch(model),
        activation_checkpointing_if(recipe.activation_checkpointing, model),
    ):
        recipe = replace(recipe, physical_batch_size=_rows_at_once(model, recipe))
        batches = PhysicalBatches(recipe, Ranks(0, 1))  # each rank measures all of it
        for group in groups:
            batches.each(
                [[view] for view in group],
                lambda: _forget(trainable),
                lambda batch: clip_and_sum(model, batch.to(device), math.inf),
            )
            for p, square in squares.items():
                assert p.grad is not None  # clip_and_sum leaves one everywhere
                square.add_(p.grad.square(), alpha=1 / len(groups))
    _forget(trainable)
    scales = scales_from({p: square.detach() for p, square in squares.items()}, power)
    return {name: scales[p].to(torch.device("cpu")) for name, p in trainable.items()}


def _rows_at_once(model: nn.Module, recipe: Recipe) -> int:
    """Rows of a physical batch; the sum over a group is the same however it is cut."""
    if recipe.memory_limit is None:
        return recipe.physical_batch_size
    fit = rows_that_fit(model, recipe.table, recipe.masking, recipe.window, recipe.memory_limit)
    return max(1, fit)  # where not even one fits, training says so


def _forget(parameters: dict[str, nn.Parameter]) -> None:
    for p in parameters.values():
        p.grad = None
