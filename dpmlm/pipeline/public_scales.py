"""What gradients are multiplied by before they are clipped, from declared public text."""

from typing import Any

from transformers import PreTrainedTokenizerFast

from dpmlm.clipping import Scale
from dpmlm.config.training import ScaleConfig
from dpmlm.pipeline.public_text import public_views
from dpmlm.training import Recipe, public_scales


def scales_of(
    scale: ScaleConfig | None, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, model: Any
) -> dict[str, Scale] | None:
    """What `training.scale` of a run file asks for at the weights of `model`; None for nothing.

    Raises UserError where the text holds nothing to be masked.
    """
    if scale is None:
        return None
    views = public_views(scale, "training.scale", tokenizer, recipe)
    return public_scales(model, views, recipe, scale.power)
