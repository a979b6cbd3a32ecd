"""`PublicChoice`: keep the best weights, or stop early, by a loss on public text.

**Formal guarantee.** What is chosen, and when, is a function of noised weights and of text that is
declared public: post-processing of the plan's mechanism, which releases every step's weights. All
steps of the plan are charged and claimed, also those that are not taken any more, because when a
training stops depends on what it has released. A loss on private text would be no post-processing,
and is not taken.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from dpmlm.errors import UserError
from dpmlm.privacy import PrivacyPlan
from dpmlm.telemetry import Event
from dpmlm.telemetry.sinks import flat

_FIGURE = "public_loss"
"""Of the event of a step that is looked at."""


@dataclass(frozen=True)
class PublicLoss:
    """What is looked at, and how often."""

    loss: Callable[[nn.Module, Callable[[], bool]], float | None]
    """Mean loss, nats a masked token, on text that is declared public; masks never change. None
    where the second argument, asked now and then, said that training should stop."""
    every: int
    """Steps between two looks; the plan's last step is looked at, too."""
    patience: int | None = None
    """Looks without a better loss after which training ends; None trains to the last step."""
    jump: float | None = None
    """Nats above the best loss at which training ends, as at no number; None takes no notice."""


@dataclass(frozen=True)
class Best:
    """The best look so far."""

    step: int
    """Steps that are in its weights."""
    loss: float
    worse: int
    """Looks since then."""
    weights: dict[str, torch.Tensor]
    """By parameter name, on the CPU."""


class PublicChoice:
    """The looks of one training; without `text` there are none."""

    def __init__(self, text: PublicLoss | None, plan: PrivacyPlan, best: Best | None) -> None:
        """`best` is that of the checkpoint. Raises UserError for a plan that is accounted for as a
        whole."""
        if text is not None and plan.bands > 1:
            raise UserError(
                "training.best with privacy.bands",
                "correlated noise is accounted for over all steps: no earlier weights are released",
                "drop one of the two",
            )
        self._text, self._steps, self.best = text, plan.steps, best
        self._jumped = False

    def due(self, step: int) -> bool:
        """Whether the weights after so many steps are looked at."""
        return self._text is not None and (step % self._text.every == 0 or step == self._steps)

    def look(
        self, step: int, model: nn.Module, asked_to_stop: Callable[[], bool] = lambda: False
    ) -> float | None:
        """The loss after `step` steps; a better one than all before is kept with its weights.

        None where `asked_to_stop` said so: then nothing has changed, and the look is made again
        before another step is taken, so that no stop decides what is kept.
        """
        assert self._text is not None
        loss = self._text.loss(model, asked_to_stop)
        if loss is None:
            return None
        best = self.best
        if best is None or loss < best.loss or math.isnan(best.loss):
            weights = {name: p.detach().cpu().clone() for name, p in model.named_parameters()}
            self.best = Best(step, loss, 0, weights)
        else:
            self.best = replace(best, worse=best.worse + 1)
            above = loss - best.loss
            self._jumped = self._text.jump is not None and not above <= self._text.jump
        return loss

    def owed(self, step: int, events: Sequence[Event]) -> bool:
        """Whether the look at a checkpoint's weights was given up."""
        return bool(step) and self.due(step) and _FIGURE not in flat(events[-1])

    @property
    def enough(self) -> bool:
        """Whether the loss has jumped, or not become better for as long as patience lasts."""
        if self._jumped:
            return True
        patience = self._text.patience if self._text else None
        return patience is not None and self.best is not None and self.best.worse >= patience

    def settle(self, model: nn.Module) -> int | None:
        """Put the best weights into the model; returns their steps, None where nobody looked."""
        if self.best is None:
            return None
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in self.best.weights.items():
                parameters[name].copy_(tensor)
        return self.best.step
