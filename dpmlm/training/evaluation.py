"""Loss, perplexity, top-1 and top-5 on masks that never change.

Frozen masks: visit 0 of every held-out document under the run's mask seed, so that two models
are asked the same questions. The figures are computed from private text without noise and are
labelled so by whoever keeps them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from dpmlm.clipping import check_model, evaluate_batch
from dpmlm.masking import Example
from dpmlm.training.loop import Report
from dpmlm.training.recipe import Recipe
from dpmlm.training.units import View


@dataclass(frozen=True)
class Evaluation:
    """Averages over all masked tokens of the held-out documents."""

    tokens: int
    """Masked tokens that were guessed."""
    loss: float
    """Mean cross-entropy in nats a masked token; nan or inf of a model that ran away."""
    perplexity: float
    """exp(loss); inf from 700 nats on."""
    top1: float
    """Share of masked tokens guessed first."""
    top5: float
    """Share of masked tokens among the first five guesses."""


def evaluate(
    model: nn.Module,
    examples: Sequence[Example],
    recipe: Recipe,
    report: Report = lambda done, total: None,
) -> Evaluation | None:
    """Evaluate `model`; None where no token could be masked.

    `recipe.physical_batch_size` changes speed and memory alone: where a model's results depend on
    padding, every row is as long as the window.
    """
    model.eval()
    padded = check_model(model, recipe.table.vocab_size, window=recipe.window).padding_matters
    recipe = replace(recipe, pad_to_window=padded, precision="float32")
    device = next(model.parameters()).device
    loss = weight = top1 = top5 = 0.0
    done = 0
    for rows in recipe.micro_batches([[View(example, 0)] for example in examples]):
        result = evaluate_batch(model, recipe.batch(rows).to(device))
        loss += float(result.loss_sum)
        weight += float(result.weight_sum)
        top1 += float(result.top1)
        top5 += float(result.top5)
        done += len(rows)
        report(done, len(examples))
    if weight == 0:
        return None
    mean = loss / weight
    perplexity = math.inf if mean >= 700 else math.exp(mean)
    return Evaluation(int(weight), mean, perplexity, top1 / weight, top5 / weight)
