"""The model families whose masked-LM head is known: where it starts and what reaches it.

A family is registered for one exact class: the forward pass of a subclass may differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import Tensor, nn

from dpmlm.errors import UserError

GatherSite = tuple[nn.Module, Literal["input", "output"]]


@dataclass(frozen=True)
class Family:
    """What the engine must know about one `*ForMaskedLM` class of transformers."""

    name: str
    """Family name in messages."""
    encoder: str
    """Attribute that holds the model without its head."""
    head: Callable[[nn.Module, Tensor], Tensor]
    """(model, hidden states [B, K, H]) -> logits [B, K, V]."""
    gather_site: Callable[[nn.Module], GatherSite | None]
    """The point of the last layer after which positions no longer mix: only masked ones go on."""
    inert: tuple[str, ...] = ()
    """Raw parameters that the forward pass reads only through a module they are tied to."""
    token_types: bool = True
    """Whether the encoder takes token_type_ids."""
    positions_after_padding: bool = False
    """Whether position numbers start after the padding id, so that fewer tokens fit."""

    def max_tokens(self, model: Any) -> int:
        """The longest row the position table can hold."""
        config = model.config
        used = config.pad_token_id + 1 if self.positions_after_padding else 0
        return cast(int, config.max_position_embeddings) - used


def _bert_head(model: Any, hidden_BKH: Tensor) -> Tensor:
    return cast(Tensor, model.cls(hidden_BKH))


def _roberta_head(model: Any, hidden_BKH: Tensor) -> Tensor:
    return cast(Tensor, model.lm_head(hidden_BKH))


def _distilbert_head(model: Any, hidden_BKH: Tensor) -> Tensor:
    x = model.activation(model.vocab_transform(hidden_BKH))
    return cast(Tensor, model.vocab_projector(model.vocab_layer_norm(x)))


def _bert_site(encoder: str) -> Callable[[nn.Module], GatherSite | None]:
    def site(model: Any) -> GatherSite | None:
        layers = getattr(model, encoder).encoder.layer
        if not len(layers) or model.config.chunk_size_feed_forward:
            return None
        return layers[-1].attention.output, "input"

    return site


def _distilbert_site(model: Any) -> GatherSite | None:
    layers = model.distilbert.transformer.layer
    if not len(layers) or model.config.chunk_size_feed_forward:
        return None
    return layers[-1].sa_layer_norm, "output"


_BERT = Family("BERT", "bert", _bert_head, _bert_site("bert"), inert=("cls.predictions.bias",))
_ROBERTA = Family(
    "RoBERTa",
    "roberta",
    _roberta_head,
    _bert_site("roberta"),
    inert=("lm_head.bias",),
    positions_after_padding=True,
)
_DISTILBERT = Family(
    "DistilBERT", "distilbert", _distilbert_head, _distilbert_site, token_types=False
)

FAMILIES: dict[str, Family] = {
    "transformers.models.bert.modeling_bert.BertForMaskedLM": _BERT,
    "transformers.models.roberta.modeling_roberta.RobertaForMaskedLM": _ROBERTA,
    "transformers.models.xlm_roberta.modeling_xlm_roberta.XLMRobertaForMaskedLM": _ROBERTA,
    "transformers.models.camembert.modeling_camembert.CamembertForMaskedLM": _ROBERTA,
    "transformers.models.distilbert.modeling_distilbert.DistilBertForMaskedLM": _DISTILBERT,
}
"""Full class name -> family; by name, so that no model code is imported before it is used."""


def family_of(model: nn.Module) -> Family:
    """The family of `model`'s exact class; UserError for any other."""
    kind = type(model)
    family = FAMILIES.get(f"{kind.__module__}.{kind.__qualname__}")
    if family is None:
        known = ", ".join(name.rsplit(".", 1)[1] for name in FAMILIES)
        raise UserError(
            f"model of type {kind.__name__}",
            f"per-example gradients are exact for {known} only",
            "load one of these with transformers.AutoModelForMaskedLM",
        )
    return family
