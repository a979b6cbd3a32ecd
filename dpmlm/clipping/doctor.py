"""`check_model`: whether a model's per-unit gradients are exact, measured on the model itself."""

import math
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpmlm.clipping.evaluate import _evaluating
from dpmlm.clipping.families import Family
from dpmlm.clipping.grad_sample_module import MaskedLMGradSampleModule
from dpmlm.clipping.structure import Structure
from dpmlm.errors import UserError
from dpmlm.masking import MaskedBatch

EXACT = 1e-5
"""Largest relative error of a norm or of the clipped sum that counts as exact."""


@dataclass(frozen=True)
class ModelReport:
    """What `dpmlm doctor` prints."""

    exact: bool
    """Whether the model can be trained with the clipping norm it claims."""
    max_relative_error: float | None
    """Largest relative error of a norm or of the clipped sum; None where nothing was measured."""
    reason: str
    """Why not, naming the module; empty when exact."""
    family: str | None = None
    """Model family, where it is a supported one."""
    trainable: int = 0
    """Trainable numbers, tied ones once."""


def check_model(model: nn.Module, vocab_size: int | None = None) -> ModelReport:
    """Compares `clip_and_sum` with one-unit-at-a-time autograd through the model's own forward.

    The batch is synthetic: padding, a row of one token, a row without masks, units of several
    rows. It runs under the caller's autocast, dropout off. `vocab_size` is the tokenizer's; ids
    are drawn below it, and a tokenizer with more ids than the embedding is a reason. Gradients,
    mode and random state are as before afterwards. Memory: about five gradients.
    """
    try:
        structure = Structure.of(model)
    except UserError as refusal:
        return ModelReport(False, None, str(refusal))
    numbers = sum(p.numel() for p in structure.trainable)

    def report(error: float | None, reason: str) -> ModelReport:
        return ModelReport(not reason, error, reason, structure.family.name, numbers)

    lines = cast(nn.Embedding, cast(PreTrainedModel, model).get_input_embeddings()).num_embeddings
    if vocab_size is not None and vocab_size > lines:
        return report(None, f"the tokenizer has {vocab_size} ids, the embedding {lines} lines")
    if not structure.trainable:
        return report(None, "every parameter is frozen")
    batch = probe_batch(model, structure.family, min(vocab_size or lines, lines))
    error = _measure(model, structure, batch)
    if not error <= EXACT:
        return report(error, f"relative error {error:.1e} against one-unit gradients, {EXACT} held")
    return report(error, "")


def probe_batch(model: nn.Module, family: Family, vocab_size: int) -> MaskedBatch:
    """Six rows in five units with every awkward shape: the batch that `check_model` runs."""
    generator = torch.Generator().manual_seed(0)
    width = min(12, family.max_tokens(model))
    pad = cast(int, cast(PreTrainedModel, model).config.pad_token_id or 0)
    ids = torch.randint(0, vocab_size, (6, width), generator=generator)
    ids = ids.masked_fill(ids == pad, (pad + 1) % vocab_size)
    ids[4, 1 : width // 2] = pad  # attended padding: padding_idx must hold there too
    lengths = torch.tensor([width, max(1, width // 2), 1, width, width, max(1, width - 2)])
    mask = torch.arange(width) < lengths[:, None]
    positions = (torch.rand(6, 3, generator=generator) * lengths[:, None]).long()
    weights = torch.tensor([[1.0, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]])
    batch = MaskedBatch(
        input_ids=ids.masked_fill(~mask, pad),
        attention_mask=mask,
        masked_positions=positions,
        masked_labels=torch.randint(0, vocab_size, (6, 3), generator=generator),
        masked_weights=weights,
        unit_index=torch.tensor([4, 1, 2, 3, 0, 4]),
    )
    return batch.to(next(model.parameters()).device)


def _measure(model: nn.Module, structure: Structure, batch: MaskedBatch) -> float:
    found = [p.grad for p in structure.trainable]
    # formed twice, for norm and sum: a model's gradients for all units would not fit
    units = [partial(_unit_gradient, model, structure, batch, unit) for unit in range(5)]
    try:
        with _evaluating(model):
            norms = torch.stack([_norm(gradient()) for gradient in units])
            bound = float(norms[norms > 0].median())
            total = [torch.zeros_like(p) for p in structure.trainable]
            for norm, gradient in zip(norms.tolist(), units):
                scale = min(1.0, bound / norm) if norm > 0 else 1.0
                for to, g in zip(total, gradient()):
                    to.add_(g, alpha=scale)
            for param in structure.trainable:
                param.grad = None
            ours = MaskedLMGradSampleModule(model, tau=0.0).clip_and_sum(batch, bound)
        moved = [t - p.grad for p, t in zip(structure.trainable, total) if p.grad is not None]
        errors = [_norm(moved) / _norm(total), *_relative(ours.norms.double(), norms)]
        worst = float(torch.stack([torch.as_tensor(e).cpu() for e in errors]).max())
        return worst if not math.isnan(worst) else math.inf
    finally:
        for param, grad in zip(structure.trainable, found):
            param.grad = grad


def _unit_gradient(
    model: nn.Module, structure: Structure, batch: MaskedBatch, unit: int
) -> list[Tensor]:
    """The gradient of one unit's loss, through the whole head, a row at a time."""
    assert batch.unit_index is not None
    rows = (batch.unit_index == unit).nonzero()[:, 0].tolist()
    loss = torch.zeros((), device=batch.input_ids.device)
    for i in rows:
        row = batch.rows(slice(i, i + 1))
        logits = model(input_ids=row.input_ids, attention_mask=row.attention_mask).logits[0]
        log_p = torch.log_softmax(logits.float(), -1)[row.masked_positions[0]]
        entropy = -log_p.gather(1, row.masked_labels[0][:, None])[:, 0]
        weights = row.masked_weights[0]
        loss = loss + (weights * entropy).sum() / weights.sum().clamp_min(1) / len(rows)
    grads = torch.autograd.grad(loss, structure.trainable, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(structure.trainable, grads)]


def _norm(gradient: list[Tensor]) -> Tensor:
    return torch.stack([g.double().square().sum() for g in gradient]).sum().sqrt()


def _relative(ours: Tensor, truth: Tensor) -> list[Tensor]:
    return [(o - t).abs() / t if t > 0 else o.abs() for o, t in zip(ours, truth)]
