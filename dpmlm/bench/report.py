"""A measurement as a table for people and as JSON (`dpmlm.bench/1`)."""

from dataclasses import asdict
from typing import Any

from dpmlm.bench.measurement import Measurement, Row
from dpmlm.bench.memory import Memory
from dpmlm.bench.request import COLUMNS
from dpmlm.bench.steps import STEPS
from dpmlm.bench.targets import judge
from dpmlm.bench.timing import Failure, Timing
from dpmlm.bench.update import UPDATES

SCHEMA = "dpmlm.bench/1"
BASELINES = tuple(name for name in COLUMNS if name != "private")
"""Columns that ratios are to."""
MEASURES = ("wall_seconds", "cpu_seconds", "peak_bytes")


def to_json(measured: Measurement) -> dict[str, Any]:
    """Every field is in docs/cli.md."""
    asked = measured.request
    return {
        "date": measured.date,
        "machine": measured.machine,
        "versions": measured.versions,
        "settings": asdict(asked),
        "columns": {name: STEPS[name].says for name in asked.columns},
        "updates": UPDATES,
        "rows": [_row(row) for row in measured.rows],
        "targets": [outcome.to_json() for outcome in judge(measured)],
    }


def _row(row: Row) -> dict[str, Any]:
    work = row.work
    return {
        "model": work.name,
        "shape": asdict(work.model),
        "window": work.window,
        "batch": work.rows,
        "slots": work.slots,
        "columns": {
            name: _timing(found) | _memory(row.memories.get(name))
            for name, found in row.timings.items()
        },
        "ratios": {
            measure: {
                baseline: compared
                for baseline in BASELINES
                if (compared := row.ratios(measure, baseline))
            }
            for measure in MEASURES
        },
        "updates": {name: _timing(found) for name, found in row.updates.items()},
    }


def _timing(found: Timing | Failure) -> dict[str, Any]:
    if isinstance(found, Failure):
        return {"error": found}
    return {
        "wall_seconds": found.wall_seconds,
        "cpu_seconds": found.cpu_seconds,
        "wall_turns": list(found.wall),
        "cpu_turns": list(found.cpu),
    }


def _memory(found: Memory | Failure | None) -> dict[str, Any]:
    if found is None:
        return {}
    if isinstance(found, Failure):
        return {"memory_error": found}
    return asdict(found) | {"peak_bytes": found.peak_bytes}


def table(measured: Measurement) -> str:
    """What a terminal shows: a block for each model and window, then the targets."""
    found = measured.machine
    where = found["gpu"] or f"{found['cpu']}, {found['cores']} cores"
    lines = [
        f"{where}, {found['threads']} threads, load {found['load']:g}; "
        f"{measured.request.precision}, medians of {measured.request.repeats} turns",
    ]
    for row in measured.rows:
        lines += ["", *_block(row)]
    outcomes = judge(measured)
    if outcomes:
        lines += ["", "figures to reach:", *(f"  {outcome.text()}" for outcome in outcomes)]
    lines += ["", "columns:"]
    lines += [f"  {name}: {STEPS[name].says}" for name in measured.request.columns]
    return "\n".join(lines)


def _block(row: Row) -> list[str]:
    work = row.work
    head = (
        f"{work.name} ({work.model.layers} x {work.model.hidden}), {work.window} tokens, "
        f"{work.rows} rows"
    )
    names = [f"/{name.removeprefix('opacus_')}" for name in BASELINES]
    columns = f"{'':22}{'wall s':>9}{'cpu s':>9}" + "".join(f"{name:>8}" for name in names)
    lines = [head, f"{columns}{'peak MB':>10}{'/plain':>8}"]
    for name, timing in row.timings.items():
        lines.append(f"  {name:20}" + _figures(row, name, timing))
    for name, update in row.updates.items():
        shown = update if isinstance(update, Failure) else f"{update.wall_seconds:9.3f}"
        what = "noise and optimizer" if name == "private" else "optimizer"
        lines.append(f"  {'update':20}{shown}  {what}, once a logical batch")
    return lines


def _figures(row: Row, name: str, timing: Timing | Failure) -> str:
    if isinstance(timing, Failure):
        return f"  failed: {timing}"
    text = f"{timing.wall_seconds:9.3f}{timing.cpu_seconds:9.3f}"
    text += "".join(_ratio(row.ratio("wall_seconds", name, baseline)) for baseline in BASELINES)
    memory = row.memories.get(name)
    if memory is None:
        return text
    if isinstance(memory, Failure):
        return f"{text}  failed: {memory}"
    megabytes = f"{memory.peak_bytes / 1e6:10.0f}"
    return f"{text}{megabytes}{_ratio(row.ratio('peak_bytes', name, 'plain'))}"


def _ratio(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.2f}"
