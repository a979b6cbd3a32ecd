"""nn.Linear: the weight gradient of a row is g^T a, an outer product summed over positions."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from dpmlm.clipping.layers.registry import register_layer_rule
from dpmlm.clipping.layers.term import DirectTerm, Term, add_to_grad, zero_rows
from dpmlm.clipping.units import UnitLayout

FORM_PASSES = 45
"""Cost of one number of a formed gradient (written once, read twice) in multiply-adds: the two ways
cost the same at T^2 (d + p) = 45 d p, measured on a CPU for d from 128 to 768. Forming pays the
weight gradient once; the Gram way pays T^2 (d + p) for the norm and the weight gradient after."""
FORM_MEMORY = 4
"""A gradient is formed only while d*p is at most this many times the factors' T (d + p)."""
GRAM_BLOCK = 512
"""Features in one running sum of a Gram matrix."""


def forming_is_cheaper(positions: int, inputs: int, outputs: int) -> bool:
    """Whether to form per-unit gradients [p, d] rather than Gram matrices [T, T]."""
    factors, formed = positions * (inputs + outputs), inputs * outputs
    return FORM_PASSES * formed <= positions * factors and formed <= FORM_MEMORY * factors


def gram(x_UTd: Tensor) -> Tensor:
    """float32 [U, T, T]: inner products of positions, summed in blocks of GRAM_BLOCK features.

    A logit gradient is one number near -1 and V small ones whose squares vanish beside it in one
    running float32 sum: at V = 30,522 that alone is a relative error of 1e-5 in the norm.
    """
    blocks = [torch.bmm(x, x.mT) for x in x_UTd.split(GRAM_BLOCK, dim=2)]
    return blocks[0] if len(blocks) == 1 else torch.stack(blocks).sum(0)


class OuterTerm(Term):
    """sum_t g[t]^T a[t]: squared norm sum((a a^T) * (g g^T)), or of the formed product.

    Li et al. 2022 (arXiv 2110.05679), section 4; Bu et al. 2023 (arXiv 2210.00038), section 3.
    """

    def __init__(self, a: Tensor, g: Tensor) -> None:
        self.a = a
        """float32 [B, T, d]: the layer's input."""
        self.g = g
        """float32 [B, T, p]: the gradient of the summed unit losses by the layer's output."""
        self._grouped: tuple[Tensor, Tensor] | None = None
        self._formed: Tensor | None = None

    def grouped(self, layout: UnitLayout) -> tuple[Tensor, Tensor]:
        """(a [U, R*T, d], g [U, R*T, p])."""
        if self._grouped is None:
            self._grouped = layout.group(self.a), layout.group(self.g)
        return self._grouped

    def squared_norms(self, layout: UnitLayout) -> Tensor:
        a, g = self.grouped(layout)
        if forming_is_cheaper(a.shape[1], a.shape[2], g.shape[2]):
            formed_Upd = torch.bmm(g.mT, a)
            self._formed = formed_Upd.flatten(1)
            # by line first: one running float32 sum over p*d numbers is wrong by 1e-5
            return torch.linalg.vector_norm(formed_Upd, dim=2).square().sum(1)
        return (gram(a) * gram(g)).sum((1, 2)).clamp_min(0)

    def add_clipped(self, param: nn.Parameter, coefficients_U: Tensor, layout: UnitLayout) -> None:
        if self._formed is not None:
            add_to_grad(param, coefficients_U @ self._formed)
            return
        weight_B11 = coefficients_U[layout.index_B].view(-1, 1, 1)
        a, g = self.a, self.g
        if a.shape[2] <= g.shape[2]:
            a = a * weight_B11
        else:
            g = g * weight_B11
        left, right = g.flatten(0, 1).mT, a.flatten(0, 1)
        if param.grad is None:
            param.grad = left @ right
        else:
            param.grad.addmm_(left, right)

    def merged(self, other: "OuterTerm") -> "OuterTerm":
        return OuterTerm(torch.cat([self.a, other.a], 1), torch.cat([self.g, other.g], 1))

    def without(self, rows_B: Tensor) -> "OuterTerm":
        return OuterTerm(zero_rows(self.a, rows_B), zero_rows(self.g, rows_B))


@register_layer_rule(nn.Linear)
def linear_terms(module: nn.Module, a: Tensor, g: Tensor) -> Iterator[tuple[nn.Parameter, Term]]:
    """y = a W^T + b: W has sum_t g^T a, b has sum_t g."""
    layer = cast(nn.Linear, module)
    a = a.reshape(len(a), -1, layer.in_features).float()
    g = g.reshape(len(g), -1, layer.out_features).float()
    yield cast(nn.Parameter, layer.weight), OuterTerm(a, g)
    if layer.bias is not None and layer.bias.requires_grad:
        yield layer.bias, DirectTerm(g.sum(1))
