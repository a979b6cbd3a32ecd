"""Which of a model's numbers a training moves: all, all but the embeddings, or low-rank factors.

Every trainable number is noised in every step, so that fewer of them mean less noise in all beside
the same clipped sum (Yu et al. 2022, 2110.06500). What is frozen gets neither gradient nor noise
and leaves the training as it came.
"""

from typing import Any, Literal

import torch
from torch import nn

from dpmlm.errors import UserError

Trainable = Literal["all", "no_embeddings", "lora"]


def restrict(model: Any, what: Trainable, *, rank: int = 8, seed: int = 0) -> Any:
    """The model to train, which shares its weights with `model`; `merged` gives that back.

    `no_embeddings` freezes what is looked up by token, position and type, and with it the decoder
    where that is tied. `lora` freezes every matrix and puts a product of two factors of `rank`
    beside each linear layer but the decoder (Hu et al. 2021, 2106.09685; scale 2); it trains the
    biases too, as the decoder's hold how common words are. The first factors are functions of
    `seed`, the second ones zero.

    Raises UserError where the library peft is missing, and for a rank that no factor can have.
    """
    if what == "no_embeddings":
        for module in model.base_model.modules():
            if isinstance(module, nn.Embedding):
                module.requires_grad_(False)
    if what == "lora":
        return _with_factors(model, rank, seed)
    return model


def merged(model: Any) -> Any:
    """The model as it is saved: products of low-rank factors added to their layers.

    Every weight is trainable again in it. Takes any model that `restrict` gave.
    """
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    return model.requires_grad_(True)


def _with_factors(model: Any, rank: int, seed: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UserError(
            "model.train lora",
            "its factors come from the library peft, which is not installed",
            "pip install 'dpmlm-framework[lora]', or set model.train to no_embeddings",
        ) from None
    layers = [m for m in model.base_model.modules() if isinstance(m, nn.Linear)]
    least = min(min(layer.weight.shape) for layer in layers)
    if rank > least:
        raise UserError(
            f"model.lora_rank {rank}",
            f"a layer of the model is {least} wide: beyond that, factors hold more than it does",
            f"give at most {least}",
        )
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", bias="all")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, settings)
