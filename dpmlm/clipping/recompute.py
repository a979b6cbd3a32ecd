"""Activation checkpointing: layers that run again in the backward pass instead of being kept.

`activation_checkpointing` asks for it, or transformers' own method on the model. The engine then
takes two passes, one for the norms and one for the clipped sum, as nothing of a layer outlives its
turn in either.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from dpmlm.errors import UserError


@contextmanager
def activation_checkpointing(model: nn.Module) -> Iterator[None]:
    """Inside, `clip_and_sum` recomputes every layer of `model`: less memory, more than twice the
    time, the same norms and sum.

    Raises UserError for a model without layers that transformers can run again.
    """
    layers = tuple(m for m in model.modules() if isinstance(m, GradientCheckpointingLayer))
    if not layers:
        raise UserError(
            f"activation checkpointing of {type(model).__name__}",
            "it has no layers that can run again",
            "leave it off; a smaller physical batch needs less memory too",
        )
    with _settings(layers, gradient_checkpointing=True):
        yield


def recomputed_layers(model: nn.Module) -> tuple[nn.Module, ...]:
    """Layers of `model` that are to be recomputed; empty where nobody asked for it."""
    asked = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    return tuple(m for m in asked if isinstance(m, GradientCheckpointingLayer))


@contextmanager
def recomputing(layers: tuple[nn.Module, ...]) -> Iterator[None]:
    """Inside, `layers` keep their inputs alone and run again in the backward pass.

    In evaluation mode too, which transformers leaves out. Dropout inside draws the same again.
    """
    with _settings(layers, gradient_checkpointing=True, training=True, function=_recompute):
        yield


@contextmanager
def without_recomputing(model: nn.Module) -> Iterator[None]:
    """Inside, every layer is kept, whatever was asked for."""
    layers = recomputed_layers(model)
    with _settings(layers, gradient_checkpointing=False):
        yield


@contextmanager
def _settings(
    layers: tuple[nn.Module, ...],
    *,
    gradient_checkpointing: bool,
    training: bool | None = None,
    function: Callable[..., Any] | None = None,
) -> Iterator[None]:
    """Sets these attributes of the layers themselves, not of what is in them; puts them back."""
    wanted = {
        "gradient_checkpointing": gradient_checkpointing,
        "training": training,
        "_gradient_checkpointing_func": function,
    }
    change = {name: value for name, value in wanted.items() if value is not None}
    found = [{name: getattr(layer, name, None) for name in change} for layer in layers]
    try:
        for layer in layers:
            layer.__dict__.update(change)
        yield
    finally:
        for layer, before in zip(layers, found):
            layer.__dict__.update(before)


def _recompute(run: partial[Any], hidden: Tensor, *others: Any) -> Any:
    """What transformers calls instead of a layer: (the layer with its keywords bound, positions).

    Raises UserError where a gradient would have to go back through a keyword, as it is lost there.
    """
    inside = [run.keywords, [x for x in others if not isinstance(x, Tensor)]]
    if any(isinstance(x, Tensor) and x.requires_grad for x in tree_leaves(inside)):
        raise UserError(
            "gradient checkpointing",
            "this model hands a layer something trainable by keyword or inside of another value, "
            "where its gradient is lost",
            "call model.gradient_checkpointing_disable() and use smaller physical batches",
        )
    if not hidden.requires_grad:  # everything below is frozen; the layer itself may not be
        hidden = hidden.detach().requires_grad_()
    return checkpoint(run, hidden, *others, use_reentrant=True)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Inside, the same work gives the same numbers to the last bit.

    The norms of one pass bound the sum of another. CPU kernels are repeatable; of CUDA's, the
    attention's backward pass is not unless asked.
    """
    found, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    try:
        if device.type == "cuda":
            torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(found, warn_only=warn)
