"""nn.Embedding: a row's gradient adds each output gradient to the line of its index."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from dpmlm.clipping.layers.registry import register_layer_rule
from dpmlm.clipping.layers.term import Term, zero_rows
from dpmlm.clipping.scale import Scale
from dpmlm.clipping.scratch import Scratch
from dpmlm.clipping.units import UnitLayout


class LookupTerm(Term):
    """Lines `ids` of a table receive `e`; equal ids of a unit add up before the norm.

    The squared norm is sum over t, s with ids[t] = ids[s] of <e[t], e[s]>, computed by summing
    the output gradients of each (unit, id) pair: nothing of the table's size for any unit
    (compare the sparse embedding norms of Kong and Munoz Medina, NeurIPS 2023).
    """

    sparse = True

    def __init__(self, ids: Tensor, e: Tensor) -> None:
        self.ids = ids
        """int64 [B, T]."""
        self.e = e
        """float32 [B, T, H]; zero where the id is the table's padding_idx."""
        self._pairs: tuple[Tensor, Tensor, Tensor] | None = None

    def pairs(self, layout: UnitLayout, lines: int) -> tuple[Tensor, Tensor, Tensor]:
        """(unit [N], id [N], summed gradient [N, H]) of the distinct (unit, id) pairs."""
        if self._pairs is None:
            keys = layout.index_B[:, None] * lines + self.ids
            distinct, inverse = torch.unique(keys, return_inverse=True)
            index = inverse.reshape(-1, 1).expand(-1, self.e.shape[2])
            summed = self.e.new_zeros(len(distinct), self.e.shape[2])
            summed.scatter_add_(0, index, self.e.flatten(0, 1))
            self._pairs = distinct // lines, distinct % lines, summed
        return self._pairs

    def squared_norms(self, layout: UnitLayout, scratch: Scratch) -> Tensor:
        unit, _, summed = self.pairs(layout, int(self.ids.max()) + 1)
        return summed.new_zeros(layout.count).index_add_(0, unit, summed.square().sum(1))

    def add_clipped(self, param: nn.Parameter, coefficients_U: Tensor, layout: UnitLayout) -> None:
        unit, ids, summed = self.pairs(layout, int(self.ids.max()) + 1)
        if param.grad is None:
            param.grad = torch.zeros_like(param)
        weighted = summed * coefficients_U[unit, None]
        param.grad.scatter_add_(0, ids[:, None].expand_as(weighted), weighted)

    def merged(self, other: "LookupTerm") -> "LookupTerm":
        return LookupTerm(torch.cat([self.ids, other.ids], 1), torch.cat([self.e, other.e], 1))

    def scaled(self, scale: Scale) -> "LookupTerm":
        lines, columns = scale.factors
        return LookupTerm(self.ids, self.e * lines[self.ids][..., None] * columns)

    def leave_out(self, units_U: Tensor, layout: UnitLayout) -> None:
        self.e = zero_rows(self.e, units_U[layout.index_B])
        self._pairs = None


def unsupported_embedding(module: nn.Module) -> str | None:
    """Settings that make a row's gradient depend on other rows or change weights in forward."""
    table = cast(nn.Embedding, module)
    if table.max_norm is not None:
        return "max_norm rewrites weights during the forward pass"
    if table.scale_grad_by_freq:
        return "scale_grad_by_freq divides by counts over the whole batch"
    if table.sparse:
        return "sparse gradients cannot carry noise on every line"
    return None


@register_layer_rule(nn.Embedding, unsupported_embedding)
def embedding_terms(module: nn.Module, a: Tensor, g: Tensor) -> Iterator[tuple[nn.Parameter, Term]]:
    """Ids equal to `padding_idx` receive nothing, as in torch."""
    table = cast(nn.Embedding, module)
    ids = a.reshape(len(a), -1)
    e = g.reshape(*ids.shape, table.embedding_dim).float()
    if table.padding_idx is not None:
        e = e.masked_fill((ids == table.padding_idx)[..., None], 0)
    yield cast(nn.Parameter, table.weight), LookupTerm(ids, e)
