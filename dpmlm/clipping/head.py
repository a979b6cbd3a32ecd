"""The masked-position forward pass and its loss, shared by training and evaluation.

Only the masked positions go through what follows the last attention: the logits are [B, K, V]
instead of [B, T, V], and the row dimension is kept, so gradients stay per row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dpmlm.clipping.families import Family
from dpmlm.clipping.units import UnitLayout
from dpmlm.errors import UserError
from dpmlm.masking import MaskedBatch


def check_batch(model: nn.Module, family: Family, batch: MaskedBatch) -> None:
    """UserError for shapes that contradict each other or rows longer than the position table."""
    rows = len(batch)
    slots = batch.masked_positions.shape
    if (
        batch.attention_mask.shape != batch.input_ids.shape
        or len(slots) != 2
        or slots[0] != rows
        or batch.masked_labels.shape != slots
        or batch.masked_weights.shape != slots
    ):
        raise UserError(
            "batch",
            "ids and attention mask are [B, T], positions, labels and weights [B, K]",
            "build it with dpmlm.masking.make_batch",
        )
    if batch.input_ids.shape[1] > (limit := family.max_tokens(model)):
        raise UserError(
            f"rows of {batch.input_ids.shape[1]} tokens",
            f"the model's position table holds at most {limit}",
            "lower tokens.window or take a model with more positions",
        )


def used_slots(batch: MaskedBatch) -> Tensor:
    """bool [B, K]: slots with a weight; position and label of the others are ignored."""
    return batch.masked_weights > 0


def masked_logits(model: nn.Module, family: Family, batch: MaskedBatch) -> Tensor:
    """[B, K, V] logits at the masked positions (position 0 in unused slots)."""
    positions_BK = batch.masked_positions.masked_fill(~used_slots(batch), 0)
    rows_B1 = torch.arange(len(batch), device=positions_BK.device)[:, None]
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
    }
    if family.token_types and batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    encoder = getattr(model, family.encoder)
    with _gathered_early(model, family, rows_B1, positions_BK) as early:
        hidden = encoder(**inputs).last_hidden_state
    return family.head(model, hidden if early else hidden[rows_B1, positions_BK])


@contextmanager
def _gathered_early(
    model: nn.Module, family: Family, rows_B1: Tensor, positions_BK: Tensor
) -> Iterator[bool]:
    """Drops unmasked positions inside the last layer: nothing after it mixes positions."""
    site = family.gather_site(model)
    if site is None:
        yield False
        return
    module, end = site

    def gather(x: Any) -> Any:
        return x[rows_B1, positions_BK] if isinstance(x, Tensor) else x

    if end == "input":
        handle = module.register_forward_pre_hook(
            lambda _, args, kwargs: (
                tuple(map(gather, args)),
                {name: gather(value) for name, value in kwargs.items()},
            ),
            with_kwargs=True,
        )
    else:
        handle = module.register_forward_hook(lambda _, args, output: gather(output))
    try:
        yield True
    finally:
        handle.remove()


def slot_weights(batch: MaskedBatch, layout: UnitLayout) -> Tensor:
    """float32 [B, K]: share of a slot's cross-entropy in the sum of all unit losses.

    w[k] / max(sum_k w[k], 1) within its row, divided by the rows of its unit. It depends on the
    unit alone: a mean over the batch would let one example rescale all others before clipping.
    """
    weights = batch.masked_weights.float()
    rows = layout.sizes().clamp_min(1)[layout.index_B]
    return weights / (weights.sum(1, keepdim=True).clamp_min(1) * rows[:, None])


def losses_and_log_probabilities(
    logits_BKV: Tensor, batch: MaskedBatch, layout: UnitLayout
) -> tuple[Tensor, Tensor]:
    """(losses float32 [U], log-probabilities float32 [B, K, V])."""
    used = used_slots(batch)
    labels = batch.masked_labels.masked_fill(~used, 0)
    log_p = torch.log_softmax(logits_BKV.float(), -1)
    entropy = -log_p.gather(2, labels[..., None])[..., 0]
    return layout.total((entropy * slot_weights(batch, layout)).sum(1)), log_p


def logit_gradient(log_p_BKV: Tensor, batch: MaskedBatch, layout: UnitLayout) -> Tensor:
    """float32 [B, K, V]: gradient of the summed unit losses by the logits; reuses `log_p`.

    Closed form, (softmax - one-hot) * weight: autograd makes three more passes over [B, K, V].
    """
    used = used_slots(batch)
    labels = batch.masked_labels.masked_fill(~used, 0)[..., None]
    gradient = log_p_BKV.exp_()
    gradient.scatter_add_(2, labels, gradient.new_full(labels.shape, -1.0))
    gradient *= slot_weights(batch, layout)[..., None]
    return gradient
