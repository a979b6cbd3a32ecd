"""Gradient canaries: units whose clipped gradient is a known direction, and what noise makes of it.

A gradient canary has no text. When the sampler draws it, a vector of norm
max_grad_norm / (1 + tau) is added to the clipped sum, random signs on coordinates of its own; what
each step's noised sum says along each direction is kept for `audits/claim/whitebox.py`.

**Formal guarantee.** A canary is one more unit: it is drawn at the plan's rate by the sampler that
draws everybody, its contribution is a function of (seed, canary, step) alone, and as long as
`clip_and_sum` lets a unit's be. So adding or removing any one unit, canary or not, moves the sum
by what the plan says, and noise and clipping are untouched.

No two canaries share a coordinate, so that none shows along another's direction, however many are
drawn. Text does show there: with signs drawn anew each step, as noise of mean zero and mean
variance |sum of text|^2 / (number of parameters) over the canaries, added to the plan's own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from dpmlm.clipping import FLOAT32_TAU
from dpmlm.errors import IntegrityError, UserError
from dpmlm.masking import counter_rng
from dpmlm.privacy import PrivacyPlan

COORDINATES = 1 << 20
"""Of all directions together at most: about 20 bytes each are held on the model's device."""


@dataclass(frozen=True)
class GradientCanaries:
    """How many there are, which of them are units of this training, and their directions' seed."""

    count: int
    included: tuple[int, ...] = field(repr=False)
    """Numbers below `count`, ascending; secret."""
    seed: bytes = field(repr=False)
    """Directions follow from it, not the coins."""

    @property
    def names(self) -> list[str]:
        """Of the included ones, as units."""
        return [f"gradient-canary/{number:06d}" for number in self.included]


NO_GRADIENT_CANARIES = GradientCanaries(0, (), b"")


def refuse_gradient_canaries(plan: PrivacyPlan) -> None:
    """Raise UserError for a plan under which they would show nothing, or not what is scored."""
    given = {
        f"bands {plan.bands}": plan.bands > 1,
        f"max_batch_size {plan.max_batch_size}": plan.max_batch_size is not None,
        "a plan without noise": plan.noise_multiplier == 0,
    }
    for name, found in given.items():
        if found:
            raise UserError(
                f"{name} with gradient canaries",
                "they are scored as units that are drawn at one rate, under noise that is "
                "independent from step to step",
                "set audit.gradient_canaries to 0",
            )


class PlantedGradients:
    """The gradient canaries of one attempt: `draw`, `add` and `observe`, once a step each."""

    def __init__(
        self,
        canaries: GradientCanaries,
        params: Sequence[nn.Parameter],
        plan: PrivacyPlan,
        *,
        begun: int = 0,
        kept: np.ndarray | None = None,
    ) -> None:
        """`params`: all trainable ones, in a fixed order; `kept`: the transcript of the first
        `begun` steps. Raises UserError for an unfit plan or a model of fewer parameters than
        canaries, IntegrityError where `kept` is not of these canaries."""
        self._canaries, self._params, self._plan = canaries, params, plan
        self._step, self._drawn = begun, list[int]()
        count = canaries.count
        if begun and (None if kept is None else kept.shape) != ((begun, count) if count else None):
            raise IntegrityError(
                f"a checkpoint of {begun} steps",
                f"it does not hold what {count} gradient canaries left in each",
                "resume with the canaries that the training was begun with",
            )
        self._rows = np.zeros((plan.steps, count), dtype=np.float32)
        if not count:
            return
        refuse_gradient_canaries(plan)
        if kept is not None:
            self._rows[:begun] = kept
        self._length = self._length_in(sum(param.numel() for param in params))
        self._places = self._choose_places()

    @property
    def names(self) -> list[str]:
        """What the sampler draws from, beside the units of text."""
        return self._canaries.names

    @property
    def transcript(self) -> np.ndarray | None:
        """float32 [steps so far, canaries], in units of max_grad_norm; None without canaries.

        Of canaries that were never inserted, too: it does not tell which were.
        """
        return self._rows[: self._step] if self._canaries.count else None

    def draw(self, step: int, drawn: Sequence[int]) -> None:
        """Name the step that comes, and which of `names` are in its sample."""
        self._step = step
        self._drawn = [self._canaries.included[index] for index in drawn]
        if self._canaries.count:
            size = self._canaries.count * self._length
            rng = counter_rng(self._canaries.seed, "signs", step)
            self._signs = torch.from_numpy(2 * rng.integers(2, size=size, dtype="i1") - 1).float()

    def add(self) -> None:
        """Add the drawn ones to the clipped sum in `p.grad`, after the ranks' shares are added up:
        every rank does it."""
        if not self._drawn:
            return
        norm = self._plan.max_grad_norm / (1 + FLOAT32_TAU)
        weights = torch.zeros(self._canaries.count)
        weights[self._drawn] = norm / math.sqrt(self._length)
        values = self._signs * weights.repeat_interleave(self._length)
        for param, where, entries in self._places:
            if param.grad is None:  # an empty sample but for canaries
                param.grad = torch.zeros_like(param)
            param.grad.put_(where, values[entries].to(param.grad), accumulate=True)

    def observe(self) -> None:
        """Note the noised sum along every direction, from `p.grad` after the update, where it is
        divided by the expected batch size."""
        if self._canaries.count:
            self._rows[self._step] = self._along()
        self._step += 1

    def _along(self) -> np.ndarray:
        """Of the step at hand, float32 [canaries]."""
        found = torch.zeros_like(self._signs)
        for param, where, entries in self._places:
            assert param.grad is not None  # noise reaches every parameter
            found[entries] = param.grad.take(where).float().cpu()
        along = (found * self._signs).view(self._canaries.count, self._length).sum(dim=1)
        scale = self._plan.batch_at(self._step) / self._plan.max_grad_norm
        return np.asarray(along * (scale / math.sqrt(self._length)))

    def _length_in(self, numbers: int) -> int:
        """Coordinates of a direction in a model of so many parameters."""
        count = self._canaries.count
        if numbers < count:
            raise UserError(
                f"{count} gradient canaries",
                f"each has a coordinate of its own at least, and the model has {numbers}",
                "set audit.gradient_canaries lower",
            )
        return min(numbers // count, max(1, COORDINATES // count))

    def _choose_places(self) -> list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]]:
        """(parameter, flat places in it, which entries of the directions lie there).

        Entry k * length + i is coordinate i of canary k.
        """
        sizes = [param.numel() for param in self._params]
        rng = counter_rng(self._canaries.seed, "places")
        size = self._canaries.count * self._length
        places = rng.choice(sum(sizes), size=size, replace=False)
        entries = np.argsort(places)
        places = places[entries]
        ends = np.cumsum(sizes)
        cuts = np.searchsorted(places, [0, *ends])
        return [
            (
                param,
                torch.from_numpy(places[low:high] - (end - param.numel())).to(param.device),
                torch.from_numpy(entries[low:high]),
            )
            for param, end, low, high in zip(self._params, ends, cuts, cuts[1:])
            if high > low
        ]
