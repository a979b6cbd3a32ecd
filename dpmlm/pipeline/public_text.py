"""Declared public text as a training sees it: for the loss that chooses weights, and for scales."""

from transformers import PreTrainedTokenizerFast

from dpmlm.config.training import BestConfig, ScaleConfig
from dpmlm.errors import UserError
from dpmlm.masking import Example
from dpmlm.pipeline.data import sample_public
from dpmlm.tokens import Encoder
from dpmlm.training import Recipe
from dpmlm.training.units import View


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
