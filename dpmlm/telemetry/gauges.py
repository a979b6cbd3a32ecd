"""Every figure of a run that is not one of a step: what it is, its labels, and who may see it.

None is computed from text; two are computed from the finished weights, and the plan's claim covers
them as it covers figures of steps with the label `dp`. What tells the machine's time is marked: how
long a step takes depends on what was drawn, and the sentence of a release excludes timing by name,
so a sink shows such a gauge only where the run file asks for `telemetry.times`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dpmlm.telemetry.metrics import Label

Gauge = tuple[str, tuple[tuple[str, str], ...], float]
"""Name, labels in the order of their names, and value."""


@dataclass(frozen=True)
class GaugeKind:
    """A declared gauge."""

    meaning: str
    labels: tuple[str, ...] = ()
    timing: bool = False
    """Whether it tells the machine's time or load."""
    label: Label = Label.PUBLIC

    def shown(self, clearance: Label) -> bool:
        """Whether a place of this clearance may hold it."""
        return self.label.secrecy <= clearance.secrecy


GAUGES: dict[str, GaugeKind] = {
    "info": GaugeKind("1; its labels name the run and the version of dpmlm", ("version",)),
    "stage": GaugeKind("1 for the stage that the run is in, 0 for one that it left", ("stage",)),
    "steps_planned": GaugeKind("steps of the plan"),
    "step": GaugeKind("steps that the last checkpoint holds"),
    "steps_charged": GaugeKind("steps drawn and charged to the ledger, repeated ones each time"),
    "attempts": GaugeKind("times that the training was begun or taken up"),
    "expected_batch_size": GaugeKind("units a step in the mean, from the plan"),
    "epsilon_planned": GaugeKind("epsilon of the whole plan"),
    "epsilon_spent": GaugeKind("epsilon that the corpus' ledger holds spent by all its runs"),
    "epsilon_cap": GaugeKind("epsilon that the corpus' ledger admits"),
    "delta_planned": GaugeKind("delta of the plan"),
    "canaries_extracted": GaugeKind(
        "planted secrets that the finished model gave away", label=Label.DP
    ),
    "verdict": GaugeKind(
        "1 for the verdict of the gate, 0 for the others", ("verdict",), label=Label.DP
    ),
    "ended": GaugeKind("1 once the run came to its end, 0 before"),
    "sink_up": GaugeKind("1 for a place that takes figures, 0 for one that failed", ("sink",)),
    "gpu_memory_total_bytes": GaugeKind("memory of a GPU", ("gpu",)),
    "checkpoint_timestamp_seconds": GaugeKind("Unix time of the last checkpoint", timing=True),
    "checkpoint_write_seconds": GaugeKind("that writing the last checkpoint took", timing=True),
    "steps_per_second": GaugeKind("since the checkpoint before", timing=True),
    "examples_per_second": GaugeKind(
        "expected batch size times steps per second; who was really drawn is private", timing=True
    ),
    "tokens_per_second": GaugeKind("the same times the tokens of a unit", timing=True),
    "gpu_memory_used_bytes": GaugeKind("by all processes of a GPU", ("gpu",), timing=True),
    "gpu_utilization_ratio": GaugeKind("share of time with work, 0 to 1", ("gpu",), timing=True),
    "gpu_temperature_celsius": GaugeKind("of a GPU", ("gpu",), timing=True),
}
"""All that may be told: an undeclared gauge or label is an error wherever it comes from."""


def gauge(name: str, value: float, labels: Mapping[str, str]) -> Gauge:
    """A gauge as sinks get it.

    Raises KeyError for a name that GAUGES does not declare, ValueError for other labels than its.
    """
    if set(labels) != set(GAUGES[name].labels):
        raise ValueError(f"gauge {name} has the labels {GAUGES[name].labels}")
    return name, tuple(sorted(labels.items())), float(value)
