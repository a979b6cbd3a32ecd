"""`Structure`: the trainable layers of a supported model, or the reason why it is refused."""

from dataclasses import dataclass

import torch
from torch import nn

from dpmlm.clipping.families import Family, family_of
from dpmlm.clipping.layers import LAYER_CHECKS, LAYER_RULES
from dpmlm.errors import UserError


@dataclass(frozen=True)
class Structure:
    """What to record on a model to get every trainable parameter's gradient exactly."""

    family: Family
    """Where the head starts."""
    layers: tuple[nn.Module, ...]
    """Modules with a layer rule and a trainable parameter of their own."""
    trainable: tuple[nn.Parameter, ...]
    """Each trainable parameter once, tied ones too."""

    @classmethod
    def of(cls, model: nn.Module) -> "Structure":
        """Looks at `model` as it is now: parameters frozen since are left out exactly.

        Raises UserError, naming the module and the reason, for a model whose per-example
        gradients cannot be done exactly.
        """
        family = family_of(model)
        _check_settings(model)
        layers = []
        covered: set[int] = set()
        for name, module in model.named_modules():
            own = [p for p in module.parameters(recurse=False) if p.requires_grad]
            if own and type(module) in LAYER_RULES:
                _check_layer(name, module)
                layers.append(module)
                covered.update(map(id, own))
        for name, param in model.named_parameters():
            _check_parameter(model, name, param, id(param) in covered or name in family.inert)
        trainable = tuple(p for p in model.parameters() if p.requires_grad)
        return cls(family, tuple(layers), trainable)


def _check_settings(model: nn.Module) -> None:
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise UserError(
            "gradient checkpointing",
            "layers that run twice cannot be recorded",
            "call model.gradient_checkpointing_disable() and use smaller physical batches",
        )
    if getattr(model.config, "is_decoder", False):
        raise UserError(
            "config.is_decoder=True",
            "masked language models attend in both directions",
            "load the model with is_decoder=False",
        )


def _check_layer(name: str, module: nn.Module) -> None:
    check = LAYER_CHECKS.get(type(module))
    if check is not None and (reason := check(module)) is not None:
        raise UserError(
            f"module {name} ({type(module).__name__})",
            f"its per-example gradients cannot be exact: {reason}",
            "switch that setting off or freeze the module's parameters",
        )


def _check_parameter(model: nn.Module, name: str, param: nn.Parameter, covered: bool) -> None:
    if not param.requires_grad:
        return
    owner_name, _, _ = name.rpartition(".")
    if not covered:
        owner = model.get_submodule(owner_name)
        raise UserError(
            f"module {owner_name} ({type(owner).__name__})",
            f"no layer rule gives the per-example gradient of its parameter {name}",
            "freeze it with requires_grad_(False) or register a rule for its class",
        )
    if param.dtype != torch.float32:
        raise UserError(
            f"parameter {name} of type {param.dtype}",
            "gradients and noise are summed in float32, which p.grad takes from the parameter",
            "call model.float() and use torch.autocast for lower-precision arithmetic",
        )
