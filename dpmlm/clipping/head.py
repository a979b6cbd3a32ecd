"""The masked-position forward pass and its loss, shared by training and evaluation.

Only the masked positions go through what follows the last attention: the logits are [B, K, V]
instead of [B, T, V], and the row dimension is kept, so gradients stay per row.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dpmlm.clipping.families import Family
from dpmlm.clipping.units import UnitLayout
from dpmlm.errors import UserError
from dpmlm.masking import MaskedBatch


def check_batch(model: nn.Module, batch: MaskedBatch) -> None:
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
    if bool((batch.masked_weights < 0).any()):
        raise UserError("masked_weights below 0", "a weight is 0 or more", "mend the batch")
    if batch.input_ids.shape[1] > (limit := max_tokens(model)):
        raise UserError(
            f"rows of {batch.input_ids.shape[1]} tokens",
            f"the model's position table holds at most {limit:g}",
            "lower tokens.window or take a model with more positions",
        )


def max_tokens(model: Any) -> float:
    """The longest row that fits the model's position table; infinite without one."""
    table = getattr(model.config, "max_position_embeddings", None)
    if table is None:
        return math.inf
    shift = 0
    for module in model.modules():
        positions = getattr(module, "position_embeddings", None)
        if isinstance(positions, nn.Embedding) and positions.padding_idx is not None:
            shift = positions.padding_idx + 1  # RoBERTa's kind numbers positions from there on
    return float(table - shift)


def used_slots(batch: MaskedBatch) -> Tensor:
    """bool [B, K]: slots with a weight; position and label of the others are ignored."""
    return batch.masked_weights > 0


def masked_logits(model: nn.Module, family: Family | None, batch: MaskedBatch) -> Tensor:
    """[B, K, V] logits at the masked positions (position 0 in unused slots).

    Without a family the whole head runs, and logits are picked at its end.
    """
    with masked_head(model, family, batch) as logits:
        return logits


@contextmanager
def masked_head(model: nn.Module, family: Family | None, batch: MaskedBatch) -> Iterator[Tensor]:
    """`masked_logits` as a context, which a backward pass that runs layers again stays in: they
    have to drop the same positions."""
    positions_BK = batch.masked_positions.masked_fill(~used_slots(batch), 0)
    rows_B1 = torch.arange(len(batch), device=positions_BK.device)[:, None]
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
    }
    if batch.token_type_ids is not None and _takes_token_types(model):
        inputs["token_type_ids"] = batch.token_type_ids
    if family is None:
        yield model(**inputs).logits[rows_B1, positions_BK]
        return
    with _only_masked(model, family, rows_B1, positions_BK):
        yield model(**inputs).logits


def _takes_token_types(model: nn.Module) -> bool:
    return "token_type_ids" in inspect.signature(model.forward).parameters


@contextmanager
def _only_masked(
    model: Any, family: Family, rows_B1: Tensor, positions_BK: Tensor
) -> Iterator[None]:
    """Drops unmasked positions where they stop mixing: in the last layer, or behind the encoder."""

    def gather(x: Any) -> Any:
        return x[rows_B1, positions_BK] if isinstance(x, Tensor) else x

    def gather_inputs(_: Any, args: Any, kwargs: Any) -> Any:
        return tuple(map(gather, args)), {name: gather(value) for name, value in kwargs.items()}

    def gather_encoded(_: Any, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return gather(output[0]), *output[1:]
        output["last_hidden_state"] = gather(output[0])
        return output

    encoder = model.base_model
    site = family.gather_site(encoder)
    if site is None:
        handle = encoder.register_forward_hook(gather_encoded)
    elif site[1] == "input":
        handle = site[0].register_forward_pre_hook(gather_inputs, with_kwargs=True)
    else:
        handle = site[0].register_forward_hook(lambda _, args, output: gather(output))
    try:
        yield
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
