"""The learning rate of each step: functions of the step's number alone, so resuming needs no state.

All shapes rise linearly over the warmup. `linear` and `cosine` then fall over all other steps,
`constant` stays, and `wsd` (warmup, stable, decay: Hu et al. 2024, 2404.06395) stays and falls
linearly over the last steps only.
"""

import math
from typing import Literal

from dpmlm.errors import UserError

Shape = Literal["linear", "cosine", "constant", "wsd"]


def learning_rate_at(
    step: int,
    *,
    steps: int,
    peak: float,
    warmup: float,
    shape: Shape = "linear",
    decay: float = 0.2,
) -> float:
    """The rate of `step`, counted from 0, of `steps`.

    `warmup` is the share of the steps over which the rate rises, `decay` the share at the end over
    which `wsd` falls. The first step's rate is above zero, and so is the last one's.
    """
    rising = max(1, math.ceil(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    if shape == "constant":
        return peak
    left = steps - step
    if shape == "wsd":
        falling = max(1, min(math.ceil(decay * steps), steps - rising))
        return peak * min(1.0, left / (falling + 1))
    share = left / max(1, steps - rising + 1)
    return peak * share if shape == "linear" else peak * (1 - math.cos(math.pi * share)) / 2


def refuse_shares(shape: Shape, warmup: float, decay: float) -> None:
    """Raise UserError where the shares of `wsd` overlap."""
    if shape == "wsd" and warmup + decay > 1:
        raise UserError(
            f"training.warmup {warmup:g} and training.decay {decay:g}",
            "the rate rises and falls in shares of the same steps, at most 1 together",
            "make one of them smaller",
        )
