"""Seconds of several steps in one process, taking turns, so that load slows all of them alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from dpmlm.bench.models import Workload
from dpmlm.bench.steps import STEPS, Step
from dpmlm.masking import MaskedBatch

T = TypeVar("T")

WARM_UP = 1
"""Turns that are run and not counted."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one piece of work."""

    wall: tuple[float, ...]
    """By the clock, a turn each."""
    cpu: tuple[float, ...]
    """Of the processor, all threads together; on a GPU only what feeds it."""

    @property
    def wall_seconds(self) -> float:
        """Median by the clock."""
        return statistics.median(self.wall)

    @property
    def cpu_seconds(self) -> float:
        """Median of the processor."""
        return statistics.median(self.cpu)


Failure = str
"""Class and first line of the error that a column ended in."""


def time_columns(
    work: Workload, columns: tuple[str, ...], repeats: int
) -> tuple[dict[str, Timing | Failure], dict[str, Step]]:
    """(what came of each column, the steps that ran), one column after the other in each turn.

    A turn starts with another column than the last, so none always follows the same one. In a turn
    a column runs twice and the second counts, as in training a step follows one of its own kind:
    caches and allocator are as the column leaves them. A column that fails is reported by its error
    and left out of further turns.
    """
    batch = work.batch()
    steps: dict[str, Step] = {}
    results: dict[str, Timing | Failure] = {}
    for name in columns:
        made = attempt(STEPS[name].step, work)
        if isinstance(made, Step):
            steps[name] = made
        else:
            results[name] = made
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for turn in range(WARM_UP + repeats):
        names = list(steps)
        first = turn % max(1, len(names))
        for name in names[first:] + names[:first]:
            step = steps[name]
            spent = attempt(_second_of_two, step, batch, work.device)
            step.clear()
            if isinstance(spent, Failure):
                results[name] = spent
                del steps[name]
            elif turn >= WARM_UP:
                seen[name].append(spent)
        gc.collect()
    return results | {name: timing_of(seen[name]) for name in steps}, steps


def _second_of_two(step: Step, batch: MaskedBatch, device: str) -> tuple[float, float]:
    step.run(batch)
    step.clear()
    return seconds_of(partial(step.run, batch), device)


def timing_of(turns: list[tuple[float, float]]) -> Timing:
    """From (wall, cpu) of each turn."""
    wall, cpu = zip(*turns)
    return Timing(wall, cpu)


def seconds_of(call: Callable[[], object], device: str) -> tuple[float, float]:
    """(wall, cpu) seconds of one call, without garbage collection in between."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        _wait(device)
        begun_wall, begun_cpu = time.perf_counter(), time.process_time()
        call()
        _wait(device)
        return time.perf_counter() - begun_wall, time.process_time() - begun_cpu
    finally:
        if collecting:
            gc.enable()


def attempt(call: Callable[..., T], *arguments: Any) -> T | Failure:
    """What the call returns, or the error that it ended in: any library may raise anything."""
    try:
        return call(*arguments)
    except Exception as error:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        first = (str(error).strip().splitlines() or [""])[0]
        return f"{type(error).__name__}: {first[:200]}".rstrip(": ")


def ratios(turns: Mapping[str, Sequence[float]], baseline: str) -> dict[str, float]:
    """Each column over the baseline, the median of the turns' ratios; empty without a baseline.

    Turn by turn, as other work on the machine slows a turn and not a column.
    """
    if not all(base := turns.get(baseline, ())) or not base:
        return {}
    return {
        name: statistics.median(one / other for one, other in zip(found, base, strict=True))
        for name, found in turns.items()
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
