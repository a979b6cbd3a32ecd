"""The model that is trained: new from a size, or continued from a folder or hub name."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dpmlm.artifacts.models import no_progress_bar
from dpmlm.clipping import ModelReport, activation_checkpointing, check_model
from dpmlm.errors import UserError

SIZES = {"tiny": (128, 2, 2), "mini": (256, 4, 4), "small": (512, 4, 8)}
"""Name to (hidden size, layers, heads), the smaller BERTs of Turc et al. 2019 (1908.08962)."""


def new_model(
    size: str, tokenizer: PreTrainedTokenizerBase, window: int, seed: int
) -> PreTrainedModel:
    """A BERT with random weights that are a function of `seed` alone."""
    hidden, layers, heads = SIZES[size]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForMaskedLM(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * hidden,
                max_position_embeddings=window,
                pad_token_id=_pad_id(tokenizer),
            )
        )


def load_base_model(name: str, tokenizer: PreTrainedTokenizerBase, window: int) -> Any:
    """A masked LM from a folder or the hub, checked against the tokenizer and the window."""
    try:
        with no_progress_bar():
            model = AutoModelForMaskedLM.from_pretrained(name)
    except Exception as error:  # of many classes: hub, JSON, safetensors, shapes
        kind = "folder" if Path(name).is_dir() else "folder, and not to be had from the hub"
        raise UserError(
            f"model.from {name}",
            f"no masked language model in that {kind} ({type(error).__name__})",
            "name a folder that holds config.json and model.safetensors",
        ) from None
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < len(tokenizer):
        raise UserError(
            f"model.from {name} with {rows} embeddings",
            f"the tokenizer has {len(tokenizer)} entries: they are not a pair",
            "set tokens.vocabulary to the model's own folder",
        )
    longest = getattr(model.config, "max_position_embeddings", window)
    if window > longest:
        raise UserError(
            f"tokens.window {window}",
            f"the model has {longest} positions",
            "make the window smaller",
        )
    return model


def activation_checkpointing_if(asked: bool, model: nn.Module) -> AbstractContextManager[None]:
    """`activation_checkpointing` where it was asked for."""
    return activation_checkpointing(model) if asked else nullcontext()


def refuse_inexact(
    model: nn.Module, vocab_size: int, *, window: int = 12, given: str = "model"
) -> ModelReport:
    """How the model's per-example gradients are had, measured on a synthetic batch.

    `given` is what the user called the model. Raises UserError for a model whose gradients cannot
    be had exactly, with module and reason.
    """
    checked = check_model(model, vocab_size, window=window)
    if not checked.exact:
        raise UserError(
            f"{given} ({type(model).__name__})",
            f"its per-example gradients cannot be had exactly: {checked.reason}",
            "take another model: `dpmlm doctor MODEL` tells which can be done",
        )
    return checked


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    pad = tokenizer.pad_token_id
    if not isinstance(pad, int):
        raise UserError("tokenizer without a padding token", "rows are padded", "add [PAD] to it")
    return pad
