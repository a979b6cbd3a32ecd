"""Our columns: the plain Hugging Face step, our step without privacy, our step with privacy.

A step is the gradient of one micro-batch: forward, backward and, with privacy, norms and the
clipped sum. What it comes to stands in `p.grad`. Noise and optimizer are in `update`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from dpmlm.bench.models import Workload, all_labels
from dpmlm.bench.peers import ghost_step, hooks_step
from dpmlm.clipping import FLOAT32_TAU, clip_and_sum
from dpmlm.clipping.families import family_of
from dpmlm.clipping.grad_sample_module import clipping_coefficients
from dpmlm.clipping.head import logit_gradient, losses_and_log_probabilities, masked_logits
from dpmlm.clipping.rowwise import clip_rows
from dpmlm.clipping.structure import Structure
from dpmlm.clipping.units import UnitLayout
from dpmlm.masking import MaskedBatch

MAX_GRAD_NORM = 1.0
"""Clipping norm of every column that clips; it does not change what is computed."""

Run = Callable[[MaskedBatch], None]
Build = Callable[[Workload, float], tuple[nn.Module, Run]]


@dataclass(frozen=True)
class Step:
    """One column, ready to run."""

    model: nn.Module
    """Whose `p.grad` a run fills."""
    run: Run
    """The gradient of one batch; what is timed."""

    def clear(self) -> None:
        """Forget what a run left on the parameters; not timed."""
        for param in self.model.parameters():
            param.grad = None
            for name in ("grad_sample", "summed_grad", "_norm_sample"):
                if hasattr(param, name):
                    setattr(param, name, None)


@dataclass(frozen=True)
class Column:
    """One way to compute a gradient."""

    says: str
    """What it does, with every repair that its model needed."""
    build: Build
    """(workload, clipping norm) -> model and step."""

    def step(self, work: Workload, max_grad_norm: float = MAX_GRAD_NORM) -> Step:
        """The column on a model of its own."""
        return Step(*self.build(work, max_grad_norm))


def _plain(work: Workload, max_grad_norm: float) -> tuple[nn.Module, Run]:
    model: Any = work.build()

    def run(batch: MaskedBatch) -> None:
        with work.autocast():
            loss = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                labels=all_labels(batch),
            ).loss
        loss.backward()

    return model, run


def _own(work: Workload, max_grad_norm: float) -> tuple[nn.Module, Run]:
    model = work.build()

    def run(batch: MaskedBatch) -> None:
        layout = UnitLayout.of(len(batch), None, batch.input_ids.device)
        with work.autocast():
            logits = masked_logits(model, family_of(model), batch)
            with torch.no_grad():
                _, log_p = losses_and_log_probabilities(logits.detach(), batch, layout)
                gradient = logit_gradient(log_p, batch, layout).to(logits.dtype)
        torch.autograd.backward([logits], [gradient])

    return model, run


def _private(work: Workload, max_grad_norm: float) -> tuple[nn.Module, Run]:
    model = work.build()

    def run(batch: MaskedBatch) -> None:
        with work.autocast():
            clip_and_sum(model, batch, max_grad_norm)

    return model, run


def _compiled(build: Build) -> Build:
    """The same on a model that torch compiles when it is first run."""

    def made(work: Workload, max_grad_norm: float) -> tuple[nn.Module, Run]:
        model, run = build(work, max_grad_norm)
        model.compile()
        return model, run

    return made


def _recomputed(build: Build) -> Build:
    """The same with every layer run again in the backward pass."""

    def made(work: Workload, max_grad_norm: float) -> tuple[nn.Module, Run]:
        model: Any
        model, run = build(work, max_grad_norm)
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)()
        return model, run

    return made


def _row_by_row(work: Workload, max_grad_norm: float) -> tuple[nn.Module, Run]:
    model = work.build()
    trainable = Structure.of(model).trainable
    bound = partial(clipping_coefficients, max_grad_norm=max_grad_norm, tau=FLOAT32_TAU)

    def run(batch: MaskedBatch) -> None:
        layout = UnitLayout.of(len(batch), None, batch.input_ids.device)
        with work.autocast():
            clip_rows(model, trainable, batch, layout, bound)

    return model, run


STEPS = {
    "plain": Column(
        "forward and backward as transformers' Trainer runs them: head at every position, labels "
        "-100 where nothing is masked, mean over the batch's masked tokens",
        _plain,
    ),
    "own": Column(
        "our step without privacy: our forward pass (head at masked positions alone) and our loss "
        "gradient, then the ordinary backward pass of autograd; no norms, no clipping",
        _own,
    ),
    "private": Column("our step with privacy: dpmlm.clipping.clip_and_sum", _private),
    "opacus_hooks": Column(
        "Opacus GradSampleModule and DPOptimizer.clip_and_accumulate. Repairs: positions and token "
        "types given a row each; BERT's head without its own name for the decoder's bias; "
        "ModernBERT's norms with a bias",
        hooks_step,
    ),
    "opacus_ghost": Column(
        "Opacus GradSampleModuleFastGradientClipping with ghost clipping and its two backward "
        "passes. Repairs: those of opacus_hooks, and a decoder not tied to the embedding",
        ghost_step,
    ),
    "plain_compiled": Column("`plain` of a model after model.compile()", _compiled(_plain)),
    "plain_recomputed": Column(
        "`plain` with activation checkpointing as transformers does it", _recomputed(_plain)
    ),
    "private_recomputed": Column(
        "`private` with activation checkpointing: one pass for the norms, one for the sum",
        _recomputed(_private),
    ),
    "private_rows": Column(
        "`private` for a model that is not done in one pass: each row runs alone, whole head",
        _row_by_row,
    ),
}
"""By the names of `request.COLUMNS` and `request.MORE_COLUMNS`."""
