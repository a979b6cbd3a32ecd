"""`Workload`: one model, one batch shape; the same weights and tokens for every column."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
)

from dpmlm.bench.request import BenchModel, Precision
from dpmlm.masking import MaskedBatch, MaskingSpec

FIRST_WORD = 5
"""Ids below are special tokens: padding, unknown, begin, end, mask."""
SEED = 0


@dataclass(frozen=True)
class Workload:
    """What one row of the table measures; pickled to the processes that measure memory."""

    name: str
    """Of the model."""
    model: BenchModel
    """Its shape, the vocabulary that was asked for put in."""
    window: int
    """Tokens a row; no row is padded."""
    rows: int
    """Rows of the batch, each a unit."""
    device: str = "cpu"
    """Where model and batch live."""
    precision: Precision = "float32"
    """Type of matrix products, by autocast where it is not float32."""

    @property
    def slots(self) -> int:
        """Masked positions a row: 15 %, every slot used."""
        return MaskingSpec().masked_slots(self.window)

    def build(self, **settings: Any) -> PreTrainedModel:
        """The model in training mode without dropout; weights are a function of the shape alone.

        `settings` change its configuration.
        """
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            shared: dict[str, Any] = {
                "vocab_size": self.model.vocabulary,
                "hidden_size": self.model.hidden,
                "num_hidden_layers": self.model.layers,
                "num_attention_heads": max(1, self.model.hidden // 64),
                "intermediate_size": self.model.intermediate,
                "max_position_embeddings": max(512, self.window),
                "pad_token_id": 0,
            } | settings
            model: PreTrainedModel
            if self.model.kind == "bert":
                off: dict[str, Any] = {
                    "hidden_dropout_prob": 0.0,
                    "attention_probs_dropout_prob": 0.0,
                }
                model = BertForMaskedLM(BertConfig(**shared, **off))
            else:
                own = {"cls": 2, "sep": 3, "bos": 2, "eos": 3}
                ids: dict[str, Any] = {f"{role}_token_id": id for role, id in own.items()}
                model = ModernBertForMaskedLM(ModernBertConfig(**shared, **ids))
        torch.nn.Module.to(model, self.device)
        return model.train()

    def batch(self, rows: int | None = None) -> MaskedBatch:
        """Random ids, no padding, every slot used; `rows` of them (the workload's own number)."""
        rows = self.rows if rows is None else rows
        generator = torch.Generator().manual_seed(SEED)
        draw = partial(torch.randint, FIRST_WORD, self.model.vocabulary, generator=generator)
        ids = draw(size=(rows, self.window))
        order = torch.rand(rows, self.window, generator=generator).argsort(1)
        batch = MaskedBatch(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            masked_positions=order[:, : self.slots],
            masked_labels=draw(size=(rows, self.slots)),
            masked_weights=torch.ones(rows, self.slots),
        )
        return batch.to(self.device)

    def autocast(self) -> torch.autocast:
        """bfloat16 matrix products inside, or nothing for float32."""
        return torch.autocast(
            self.device, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"
        )


def all_labels(batch: MaskedBatch) -> Tensor:
    """int64 [B, T]: labels at the masked positions, -100 elsewhere, as Hugging Face takes them."""
    empty = torch.full_like(batch.input_ids, -100)
    return empty.scatter(1, batch.masked_positions, batch.masked_labels)
