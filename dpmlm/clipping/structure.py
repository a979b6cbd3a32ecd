"""`Structure`: the trainable layers of a supported model, or the reason why it is refused."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from transformers import PreTrainedModel

from dpmlm.clipping.families import REFUSED, Family, family_of
from dpmlm.clipping.layers import LAYER_CHECKS, LAYER_RULES
from dpmlm.clipping.recompute import recomputed_layers
from dpmlm.errors import UserError


@dataclass(frozen=True)
class Structure:
    """What to record on a model to get every trainable parameter's gradient exactly."""

    model: Any
    """The masked LM, without what adapters wrap around it."""
    family: Family | None
    """How it is done in one pass; None: one row at a time."""
    layers: tuple[nn.Module, ...]
    """Modules with a layer rule and a trainable parameter of their own."""
    replayed: tuple[nn.Module, ...]
    """Modules with a trainable parameter that no layer rule covers."""
    trainable: tuple[nn.Parameter, ...]
    """Each trainable parameter once, tied ones too."""
    recomputed: tuple[nn.Module, ...] = ()
    """Layers that run again in the backward pass; a row on its own needs none of that."""

    @property
    def path(self) -> Literal["one pass", "row by row"]:
        """How the clipped sum is formed."""
        return "row by row" if self.family is None else "one pass"

    @classmethod
    def of(cls, model: nn.Module) -> "Structure":
        """Looks at `model` as it is now: parameters frozen since are left out exactly.

        Raises UserError, naming the module and the reason, for a model whose per-example
        gradients cannot be done exactly.
        """
        core = unwrapped(model)
        if not isinstance(core, PreTrainedModel):
            raise UserError(
                f"model of type {type(core).__name__}",
                "it is not a model of transformers",
                "load one with transformers.AutoModelForMaskedLM",
            )
        _check_settings(core)
        trainable = tuple(p for p in core.parameters() if p.requires_grad)
        _check_adapters(model, trainable)
        for name, param in core.named_parameters():
            _check_dtype(name, param)
        for name, module in core.named_modules():
            _check_layer(name, module)
        family = family_of(core)
        layers, others = _by_rule(core, family.inert if family is not None else frozenset())
        if family is None or not _replayable(family, layers, others):
            return cls(core, None, (), (), trainable)
        return cls(core, family, layers, others, trainable, recomputed_layers(core))


def unwrapped(model: nn.Module) -> nn.Module:
    """The masked LM inside a PEFT model, whose adapters stand in its layers; else `model`.

    Raises UserError for what `torch.compile` made of one.
    """
    if hasattr(model, "_orig_mod"):
        raise UserError(
            "a model that torch.compile made",
            "compiled code may pass over the hooks that gradients are recorded by",
            "give the model itself",
        )
    inner = getattr(model, "get_base_model", None)
    return cast(nn.Module, inner()) if callable(inner) else model


def _check_adapters(model: nn.Module, trainable: tuple[nn.Parameter, ...]) -> None:
    """A prompt or prefix that PEFT keeps beside the masked LM is not in its forward pass."""
    inside = {id(p) for p in trainable}
    for name, param in model.named_parameters():
        if param.requires_grad and id(param) not in inside:
            raise UserError(
                f"parameter {name}",
                "it is trainable and outside of the masked LM, so its gradient is not had",
                "use an adapter that stands in the model's layers, such as LoRA",
            )


def _replayable(
    family: Family, layers: tuple[nn.Module, ...], others: tuple[nn.Module, ...]
) -> bool:
    """Whether all others were measured, share no parameter with a ruled layer, and drop nothing:
    a second forward pass would drop other values."""
    ruled = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    shared = [p for other in others for p in other.parameters(recurse=False) if id(p) in ruled]
    inside = [module for other in others for module in other.modules()]
    drops = any(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in inside)
    known = all(type(other).__name__ in family.replays for other in others)
    return known and not shared and not drops


def _by_rule(
    model: nn.Module, inert: frozenset[str]
) -> tuple[tuple[nn.Module, ...], tuple[nn.Module, ...]]:
    """(modules with a rule, other modules with a parameter that is used); trainable ones alone."""
    ruled, others = [], []
    for name, module in model.named_modules():
        own = [key for key, p in module.named_parameters(recurse=False) if p.requires_grad]
        if own and type(module) in LAYER_RULES:
            ruled.append(module)
        elif any(f"{name}.{key}".lstrip(".") not in inert for key in own):
            others.append(module)
    return tuple(ruled), tuple(others)


def _check_settings(model: Any) -> None:
    kind = type(model).__name__
    if kind in REFUSED:
        raise UserError(
            f"model of type {kind}",
            f"its per-example gradients cannot be exact: {REFUSED[kind]}",
            "take another type; docs/models.md lists those that are exact",
        )
    if any(getattr(module, "_compiled_call_impl", None) for module in model.modules()):
        raise UserError(
            f"{kind} after compile()",
            "compiled code may pass over the hooks that gradients are recorded by",
            "leave the model as it was loaded",
        )
    if getattr(model.base_model, "attention_type", "original_full") != "original_full":
        raise UserError(
            f"{kind} with attention_type {model.base_model.attention_type}",
            "its first short row turns that into full attention for good, so that a row's "
            "gradient depends on the rows before it",
            "call model.base_model.set_attention_type('original_full')",
        )
    if getattr(model.config, "is_decoder", False):
        raise UserError(
            "config.is_decoder=True",
            "masked language models attend in both directions",
            "load the model with is_decoder=False",
        )


def _check_layer(name: str, module: nn.Module) -> None:
    if isinstance(module, _NormBase) and module.training and module.track_running_stats:
        raise UserError(
            f"module {name} ({type(module).__name__})",
            "its running statistics take in the batch without clipping and without noise",
            "call model.eval(), or replace it by a LayerNorm",
        )
    if not any(p.requires_grad for p in module.parameters(recurse=False)):
        return
    check = LAYER_CHECKS.get(type(module))
    if check is not None and (reason := check(module)) is not None:
        raise UserError(
            f"module {name} ({type(module).__name__})",
            f"its per-example gradients cannot be exact: {reason}",
            "switch that setting off or freeze the module's parameters",
        )


def _check_dtype(name: str, param: nn.Parameter) -> None:
    if param.requires_grad and param.dtype != torch.float32:
        raise UserError(
            f"parameter {name} of type {param.dtype}",
            "gradients and noise are summed in float32, which p.grad takes from the parameter",
            "call model.float() and use torch.autocast for lower-precision arithmetic",
        )
