"""What the engine knows of the masked-LM classes of transformers: `Family`, an entry a class.

A class that stands here is done in one pass: how it computes was read and measured, and
`tests/clipping/test_clipping_models.py` measures it again. Every other class, a subclass of these
among them, is done one row at a time, which is exact whatever the forward pass does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

GatherSite = tuple[nn.Module, Literal["input", "output"]]


def _no_site(encoder: Any) -> GatherSite | None:
    return None


def _always(model: Any) -> bool:
    return True


@dataclass(frozen=True)
class Family:
    """How one class of transformers is done in one pass."""

    gather_site: Callable[[Any], GatherSite | None] = _no_site
    """(encoder) -> the point of the last layer after which positions no longer mix: only masked
    ones go on from there. Where there is none they are picked at the end of the encoder."""
    replays: frozenset[str] = frozenset()
    """Classes of modules without a layer rule whose gradient is formed by a second forward pass
    of that module: their output at a row depends on that row alone."""
    inert: frozenset[str] = frozenset()
    """Raw parameters that the forward pass reads only through a module they may be tied to."""
    holds: Callable[[Any], bool] = _always
    """(model) -> whether it is set up as it was measured; if not it is done row by row."""


def _after_attention(encoder: Any) -> GatherSite | None:
    """BERT's kind of layer: after the last attention each position is on its own."""
    layers = encoder.encoder.layer
    if not len(layers) or getattr(encoder.config, "chunk_size_feed_forward", None):
        return None
    return layers[-1].attention.output, "input"


def _after_distilbert_attention(encoder: Any) -> GatherSite | None:
    layers = encoder.transformer.layer
    if not len(layers) or encoder.config.chunk_size_feed_forward:
        return None
    return layers[-1].sa_layer_norm, "output"


def _without_relative_attention(model: Any) -> bool:
    """Relative positions are one table for all rows: their gradient is not a row's own."""
    return not getattr(model.config, "relative_attention", False)


def _bert(
    *replays: str,
    inert: str = "cls.predictions.bias",
    holds: Callable[[Any], bool] = _always,
) -> Family:
    return Family(_after_attention, frozenset(replays), frozenset({inert}), holds)


def _roberta() -> Family:
    return _bert(inert="lm_head.bias")


def _plain(*replays: str, inert: str = "lm_head.bias") -> Family:
    return Family(replays=frozenset(replays), inert=frozenset({inert}))


FAMILIES: dict[str, Family] = {
    "AlbertForMaskedLM": _plain(inert="predictions.bias"),
    "BertForMaskedLM": _bert(),
    "BigBirdForMaskedLM": _bert(),
    "CamembertForMaskedLM": _roberta(),
    "ConvBertForMaskedLM": _bert("Conv1d", "SeparableConv1D"),
    "Data2VecTextForMaskedLM": _roberta(),
    "DebertaForMaskedLM": _bert(
        "DebertaLayerNorm", "DisentangledSelfAttention", holds=_without_relative_attention
    ),
    "DebertaV2ForMaskedLM": _bert(holds=_without_relative_attention),
    "DistilBertForMaskedLM": Family(_after_distilbert_attention),
    "ElectraForMaskedLM": _bert(),
    "ErnieForMaskedLM": _bert(),
    "EsmForMaskedLM": Family(_after_attention, frozenset({"EsmLMHead"})),
    "EsmcForMaskedLM": _plain("EsmcLayerNorm"),
    "EuroBertForMaskedLM": _plain("EuroBertRMSNorm"),
    "FNetForMaskedLM": _plain(inert="cls.predictions.bias"),
    "FlaubertWithLMHeadModel": _plain(),
    "GteForMaskedLM": _plain(),
    "JinaEmbeddingsV3ForMaskedLM": _plain(),
    "LayoutLMForMaskedLM": _bert(),
    "LukeForMaskedLM": _bert("EntityPredictionHead", inert="lm_head.bias"),
    "MegatronBertForMaskedLM": _bert(),
    "ModernBertForMaskedLM": _plain(),
    "NomicBertForMaskedLM": _plain(inert="cls.predictions.bias"),
    "NystromformerForMaskedLM": _bert("Conv2d"),
    "RemBertForMaskedLM": _bert(),
    "RoFormerForMaskedLM": _bert(),
    "RobertaForMaskedLM": _roberta(),
    "RobertaPreLayerNormForMaskedLM": _roberta(),
    "SqueezeBertForMaskedLM": _plain(
        "Conv1d", "SqueezeBertLayerNorm", inert="cls.predictions.bias"
    ),
    "TapasForMaskedLM": _bert(),
    "UltrabertForMaskedLM": _plain("UltrabertRMSNorm"),
    "XLMRobertaForMaskedLM": _roberta(),
    "XLMRobertaXLForMaskedLM": _roberta(),
    "XLMWithLMHeadModel": _plain(),
    "XmodForMaskedLM": _roberta(),
    "YosoForMaskedLM": _bert(),
}
"""Name of a class of `transformers.models` -> its entry; by name, as most are never imported."""


REFUSED = {
    "MraForMaskedLM": "without its CUDA kernel, which comes from the hub, its attention returns "
    "zeros, so that what is measured here is not what it is",
    "ReformerForMaskedLM": "its reversible layers have gradients in training mode alone, where "
    "its hashing is random",
}
"""Class of `transformers.models` -> why it cannot be done at all."""


def family_of(model: nn.Module) -> Family | None:
    """The entry of `model`'s exact class, if it has one and the model is set up as measured."""
    kind = type(model)
    if not kind.__module__.startswith("transformers.models."):
        return None
    family = FAMILIES.get(kind.__qualname__)
    return family if family is not None and family.holds(model) else None
