"""Divergence, judged on numbers that were noised already."""

from collections.abc import Iterable

import torch

from dpmlm.errors import UserError
from dpmlm.training.recipe import Recipe


class Diverged(Exception):
    """A noised gradient, or a weight after it, is not finite."""


def finite(tensors: Iterable[torch.Tensor | None]) -> bool:
    """Of noised tensors alone: looking at them reveals nothing the release does not."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t is not None)


def diverged(step: int, rate: float, recipe: Recipe) -> UserError:
    """What to say of it, and to do: public figures of the step alone."""
    reduced = recipe.precision != "float32"
    return UserError(
        f"weights at step {step + 1}",
        f"training diverged: a weight is no longer a finite number, at a learning rate of {rate:g}",
        "lower training.learning_rate or raise training.warmup"
        + (", or set training.precision to float32" if reduced else "")
        + "; nothing of this step is kept: the last checkpoint and the ledger's charges stand",
    )
