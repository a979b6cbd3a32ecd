"""Modules without a layer rule: their gradient is formed by running the module once more.

A small module of its own kind (a normalisation, a convolution, a layer with a raw scale) is not
worth a rule. Its inputs and the gradient at its outputs were recorded; a second forward pass of
this module alone, one row at a time, gives the gradient of the parameters that it owns.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from dpmlm.clipping.layers.term import DirectTerm, Term


def tensors_of(value: Any) -> list[Tensor]:
    """Floating-point tensors inside a module's output, in order."""
    leaves, _ = tree_flatten(value)
    return [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]


def replay_terms(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    gradients: Sequence[Tensor | None],
    rows: int,
) -> Iterator[tuple[nn.Parameter, Term]]:
    """(parameter, float32 [B, *shape]) of the parameters that `module` owns itself.

    `gradients` are those at the tensors of its output, None where nothing came back. Arguments
    whose first dimension is B are taken a row each, others as they are.
    """
    own = {n: p for n, p in module.named_parameters(recurse=False) if p.requires_grad}
    leaves, tree = tree_flatten((args, kwargs))
    by_row = [isinstance(x, Tensor) and x.dim() > 0 and x.shape[0] == rows for x in leaves]
    spread = [g.expand(rows, *g.shape[1:]).float() if g is not None else None for g in gradients]

    def product(params: dict[str, Tensor], row: list[Any], of_row: list[Tensor | None]) -> Tensor:
        whole = [x[None] if each else x for x, each in zip(row, by_row)]
        again_args, again_kwargs = tree_unflatten(whole, tree)
        found = tensors_of(functional_call(module, params, again_args, again_kwargs))
        pairs = [(y, g) for y, g in zip(found, of_row) if g is not None]
        return torch.stack([(y[0].float() * g).sum() for y, g in pairs]).sum()

    dims = [0 if each else None for each in by_row]
    outer = [None if g is None else 0 for g in spread]
    params: dict[str, Tensor] = {name: p.detach() for name, p in own.items()}
    with torch.enable_grad():
        formed = vmap(grad(product), in_dims=(None, dims, outer))(params, leaves, spread)
    for name, param in own.items():
        yield param, DirectTerm(formed[name].detach().float())
