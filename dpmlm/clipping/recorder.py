"""`Recorder`: inputs and output gradients of the trainable layers, from one forward and backward.

While it is active no parameter requires a gradient, so autograd computes activation gradients
alone; the weight gradient is paid once, later, with the clipping coefficients inside. Everything
it changes on the model is put back when it closes, also after an error.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dpmlm.clipping.layers import LAYER_RULES, Term
from dpmlm.clipping.structure import Structure
from dpmlm.errors import UserError


@dataclass
class _Call:
    """One forward call of a layer."""

    module: nn.Module
    a: Tensor
    """The layer's input [B, ...]."""
    leaf: Tensor | None = None
    """The layer's output where the recorded graph starts."""
    g: Tensor | None = None
    """Gradient of the summed unit losses by the layer's output; None if it does not reach it."""

    def receive(self, g: Tensor) -> None:
        self.g = g


class Recorder:
    """Context manager around one forward and backward pass of `model` on B rows."""

    def __init__(self, structure: Structure, rows: int) -> None:
        self._structure = structure
        self._rows = rows
        self._calls: list[_Call] = []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for param in self._structure.trainable:
            param.requires_grad_(False)
        for module in self._structure.layers:
            self._handles.append(module.register_forward_hook(self._on_forward))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        for param in self._structure.trainable:
            param.requires_grad_(True)

    def _on_forward(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        a = self._spread(module, inputs[0].detach())
        call = _Call(module, a)
        output = self._spread(module, output)
        if output.requires_grad:
            output.register_hook(call.receive)
        else:
            call.leaf = output.requires_grad_()
        self._calls.append(call)
        return output

    def _spread(self, module: nn.Module, x: Tensor) -> Tensor:
        """[1, T, ...] that is broadcast over the batch, as [B, T, ...]: else rows share one g."""
        if x.dim() < 2 or x.shape[0] not in (1, self._rows):
            raise UserError(
                f"module {type(module).__name__} called with shape {tuple(x.shape)}",
                f"the first dimension must be the {self._rows} rows of the batch",
                "use an attention implementation that keeps the batch dimension (sdpa, eager)",
            )
        return x if x.shape[0] == self._rows else x.expand(self._rows, *x.shape[1:])

    def backward(self, output: Tensor, gradient: Tensor) -> None:
        """Runs the one backward pass, from `gradient` at `output`."""
        starts = [call for call in self._calls if call.leaf is not None]
        if not output.requires_grad:
            return
        leaves = [call.leaf for call in starts if call.leaf is not None]
        found = torch.autograd.grad(output, leaves, gradient, allow_unused=True)
        for call, g in zip(starts, found):
            call.g, call.leaf = g, None

    def terms(self) -> dict[nn.Parameter, list[Term]]:
        """The gradient of every trainable parameter reached, as factored terms.

        To be called after the recorder has closed: rules look at `requires_grad`.
        """
        terms: dict[nn.Parameter, list[Term]] = {}
        for call in self._calls:
            if call.g is None:
                continue
            for param, term in LAYER_RULES[type(call.module)](call.module, call.a, call.g):
                if param.requires_grad:
                    terms.setdefault(param, []).append(term)
        self._calls.clear()
        return terms
