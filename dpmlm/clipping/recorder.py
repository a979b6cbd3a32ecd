"""`Recorder`: inputs and output gradients of the trainable layers, from one forward and backward.

While it is active no parameter requires a gradient, so autograd computes activation gradients
alone; the weight gradient is paid once, later, with the clipping coefficients inside. Everything
it changes on the model is put back when it closes, also after an error.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dpmlm.clipping.layers import LAYER_RULES, Term, merge_terms, replay_terms, tensors_of
from dpmlm.clipping.scale import Scales
from dpmlm.clipping.structure import Structure
from dpmlm.errors import UserError

Consumer = Callable[[nn.Parameter, list[Term]], None]
"""Called once with each parameter reached and its merged terms."""


@dataclass(eq=False)
class _Call:
    """One forward call of a layer."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    gradients: list[Tensor | None] = field(default_factory=list)
    """Of the summed unit losses by each tensor of the output; None where nothing comes back."""


class Recorder:
    """Context manager around one forward and backward pass of `model` on B rows.

    Terms go to `consume`: all at the end, or, if `at_once`, each as soon as its parameter's last
    use is known, after which its factors are dropped. A parameter used n times (tied, or a layer
    that is called again) waits for all n.
    """

    def __init__(
        self,
        structure: Structure,
        rows: int,
        consume: Consumer,
        *,
        at_once: bool = False,
        scales: Scales | None = None,
    ) -> None:
        self._structure = structure
        self._trainable = frozenset(structure.trainable)
        self._rows = rows
        self._consume = consume
        self._at_once = at_once
        self._scales = scales
        self._calls: list[_Call] = []
        self._terms: dict[nn.Parameter, list[Term]] = {}
        self._uses: Counter[nn.Parameter] = Counter()
        self._forward, self._listens = True, True
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
        if not self._listens:
            return output
        output = self._spread(module, output)
        if self._counted(module):
            call = _Call(module, (self._spread(module, inputs[0].detach()),))
            self._watch(call, output)
        return output

    def _on_replayed(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        if not self._listens:
            return
        outputs = tensors_of(output)
        for found in outputs:
            if found.shape[0] != self._rows:
                raise self._other_rows(module, found)
        if self._counted(module):
            call = _Call(module, args, kwargs)
            for found in outputs:
                self._watch(call, found)

    def _counted(self, module: nn.Module) -> bool:
        """Whether this call is to be recorded.

        A layer that is recomputed is called twice: first for its output alone, without autograd,
        which is when its use is counted, and again in the backward pass, with it.
        """
        if self._forward:
            self._uses.update(module.parameters(recurse=False))
        return torch.is_grad_enabled()

    def _watch(self, call: _Call, output: Tensor) -> None:
        if not call.gradients:
            self._calls.append(call)
        place = len(call.gradients)
        call.gradients.append(None)
        if not output.requires_grad:
            output.requires_grad_()  # the recorded graph starts here
        output.register_hook(partial(self._receive, call, place))

    def _receive(self, call: _Call, place: int, gradient: Tensor) -> None:
        call.gradients[place] = gradient
        if self._at_once and len(call.gradients) == 1:
            self._calls.remove(call)
            for param in self._take(call):
                if len(self._terms[param]) == self._uses[param]:
                    self._hand_over(param)

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
        """Runs the one backward pass, from `gradient` at `output`, and hands over all terms."""
        self._forward = False
        if output.requires_grad:
            output.backward(gradient)
        for call in self._calls:
            if any(g is not None for g in call.gradients):
                self._take(call)
        self._calls.clear()
        for param in list(self._terms):
            self._hand_over(param)

    def _take(self, call: _Call) -> list[nn.Parameter]:
        """The parameters that got a term of this call."""
        own = [p for p in call.module.parameters(recurse=False) if p in self._trainable]
        found = []
        self._listens = False  # a rule may run the module once more
        with torch.no_grad():
            for param in own:
                param.requires_grad_(True)  # rules look at it
            for param, term in self._terms_of(call):
                if param in self._trainable:
                    if self._scales is not None:
                        term = term.scaled(self._scales[param])
                    self._terms.setdefault(param, []).append(term)
                    found.append(param)
            for param in own:
                param.requires_grad_(False)
        call.args, call.kwargs, call.gradients = (), {}, []  # hooks keep the call alive
        self._listens = True
        return found

    def _terms_of(self, call: _Call) -> Iterator[tuple[nn.Parameter, Term]]:
        rule, gradient = LAYER_RULES.get(type(call.module)), call.gradients[0]
        if rule is not None and gradient is not None:
            return rule(call.module, call.args[0], gradient)
        return replay_terms(call.module, call.args, call.kwargs, call.gradients, self._rows)

    def _hand_over(self, param: nn.Parameter) -> None:
        with torch.no_grad():
            self._consume(param, merge_terms(self._terms.pop(param)))
