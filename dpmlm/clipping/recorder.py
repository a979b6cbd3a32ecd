"""`Recorder`: inputs and output gradients of the trainable layers, from one forward and backward.

While it is active no parameter requires a gradient, so autograd computes activation gradients
alone; the weight gradient is paid once, later, with the clipping coefficients inside. Everything
it changes on the model is put back when it closes, also after an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dpmlm.clipping.layers import LAYER_RULES, Term, replay_terms, tensors_of
from dpmlm.clipping.structure import Structure
from dpmlm.errors import UserError


@dataclass
class _Call:
    """One forward call of a layer."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    gradients: list[Tensor | None] = field(default_factory=list)
    """Of the summed unit losses by each tensor of the output; None where nothing comes back."""
    starts: dict[int, Tensor] = field(default_factory=dict)
    """Outputs where the recorded graph starts, by their place in `gradients`."""

    def watch(self, place: int, output: Tensor) -> None:
        self.gradients.append(None)
        if output.requires_grad:
            output.register_hook(partial(self._receive, place))
        else:
            self.starts[place] = output.requires_grad_()

    def _receive(self, place: int, gradient: Tensor) -> None:
        self.gradients[place] = gradient


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
            self._handles.append(module.register_forward_hook(self._on_layer))
        for module in self._structure.replayed:
            self._handles.append(module.register_forward_hook(self._on_replayed, with_kwargs=True))
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

    def _on_layer(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        call = _Call(module, (self._spread(module, inputs[0].detach()),))
        output = self._spread(module, output)
        call.watch(0, output)
        self._calls.append(call)
        return output

    def _on_replayed(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        call = _Call(module, args, kwargs)
        for place, found in enumerate(tensors_of(output)):
            if found.shape[0] != self._rows:
                raise self._other_rows(module, found)
            call.watch(place, found)
        self._calls.append(call)

    def _spread(self, module: nn.Module, x: Tensor) -> Tensor:
        """[1, T, ...] that is broadcast over the batch, as [B, T, ...]: else rows share one g."""
        if x.dim() < 2 or x.shape[0] not in (1, self._rows):
            raise self._other_rows(module, x)
        return x if x.shape[0] == self._rows else x.expand(self._rows, *x.shape[1:])

    def _other_rows(self, module: nn.Module, x: Tensor) -> UserError:
        return UserError(
            f"module {type(module).__name__} called with shape {tuple(x.shape)}",
            f"the first dimension must be the {self._rows} rows of the batch",
            "use an attention implementation that keeps the batch dimension (sdpa, eager)",
        )

    def backward(self, output: Tensor, gradient: Tensor) -> None:
        """Runs the one backward pass, from `gradient` at `output`."""
        if not output.requires_grad:
            return
        starts = [(call, place) for call in self._calls for place in call.starts]
        leaves = [call.starts[place] for call, place in starts]
        found = torch.autograd.grad(output, leaves, gradient, allow_unused=True)
        for (call, place), g in zip(starts, found):
            call.gradients[place] = g
        for call in self._calls:
            call.starts.clear()

    def terms(self) -> dict[nn.Parameter, list[Term]]:
        """The gradient of every trainable parameter reached, as factored terms.

        To be called after the recorder has closed: rules look at `requires_grad`.
        """
        terms: dict[nn.Parameter, list[Term]] = {}
        for call in self._calls:
            if all(g is None for g in call.gradients):
                continue
            for param, term in self._terms_of(call):
                if param.requires_grad:
                    terms.setdefault(param, []).append(term)
        self._calls.clear()
        return terms

    def _terms_of(self, call: _Call) -> Iterator[tuple[nn.Parameter, Term]]:
        rule, gradient = LAYER_RULES.get(type(call.module)), call.gradients[0]
        if rule is not None and gradient is not None:
            return rule(call.module, call.args[0], gradient)
        return replay_terms(call.module, call.args, call.kwargs, call.gradients, self._rows)
