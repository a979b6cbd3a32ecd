"""Opacus' columns, each with the least repair that makes it run on a masked LM.

As it comes Opacus 1.6 runs none of these models:

* BERT's head owns a second name of the decoder's bias, which sends the whole head through
  functorch and breaks there. The name is removed; the decoder keeps its bias, and it is trained.
* Default positions and token types are one row for all: they are given a row each, or the
  position embedding's per-example gradient has batch 1.
* LayerNorm without bias is an AttributeError: ModernBERT is built with biases in its norms.
* Ghost clipping refuses tied parameters: the decoder gets a copy of the embedding.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn
from torch.optim import SGD

from dpmlm.bench.models import Workload, all_labels
from dpmlm.masking import MaskedBatch

Built = tuple[nn.Module, Callable[[MaskedBatch], None]]


def hooks_step(work: Workload, max_grad_norm: float) -> Built:
    """Per-example gradients by hooks, clipped and summed by Opacus' own optimizer."""
    module = GradSampleModule(_repaired(work), loss_reduction="sum")
    optimizer = DPOptimizer(SGD(module.parameters()), **_settings(work, max_grad_norm))

    def run(batch: MaskedBatch) -> None:
        with _quiet():
            _losses(work, module, batch).sum().backward()
        optimizer.clip_and_accumulate()
        for param in optimizer.params:
            param.grad = param.summed_grad

    return module, run


def ghost_step(work: Workload, max_grad_norm: float) -> Built:
    """Norms without per-example gradients, then a second backward pass of the weighted losses."""
    model = _repaired(work)
    decoder = model.get_output_embeddings()
    decoder.weight = nn.Parameter(decoder.weight.detach().clone())
    module = GradSampleModuleFastGradientClipping(
        model, max_grad_norm=max_grad_norm, use_ghost_clipping=True, loss_reduction="sum"
    )
    optimizer = DPOptimizerFastGradientClipping(
        SGD(module.parameters()), **_settings(work, max_grad_norm)
    )

    def run(batch: MaskedBatch) -> None:
        with _quiet():
            losses = _losses(work, module, batch)
            DPTensorFastGradientClipping(module, optimizer, losses, "sum").backward()

    return module, run


def _repaired(work: Workload) -> Any:
    if work.model.kind == "modernbert":
        return work.build(norm_bias=True)
    model: Any = work.build()
    del model.cls.predictions.bias
    return model


def _settings(work: Workload, max_grad_norm: float) -> dict[str, Any]:
    return {
        "noise_multiplier": 0.0,
        "max_grad_norm": max_grad_norm,
        "expected_batch_size": work.rows,
        "loss_reduction": "sum",
    }


def _losses(work: Workload, module: nn.Module, batch: MaskedBatch) -> Tensor:
    """float32 [B]: each row's mean cross-entropy over its masked tokens, through the full head."""
    rows, width = batch.input_ids.shape
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if work.model.kind == "bert":
        positions = torch.arange(width, device=batch.input_ids.device)
        inputs["position_ids"] = positions.repeat(rows, 1)
        inputs["token_type_ids"] = torch.zeros_like(batch.input_ids)
    labels = all_labels(batch)
    with work.autocast():
        logits = module(**inputs).logits.flatten(0, 1).float()
        each = nn.functional.cross_entropy(logits, labels.flatten(), reduction="none")
    return each.view(rows, width).sum(1) / (labels != -100).sum(1)


class _quiet(warnings.catch_warnings):
    """Without the warning that a hook fires where no input needs a gradient: token ids never do."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
