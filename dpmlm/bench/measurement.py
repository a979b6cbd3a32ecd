"""`measure`: every model at every window, column by column."""

import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from dpmlm.bench.machine import machine
from dpmlm.bench.memory import Memory, measure_memory
from dpmlm.bench.models import Workload
from dpmlm.bench.request import MODELS, BenchRequest
from dpmlm.bench.timing import Failure, Timing, ratios, time_columns
from dpmlm.bench.update import time_updates
from dpmlm.errors import UserError

Say = Callable[[str], None]
"""Called with a line of progress."""

_PACKAGES = {"dpmlm": "dpmlm-framework", **{p: p for p in ("torch", "transformers", "opacus")}}


@dataclass(frozen=True)
class Row:
    """What was measured on one workload; a column or update that failed holds its error."""

    work: Workload
    """Model and batch."""
    timings: dict[str, Timing | Failure]
    """Seconds of a step, by column."""
    memories: dict[str, Memory | Failure] = field(default_factory=dict)
    """Peak memory, by column; empty where it was not asked for."""
    updates: dict[str, Timing | Failure] = field(default_factory=dict)
    """Seconds of the optimizer's step, of `plain` and `private`."""

    def values(self, measure: str) -> dict[str, float]:
        """By column, of those that ran: "wall_seconds", "cpu_seconds" or "peak_bytes"."""
        source: dict[str, Any] = self.memories if measure == "peak_bytes" else self.timings
        return {
            name: getattr(found, measure)
            for name, found in source.items()
            if not isinstance(found, Failure)
        }

    def ratios(self, measure: str, baseline: str) -> dict[str, float]:
        """Of each column to `baseline`, turn by turn; empty where that one was not measured."""
        if measure == "peak_bytes":
            return ratios({name: (peak,) for name, peak in self.values(measure).items()}, baseline)
        field_name = measure.removesuffix("_seconds")
        timed = {name: t for name, t in self.timings.items() if not isinstance(t, Failure)}
        return ratios({name: getattr(t, field_name) for name, t in timed.items()}, baseline)

    def ratio(self, measure: str, column: str, baseline: str) -> float | None:
        """One of `ratios`; None where one of the two was not measured."""
        return self.ratios(measure, baseline).get(column)


@dataclass(frozen=True)
class Measurement:
    """One run of the bench."""

    request: BenchRequest
    """What was asked for."""
    rows: tuple[Row, ...]
    """One a model and window."""
    machine: dict[str, Any]
    """What it ran on: processor, cores, threads, memory, load, GPU."""
    versions: dict[str, str]
    """Of the packages that did the work."""
    date: str
    """When it began, UTC, ISO 8601."""


def measure(request: BenchRequest, say: Say = lambda line: None) -> Measurement:
    """Run every column of the request; minutes, and on the base model many of them.

    Sets torch's number of threads if the request names one. Raises UserError where there is no
    such device.
    """
    if request.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda", "torch sees no CUDA device", "leave --device cpu")
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    found = machine(request.device)
    rows = tuple(_row(request, work, say) for work in workloads(request))
    versions = {"python": platform.python_version()}
    versions |= {name: version(package) for name, package in _PACKAGES.items()}
    return Measurement(request, rows, found, versions, date)


def workloads(request: BenchRequest) -> list[Workload]:
    """What the request measures, in its order."""
    works = []
    for name in request.models:
        model = MODELS[name]
        if request.vocabulary is not None:
            model = replace(model, vocabulary=request.vocabulary)
        for window in request.windows:
            rows = request.batch or model.rows(window)
            works.append(Workload(name, model, window, rows, request.device, request.precision))
    return works


def _row(request: BenchRequest, work: Workload, say: Say) -> Row:
    said = f"{work.name}, {work.window} tokens, {work.rows} rows"
    say(f"{said}: seconds of {', '.join(request.columns)}")
    timings, steps = time_columns(work, request.columns, request.repeats)
    say(f"{said}: noise and optimizer")
    updates = time_updates(work, steps, request.repeats)
    steps.clear()
    memories = {}
    for name in request.columns if request.memory else ():
        say(f"{said}: memory of {name}")
        memories[name] = measure_memory(work, name, request.threads)
    return Row(work, timings, memories, updates)
