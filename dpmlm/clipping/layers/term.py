"""`Term`: one layer call's share of a parameter's gradient, kept factored.

A parameter's gradient for a unit is the sum of its terms over the unit's rows. A term knows its
squared norm a unit, and adds its clipped sum to `p.grad`, without forming anything of the
parameter's size for every row unless that is the cheaper way.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from dpmlm.clipping.scale import Scale
from dpmlm.clipping.scratch import Scratch
from dpmlm.clipping.units import UnitLayout

ROUNDING = 5e-8
"""Error of a float32 sum of products, as part of the sum of their absolute values. That it is
enough is held by tests/clipping/test_clipping_cancelling.py, up to sums that vanish beside it."""


def add_to_grad(param: nn.Parameter, value: Tensor) -> None:
    """Adds `value` (of `param`'s shape, or flattened) to `param.grad`, made if there is none."""
    value = value.view(param.shape)
    if param.grad is None:
        param.grad = value
    else:
        param.grad.add_(value)


class Term(ABC):
    """Float32 factors of one share of a parameter's per-row gradient.

    In the order of their use: `merged`, `squared_norms`, `settle`, `leave_out`, `add_clipped`.
    """

    sparse: ClassVar[bool] = False
    """Whether it adds to few lines of `p.grad`, which has to be there in full before."""

    @abstractmethod
    def squared_norms(self, layout: UnitLayout, scratch: Scratch) -> Tensor:
        """float32 [U]: ||sum over the unit's rows of this share||^2.

        What is formed for it lies in `scratch` until the term was added.
        """

    @abstractmethod
    def add_clipped(self, param: nn.Parameter, coefficients_U: Tensor, layout: UnitLayout) -> None:
        """Adds sum_u c_u * (this share of unit u) to `param.grad`."""

    @abstractmethod
    def merged(self, other: Self) -> Self:
        """This share and `other`, both of one parameter, as one."""

    def settle(self) -> None:  # noqa: B027 (most have nothing to forget)
        """Called once the norm is known: forgets factors that adding does not need."""

    @abstractmethod
    def scaled(self, scale: Scale) -> Self:
        """This share with each number multiplied by its scale."""

    @abstractmethod
    def leave_out(self, units_U: Tensor, layout: UnitLayout) -> None:
        """Makes this share of the units that bool `units_U` marks an exact zero.

        Needed before any product: 0 * NaN is NaN.
        """


class DirectTerm(Term):
    """A share small enough to form for every row: biases and normalisation weights."""

    def __init__(self, gradient: Tensor) -> None:
        self.gradient = gradient
        """float32 [B, *parameter shape]."""

    def squared_norms(self, layout: UnitLayout, scratch: Scratch) -> Tensor:
        return layout.total(self.gradient).flatten(1).square().sum(1)

    def add_clipped(self, param: nn.Parameter, coefficients_U: Tensor, layout: UnitLayout) -> None:
        add_to_grad(param, coefficients_U[layout.index_B] @ self.gradient.flatten(1))

    def merged(self, other: "DirectTerm") -> "DirectTerm":
        return DirectTerm(self.gradient + other.gradient)

    def scaled(self, scale: Scale) -> "DirectTerm":
        return DirectTerm(self.gradient * scale.full())

    def leave_out(self, units_U: Tensor, layout: UnitLayout) -> None:
        self.gradient = zero_rows(self.gradient, units_U[layout.index_B])


def zero_rows(x: Tensor, rows: Tensor) -> Tensor:
    """A copy of `x` [N, ...] with zeros where bool `rows` [N] says so, whatever stood there."""
    return x.masked_fill(rows.view(-1, *[1] * (x.dim() - 1)), 0)


First = TypeVar("First", bound=Term)
Second = TypeVar("Second", bound=Term)
CrossRule = Callable[[First, Second, UnitLayout], Tensor]
CROSS_RULES: dict[tuple[type[Term], type[Term]], CrossRule[Term, Term]] = {}


def register_cross_rule(
    first: type[First], second: type[Second]
) -> Callable[[CrossRule[First, Second]], CrossRule[First, Second]]:
    """Makes the decorated function the inner product [U] of two kinds of term of one parameter."""

    def register(rule: CrossRule[First, Second]) -> CrossRule[First, Second]:
        CROSS_RULES[first, second] = cast(CrossRule[Term, Term], rule)
        return rule

    return register


def merge_terms(terms: list[Term]) -> list[Term]:
    """One term of each kind: a weight used n times in one forward counts as one longer use.

    Sparse ones come last: a dense one writes `p.grad` anew, where a sparse one has to clear it.
    """
    merged: dict[type[Term], Term] = {}
    for term in terms:
        kind = type(term)
        merged[kind] = merged[kind].merged(term) if kind in merged else term
    return sorted(merged.values(), key=lambda term: term.sparse)


def squared_norms(terms: list[Term], layout: UnitLayout, scratch: Scratch) -> Tensor:
    """float32 [U]: ||sum of terms||^2 for merged terms of one parameter, clamped at 0; settles
    them."""
    total = torch.stack([term.squared_norms(layout, scratch) for term in terms]).sum(0)
    size = total
    for i, first in enumerate(terms):
        for second in terms[i + 1 :]:
            product = 2 * _inner_product(first, second, layout)
            total, size = total + product, size + product.abs()
    for term in terms:
        term.settle()
    if len(terms) > 1:  # they may cancel
        total = total + ROUNDING * size
    return total.clamp_min(0)


def _inner_product(first: Term, second: Term, layout: UnitLayout) -> Tensor:
    if (rule := CROSS_RULES.get((type(first), type(second)))) is not None:
        return rule(first, second, layout)
    return CROSS_RULES[type(second), type(first)](second, first, layout)
