"""The loss on declared public text by which a training keeps its best weights, or ends early."""

from collections.abc import Callable

from torch import nn
from transformers import PreTrainedTokenizerFast

from dpmlm.clipping import evaluate_batch
from dpmlm.config.training import BestConfig
from dpmlm.pipeline.public_text import public_views
from dpmlm.training import PublicLoss, Recipe


def public_loss(
    best: BestConfig | None, tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> PublicLoss | None:
    """What `training.best` of a run file asks for; None where it asks for nothing.

    Each document's first window under masks that never change. Raises UserError where the text
    holds nothing to be masked.
    """
    if best is None:
        return None
    views = public_views(best, "training.best", tokenizer, recipe)
    rows = recipe.micro_batches([[view] for view in views])

    def loss(model: nn.Module, asked_to_stop: Callable[[], bool]) -> float | None:
        device, found = next(model.parameters()).device, []
        for units in rows:
            if asked_to_stop():
                return None
            found.append(evaluate_batch(model, recipe.batch(units).to(device)))
        weight = sum(one.weight_sum for one in found)
        return sum(one.loss_sum for one in found) / weight

    return PublicLoss(loss, best.every, best.patience, best.jump)
