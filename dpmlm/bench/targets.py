"""The figures to reach, and whether a measurement reaches them."""

from dataclasses import dataclass
from typing import Any

from dpmlm.bench.measurement import Measurement, Row
from dpmlm.bench.request import MODELS, Device, Precision


@dataclass(frozen=True)
class Target:
    """A ratio of `private` to another column that is to stay at or below a figure."""

    model: str
    """Name in `MODELS`."""
    baseline: str
    """Column that `private` is compared with."""
    at_most: float
    """The figure."""
    window: int | None = None
    """Tokens a row; None: at every window."""
    measure: str = "wall_seconds"
    """Median by the clock, or "peak_bytes"."""
    device: Device = "cpu"
    """Where it holds."""
    precision: Precision = "float32"
    """Types it holds for."""

    def covers(self, measured: Measurement, row: Row) -> bool:
        """Whether the row is what the figure is about: the model's own vocabulary, device, types,
        and, on a CPU, its own batch size."""
        asked, work = measured.request, row.work
        return (
            work.name == self.model
            and work.model == MODELS[self.model]
            and self.window in (None, work.window)
            and {"private", self.baseline} <= set(asked.columns)
            and (asked.memory or self.measure != "peak_bytes")
            and (asked.device, asked.precision) == (self.device, self.precision)
            and (self.device == "cuda" or work.rows == work.model.rows(work.window))
        )


@dataclass(frozen=True)
class Outcome:
    """One target on one row."""

    target: Target
    """The figure."""
    row: Row
    """Where it was measured."""
    measured: float | None
    """The ratio; None where one of its two columns failed."""

    @property
    def met(self) -> bool | None:
        """None where the column compared with failed; a failure of `private` is a miss."""
        if self.measured is not None:
            return self.measured <= self.target.at_most
        failed = "private" not in self.row.values(self.target.measure)
        return False if failed else None

    def text(self) -> str:
        """One line."""
        work, target = self.row.work, self.target
        what = "peak memory" if target.measure == "peak_bytes" else "time"
        figure = "not measured" if self.measured is None else f"{self.measured:.3f}"
        verdict = {True: "met", False: "MISSED", None: "open"}[self.met]
        return (
            f"{verdict}: {work.name}, {work.window} tokens, {work.rows} rows: {what} of private / "
            f"{target.baseline} {figure}, at most {target.at_most:g}"
        )

    def to_json(self) -> dict[str, Any]:
        """As in `dpmlm.bench/1`."""
        work, target = self.row.work, self.target
        return {
            "model": work.name,
            "window": work.window,
            "batch": work.rows,
            "measure": target.measure,
            "ratio": f"private/{target.baseline}",
            "measured": self.measured,
            "at_most": target.at_most,
            "met": self.met,
        }


def _on_gpu(baseline: str, window: int, at_most: float) -> Target:
    return Target("base", baseline, at_most, window, device="cuda", precision="bfloat16")


TARGETS = (
    Target("mini", "plain", 0.42, 128),
    Target("tiny", "plain", 0.29, 128),
    Target("small", "plain", 0.48, 128),
    Target("mini", "own", 1.12, 128),
    Target("mini", "own", 1.25, 512),
    Target("mini", "opacus_hooks", 0.22, 128),
    Target("mini", "opacus_ghost", 0.22, 128),
    Target("mini", "plain", 0.80, measure="peak_bytes"),
    _on_gpu("plain", 128, 1.00),
    _on_gpu("own", 128, 1.15),
    _on_gpu("own", 512, 1.35),
)


def judge(measured: Measurement) -> list[Outcome]:
    """Every target that the measurement is about, row by row."""
    return [
        Outcome(target, row, row.ratio(target.measure, "private", target.baseline))
        for row in measured.rows
        for target in TARGETS
        if target.covers(measured, row)
    ]
