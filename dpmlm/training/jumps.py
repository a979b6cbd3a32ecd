"""A jump of the training loss: the loss of a step far above what those before it let expect.

The loss is computed from private text without noise, and a jump of it too: it is a private figure
of its step, sealed with the others, for whoever may read the corpus. Nothing acts on it. A training
that ended by it, or took other steps, would release what its plan does not cover.
"""

from collections.abc import Sequence
from statistics import median

from dpmlm.telemetry import Event

WINDOW = 20
"""Steps before the one in question that are looked at."""
LEAST = 8
"""So many of them have to have a loss."""
DEVIATIONS = 8.0
"""A jump is so many deviations above the median of these steps, by their median deviation."""
NATS = 0.5
"""And so much at least: losses that hardly vary do not make a jump of nothing."""
_NORMAL = 1.4826  # the standard deviation of normal numbers over their median deviation


def jump_of(before: Sequence[Event], now: Event) -> float | None:
    """Nats above the median loss of the steps before, where that is a jump; else None.

    A step without a loss (nobody was drawn, or no loss was a number) is no jump, and counts for
    none.
    """
    loss, *losses = (one.get("private", {}).get("loss") for one in (now, *before[-WINDOW:]))
    known = [one for one in losses if one is not None]
    if loss is None or len(known) < LEAST:
        return None
    middle = median(known)
    spread = _NORMAL * median(abs(one - middle) for one in known)
    above = float(loss - middle)
    return above if above > max(DEVIATIONS * spread, NATS) else None
