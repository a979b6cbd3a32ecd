"""`Average`: an exponential moving average of the weights over the steps.

**Formal guarantee.** Every step's weights are an output of the plan's mechanism already, and an
average of them is post-processing: it costs no privacy (De et al. 2022, 2204.13650).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from dpmlm.errors import IntegrityError, UserError


class Average:
    """The average of a model's trainable parameters after each step.

    After t steps it is the sum of (1 - decay) decay^(t - i) w_i over i = 1..t, divided by
    1 - decay^t: the weights before the first step have no share in it. It is summed in float32.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Raises UserError for a decay that averages nothing."""
        refuse_decay(decay)
        self._decay, self._steps = decay, 0
        self._model = model
        self._sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in self._live()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now; once a step."""
        self._steps += 1
        for name, weight in self._live():
            self._sums[name].lerp_(weight.float(), 1 - self._decay)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The undivided sums by parameter name; with the number of steps all that `load` needs."""
        return dict(self._sums)

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor], steps: int) -> None:
        """Go on from a checkpoint after `steps` steps. IntegrityError for another model's."""
        if state.keys() != self._sums.keys():
            raise IntegrityError(
                "checkpoint", "its average is of other parameters", "use another workspace"
            )
        for name, tensor in state.items():
            self._sums[name].copy_(tensor)
        self._steps = steps

    @torch.no_grad()
    def put(self) -> None:
        """Put the average into the model; before the first step there is none: nothing moves."""
        if self._steps:
            share = 1 - self._decay**self._steps
            for name, weight in self._live():
                weight.copy_(self._sums[name] / share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the average inside, and the weights that are trained afterwards."""
        kept = {name: weight.detach().clone() for name, weight in self._live()}
        self.put()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self._live():
                    weight.copy_(kept[name])

    def _live(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]


def refuse_decay(decay: float) -> None:
    """Raise UserError unless 0 < decay < 1."""
    if not 0 < decay < 1:
        raise UserError(
            f"training.average {decay:g}",
            "the share of the average that a step keeps lies above 0 and below 1",
            "give for example 0.95, or leave it out to release the last step's weights",
        )
