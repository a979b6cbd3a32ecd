"""The rules that turn one recorded call of a layer into the terms of its parameters' gradients.

A rule is registered for the exact class of a module: a subclass may compute something else.

    @register_layer_rule(nn.Linear)
    def linear_terms(module, a, g):
        yield module.weight, OuterTerm(a, g)
"""

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from dpmlm.clipping.layers.term import Term

LayerRule = Callable[[nn.Module, Tensor, Tensor], Iterator[tuple[nn.Parameter, Term]]]
"""(module, input a [B, ...], output gradient g [B, ...]) -> (parameter, term) pairs."""
LayerCheck = Callable[[nn.Module], str | None]
"""module -> why its gradients cannot be done exactly, or None."""

LAYER_RULES: dict[type[nn.Module], LayerRule] = {}
LAYER_CHECKS: dict[type[nn.Module], LayerCheck] = {}


def register_layer_rule(
    kind: type[nn.Module], check: LayerCheck | None = None
) -> Callable[[LayerRule], LayerRule]:
    """Makes the decorated function the rule of `kind`; `check` names settings it cannot honour."""

    def register(rule: LayerRule) -> LayerRule:
        LAYER_RULES[kind] = rule
        if check is not None:
            LAYER_CHECKS[kind] = check
        return rule

    return register
