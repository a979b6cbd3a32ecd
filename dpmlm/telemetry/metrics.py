"""Every figure of a training step: its name, its unit and its label.

`public` follows from the plan and the run file; `dp` is computed from noised sums alone, so the
plan's epsilon and delta cover it; `private` is computed from text without noise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

Event = dict[str, Any]
"""`step`, counted from 1, and the figures of that step under the name of their label."""


class Label(Enum):
    """Who may see a figure; later ones are more secret."""

    PUBLIC = "public"
    DP = "dp"
    PRIVATE = "private"

    @property
    def secrecy(self) -> int:
        """0 for public; a sink shows what is no more secret than its clearance."""
        return list(Label).index(self)


@dataclass(frozen=True)
class Metric:
    """A figure of one step."""

    label: Label
    unit: str
    """Empty for a bare number."""
    meaning: str


METRICS: dict[str, Metric] = {
    "learning_rate": Metric(Label.PUBLIC, "", "of the optimizer in this step"),
    "sample_rate": Metric(Label.PUBLIC, "", "probability of each unit whose turn it is"),
    "noised_gradient_norm": Metric(Label.DP, "", "norm of the noised sum over expected batch size"),
    "public_loss": Metric(Label.DP, "nats", "of the weights on public text, in steps that look"),
    "units": Metric(Label.PRIVATE, "units", "drawn in this step"),
    "non_finite_units": Metric(Label.PRIVATE, "units", "left out: their loss or norm is no number"),
    "loss": Metric(Label.PRIVATE, "nats", "mean cross-entropy of the units drawn"),
    "loss_jump": Metric(Label.PRIVATE, "nats", "above the steps before, in steps where it jumps"),
    "median_norm": Metric(Label.PRIVATE, "", "median gradient norm of the units drawn"),
    "clipped": Metric(Label.PRIVATE, "", "share of the units drawn that were clipped"),
}
"""All that may be measured: an undeclared figure is an error wherever it comes from."""


def event(step: int, values: Mapping[str, Any], *, private_plan: bool) -> Event:
    """The figures of step number `step`, counted from 1, by label.

    Under a plan that promises nothing no noise covers anything: there `dp` figures are private.
    Raises KeyError for a figure that METRICS does not declare.
    """
    found: Event = {"step": step, **{label.value: {} for label in Label}}
    for name, value in values.items():
        label = METRICS[name].label
        if label is Label.DP and not private_plan:
            label = Label.PRIVATE
        finite = not isinstance(value, float) or math.isfinite(value)
        found[label.value][name] = value if finite else None  # JSON knows no infinity
    return found
