"""The loss on declared public text by which a training keeps its best weights, or ends early."""

from torch import nn
from transformers import PreTrainedTokenizerFast

from dpmlm.clipping import evaluate_batch
from dpmlm.config.training import BestConfig, ScaleConfig
from dpmlm.errors import UserError
from dpmlm.masking import Example
from dpmlm.pipeline.data import sample_public
from dpmlm.tokens import Encoder
from dpmlm.training import PublicLoss, Recipe
from dpmlm.training.units import View


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

    def loss(model: nn.Module) -> float:
        device = next(model.parameters()).device
        found = [evaluate_batch(model, recipe.batch(units).to(device)) for units in rows]
        weight = sum(one.weight_sum for one in found)
        return sum(one.loss_sum for one in found) / weight

    return PublicLoss(loss, best.every, best.patience, best.jump)


def public_views(
    section: BestConfig | ScaleConfig,
    name: str,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
) -> list[View]:
    """The first window of each of its documents; `name` is the section's in messages.

    Raises UserError where they hold nothing to be masked.
    """
    documents = sample_public(section.corpus, section.text, section.documents)
    encoded = Encoder(tokenizer).encode([document.text for document in documents])
    views = [View(Example(one.id, ids), 0) for one, ids in zip(documents, encoded)]
    if not any(recipe.batch([[view]]).masked_weights.any() for view in views):
        raise UserError(
            f"{name}.corpus {section.corpus}",
            "no token of it can be masked",
            "name public text in the language of the vocabulary",
        )
    return views
