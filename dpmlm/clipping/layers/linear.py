"""nn.Linear: the weight gradient of a row is g^T a, an outer product summed over positions."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from dpmlm.clipping.layers.registry import register_layer_rule
from dpmlm.clipping.layers.term import ROUNDING, DirectTerm, Term, add_to_grad, zero_rows
from dpmlm.clipping.scale import Scale
from dpmlm.clipping.scratch import Scratch
from dpmlm.clipping.units import UnitLayout

FORM_LIMIT = 2
"""A gradient is formed while its d p numbers are at most this many times the T (d + p) of its
factors. Forming pays the weight gradient once, but writes it and reads it twice; the Gram way pays
about T^2 (d + p) for the norm and the weight gradient after. Speed alone depends on it."""
LARGEST = 2**20
"""Numbers of a gradient from which on one as lopsided as a vocabulary's is never formed for a unit,
whatever it costs: it is as large as a small model."""
GRAM_BLOCK = 512
"""Features in one running sum of a Gram matrix."""
GRAM_PARTS = 4
"""Cuts along the positions of a Gram matrix, at most: 10 of 16 blocks are computed."""
GRAM_ROWS = 128
"""Positions of a block, at least: small products are slow ones."""


def forming_is_cheaper(positions: int, inputs: int, outputs: int) -> bool:
    """Whether to form per-unit gradients [p, d] rather than Gram matrices [T, T]."""
    of_vocabulary = inputs * outputs > LARGEST and max(inputs, outputs) > 4 * min(inputs, outputs)
    return not of_vocabulary and inputs * outputs <= FORM_LIMIT * positions * (inputs + outputs)


def gram(x_UTd: Tensor, y_USd: Tensor) -> Tensor:
    """float32 [U, T, S]: inner products of positions, summed in blocks of GRAM_BLOCK features.

    A logit gradient is one number near -1 and V small ones whose squares vanish beside it in one
    running float32 sum: at V = 30,522 that alone is a relative error of 1e-5 in the norm.
    """
    (x, y), *blocks = zip(x_UTd.split(GRAM_BLOCK, 2), y_USd.split(GRAM_BLOCK, 2), strict=True)
    products = torch.bmm(x, y.mT)
    for x, y in blocks:
        products.baddbmm_(x, y.mT)
    return products


def gram_inner(a_UTd: Tensor, g_UTp: Tensor) -> Tensor:
    """float32 [U]: sum((a a^T) * (g g^T)), rounded up. These matrices are symmetric: of long ones
    little more than half is computed.

    Where positions cancel (large inputs with something in common, output gradients that add up to
    zero) the sum is much smaller than what it is summed of, and so less exact than tau. `ROUNDING`
    times the sum of the absolute values is added: a norm must not be told too small.
    """
    positions = a_UTd.shape[1]
    size = -(-positions // max(1, min(GRAM_PARTS, positions // GRAM_ROWS)))
    total = a_UTd.new_zeros(len(a_UTd))
    for start in range(0, positions, size):
        rows, after = slice(start, start + size), slice(start + size, None)
        a, g = a_UTd[:, rows], g_UTp[:, rows]
        total += rounded_up(gram(a, a) * gram(g, g))
        if start + size < positions:
            beside = gram(a, a_UTd[:, after]) * gram(g, g_UTp[:, after])
            total += 2 * rounded_up(beside)
    return total


def rounded_up(products_UTS: Tensor) -> Tensor:
    """float32 [U]: the sum, and `ROUNDING` of the sum of absolute values on top."""
    return products_UTS.sum((1, 2)) + ROUNDING * products_UTS.abs().sum((1, 2))


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

    def squared_norms(self, layout: UnitLayout, scratch: Scratch) -> Tensor:
        a, g = self.grouped(layout)
        if forming_is_cheaper(a.shape[1], a.shape[2], g.shape[2]):
            shape = len(a), g.shape[2], a.shape[2]
            formed_Upd = torch.bmm(g.mT, a, out=scratch.empty(shape, a.device))
            self._formed = formed_Upd.flatten(1)
            # by line first: one running float32 sum over p*d numbers is wrong by 1e-5
            return torch.linalg.vector_norm(formed_Upd, dim=2).square().sum(1)
        return gram_inner(a, g).clamp_min(0)

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

    def scaled(self, scale: Scale) -> "OuterTerm":
        outputs, inputs = scale.factors
        return OuterTerm(self.a * inputs, self.g * outputs)

    def settle(self) -> None:
        if self._formed is not None:
            self.a, self.g = self.a.new_empty(0), self.g.new_empty(0)
        self._grouped = None

    def leave_out(self, units_U: Tensor, layout: UnitLayout) -> None:
        if self._formed is not None:
            self._formed = zero_rows(self._formed, units_U)
        else:
            rows_B = units_U[layout.index_B]
            self.a, self.g = zero_rows(self.a, rows_B), zero_rows(self.g, rows_B)


@register_layer_rule(nn.Linear)
def linear_terms(module: nn.Module, a: Tensor, g: Tensor) -> Iterator[tuple[nn.Parameter, Term]]:
    """y = a W^T + b: W has sum_t g^T a, b has sum_t g."""
    layer = cast(nn.Linear, module)
    a = a.reshape(len(a), -1, layer.in_features).float()
    g = g.reshape(len(g), -1, layer.out_features).float()
    yield cast(nn.Parameter, layer.weight), OuterTerm(a, g)
    if layer.bias is not None and layer.bias.requires_grad:
        yield layer.bias, DirectTerm(g.sum(1))
