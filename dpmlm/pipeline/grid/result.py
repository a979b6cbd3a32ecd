"""What a grid came to: a row a cell, a line a setting, and what may be concluded.

What was measured on private text is kept apart and shown on request alone; a choice by it is paid
for through `dpmlm runs select`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpmlm.pipeline.grid.axes import Axis, Grid, shown
from dpmlm.pipeline.grid.spread import Counted, Difference, Figures, differences

CHANCE_BITS = 1.4427
"""Mean exposure of a secret that was never seen: 1/ln 2, as its rank is uniform."""
TEXTS = ("held_out", "public_text")
"""Where guesses are counted, the first that may be shown."""
WORDS = {
    "held_out": "held-out text of the corpus",
    "public_text": "public text that nobody trained on",
}


@dataclass(frozen=True)
class Row:
    """One cell."""

    name: str
    setting: dict[str, Any]
    seed: int
    failed: str | None = None
    """Why it has no figures."""
    epsilon: float | None = None
    delta: float | None = None
    rows: float | None = None
    """Expected rows through the model: the plan's, and so public."""
    steps: int | None = None
    figures: dict[str, Any] | None = field(default=None, repr=False)
    """As `read_measured`; each part has its label."""

    def open(self, part: str, private: bool) -> dict[str, Any] | None:
        """A part of the figures, unless it is private and not asked for."""
        found = (self.figures or {}).get(part)
        if found is None or (found["label"] == "private" and not private):
            return None
        return dict(found)

    def to_json(self, *, public: bool, private: bool) -> dict[str, Any]:
        parts = {part: self.open(part, private) for part in (*TEXTS, "exposure")}
        seconds = (self.figures or {}).get("cpu_seconds") if public or private else None
        return {
            "name": self.name,
            "setting": self.setting,
            "seed": self.seed,
            "failed": self.failed,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "steps": self.steps,
            "rows": self.rows,
            "cpu_seconds": seconds,
            **parts,
        }


Figure = Callable[[Row], float | None]


@dataclass(frozen=True)
class GridResult:
    """All cells of a grid."""

    name: str
    public: bool
    axes: tuple[Axis, ...]
    settings: tuple[dict[str, Any], ...]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, grid: Grid, rows: Sequence[Row]) -> "GridResult":
        settings = tuple(grid.settings)
        return cls(grid.base.name, grid.public, grid.axes, settings, grid.seeds, tuple(rows))

    def of_setting(self, setting: Mapping[str, Any]) -> list[Row]:
        """Its cells, one a seed."""
        return [row for row in self.rows if row.setting == setting]

    @property
    def done(self) -> list[Row]:
        """Cells that came to figures."""
        return [row for row in self.rows if not row.failed]

    def selecting(self, folder: Path) -> str:
        """How to choose among the cells of the first seed by private text, and pay for it."""
        first = [row for row in self.done if row.seed == self.seeds[0]]
        if len(first) < 2:
            return "one run came to a result: there is nothing to choose"
        files = " ".join(str(folder / f"{row.name}.yaml") for row in first)
        told = f"to choose by private text, at a charge: dpmlm runs select {files} --epsilon 0.5"
        if any((row.figures or {}).get("exposure") for row in self.rows):
            told += (
                "\nplanted secrets of these runs were looked at, so that none of them is released: "
                "train the chosen setting again (dpmlm run FILE --set workspace=FOLDER)"
            )
        return told

    def text_of(self, private: bool) -> str | None:
        """Which text's guesses are shown; None where none may be."""
        for part in TEXTS:
            if any(row.open(part, private) for row in self.rows):
                return part
        return None

    def figure(self, metric: str, private: bool) -> Figure:
        """How a row's number of that name is read: of `METRICS`, `rare`, or `bits_per_byte`."""
        text = self.text_of(private)

        def read(row: Row) -> float | None:
            part = row.open(text, private) if text else None
            if metric in ("top1", "loss", "bits_per_byte"):
                return _number(part, metric)
            if metric == "rare":
                return _rare(part)
            return _number(row.open("exposure", private), "mean_bits")

        return read

    def findings(self, *, private: bool = False) -> list[Difference]:
        """Every pair of values of every axis, by every metric that there is."""
        asked = self._asked(private)
        pairs = sum(math.comb(len(axis.values), 2) for axis in self.axes)
        found = []
        for axis in self.axes:
            for metric, figures in asked.items():
                found += differences(
                    axis.key, axis.values, metric, self.settings, figures,
                    comparisons=pairs * len(asked),
                    least=self._drawn(private) if metric == "exposure" else 0.0,
                )  # fmt: skip
        return found

    def left_out(self, *, private: bool = False) -> list[str]:
        """What no comparison counts, a sentence each."""
        asked = self._asked(private)
        by_words: dict[str, list[str]] = {}
        for metric, table in asked.items():
            for words in self._uncounted(table):
                by_words.setdefault(words, []).append(METRICS[metric][0])
        found = []
        for words, metrics in by_words.items():
            of = "" if len(metrics) == len(asked) else f" by {', '.join(metrics)}"
            found.append(f"not compared{of}: {words}")
        return found

    def _uncounted(self, table: Figures) -> list[str]:
        counted, found = Counted.of(table), []
        settings = [s for i, s in enumerate(self.settings) if i not in counted.settings]
        seeds = [str(seed) for j, seed in enumerate(self.seeds) if j not in counted.seeds]
        if settings:
            named = "; ".join(map(_setting, settings))
            found.append(f"{named} (no training of it has a figure)")
        if seeds:
            whose = "every other setting" if settings else "every setting"
            found.append(f"seed {', '.join(seeds)} (not {whose} has a figure of it)")
        return found

    def _asked(self, private: bool) -> dict[str, list[list[float | None]]]:
        """Figures [settings, seeds] of each metric that any cell has."""
        tables = {
            metric: [[read(row) for row in self.of_setting(one)] for one in self.settings]
            for metric in METRICS
            for read in [self.figure(metric, private)]
        }
        return {
            metric: table
            for metric, table in tables.items()
            if any(value is not None for row in table for value in row)
        }

    def _drawn(self, private: bool) -> float:
        """Variance of a mean exposure by the draw of its secrets alone, a mean over cells."""
        parts = [row.open("exposure", private) for row in self.done]
        halves = [(p["interval"][1] - p["interval"][0]) / 2 for p in parts if p and p["interval"]]
        return sum((half / 1.96) ** 2 for half in halves) / len(halves) if halves else 0.0

    def to_json(self, *, private: bool = False) -> dict[str, Any]:
        return {
            "name": self.name,
            "public": self.public,
            "axes": {axis.key: list(axis.values) for axis in self.axes},
            "seeds": list(self.seeds),
            "text": self.text_of(private),
            "cells": [row.to_json(public=self.public, private=private) for row in self.rows],
            "findings": [
                {
                    "axis": one.axis,
                    "metric": one.metric,
                    "values": [one.one, one.other],
                    "difference": one.difference,
                    "interval": list(one.interval) if one.interval else None,
                    "seeds": one.seeds,
                    "told_apart": one.told_apart,
                }
                for one in self.findings(private=private)
            ],
        }

    def text(self, *, private: bool = False) -> str:
        """A table for a person, and a sentence for each question."""
        text = self.text_of(private)
        head = [axis.key.partition(".")[2] for axis in self.axes]
        columns = [name for name, _ in _COLUMNS]
        table = [[*head, "runs", *columns]]
        for setting in self.settings:
            rows = self.of_setting(setting)
            done = [row for row in rows if not row.failed]
            values = [shown(setting[axis.key]) for axis in self.axes]
            cells = [told(self, done, private) for _, told in _COLUMNS]
            table.append([*values, f"{len(done)} of {len(rows)}", *cells])
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in table
        ]
        lines.append("")
        if text is None:
            lines.append("guesses were counted on private text: --show-private prints them")
        else:
            lines.append(f"guessed right: of hidden words, on {WORDS[text]}")
        lines += [sentence(one) for one in self.findings(private=private)]
        lines += self.left_out(private=private)
        lines += [f"failed: {row.name}: {row.failed}" for row in self.rows if row.failed]
        return "\n".join(lines)


METRICS = {
    "top1": ("hidden words guessed right", "points"),
    "loss": ("loss", "nats a hidden word"),
    "exposure": ("exposure of planted secrets", "bits"),
}
"""What settings are compared by: words and unit."""


def sentence(one: Difference) -> str:
    """One comparison in words, with its interval, or that it was not told apart."""
    name = _name(one.axis)
    asked = f"{name} {shown(one.other)} against {shown(one.one)}, {METRICS[one.metric][0]}: "
    if one.interval is None:
        return f"{asked}not told apart: one seed shows no chance between trainings ({change(one)})"
    seeds = f"over {one.seeds} seeds"
    if one.told_apart:
        return f"{asked}{change(one)} {seeds}"
    return f"{asked}not told apart ({change(one)} {seeds})"


def _name(key: str) -> str:
    return key.partition(".")[2].replace("_", " ")


def _setting(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{_name(key)} {shown(value)}" for key, value in setting.items())


def change(one: Difference) -> str:
    """The difference with its unit and interval."""
    unit = METRICS[one.metric][1]
    factor, digits = (100, 2) if one.metric == "top1" else (1, 3)
    told = f"{factor * one.difference:+.{digits}f} {unit}"
    if one.interval is None:
        return told
    low, high = (f"{factor * edge:+.{digits}f}" for edge in one.interval)
    return f"{told}, between {low} and {high}"


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are there."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _number(part: Mapping[str, Any] | None, name: str) -> float | None:
    value = part.get(name) if part else None
    return None if value is None else float(value)  # "nan" and "inf" are spelled as text


def _rare(part: Mapping[str, Any] | None) -> float | None:
    """Top-1 of words below 10 in a million, the ones never seen apart."""
    buckets = [part["by_bucket"].get(name) for name in RARE] if part else []
    there = [bucket for bucket in buckets if bucket]
    tokens = sum(bucket["tokens"] for bucket in there)
    return sum(b["tokens"] * b["top1"] for b in there) / tokens if tokens else None


RARE = ("below 1", "1 to 10")
"""Buckets of words that occur, at most ten times in a million."""


def _percent(result: GridResult, rows: Sequence[Row], private: bool, metric: str) -> str:
    values = [result.figure(metric, private)(row) for row in rows]
    found = [value for value in values if value is not None]
    if not found:
        return "-"
    spread = f" ({100 * min(found):.1f}..{100 * max(found):.1f})" if len(found) > 1 else ""
    return f"{100 * sum(found) / len(found):.2f} %{spread}"


def _plain(result: GridResult, rows: Sequence[Row], private: bool, metric: str) -> str:
    value = mean([result.figure(metric, private)(row) for row in rows])
    return "-" if value is None else f"{value:.3f}"


def _cost(result: GridResult, rows: Sequence[Row], private: bool) -> str:
    seconds = [(row.figures or {}).get("cpu_seconds") for row in rows]
    value = mean(seconds) if result.public or private else None
    return "-" if value is None else f"{value:.0f} s"


def _of_plan(name: str) -> Callable[[GridResult, Sequence[Row], bool], str]:
    def told(result: GridResult, rows: Sequence[Row], private: bool) -> str:
        value = mean([getattr(row, name) for row in rows])
        return "-" if value is None else f"{value:,.4g}" if name == "epsilon" else f"{value:,.0f}"

    return told


_COLUMNS: tuple[tuple[str, Callable[[GridResult, Sequence[Row], bool], str]], ...] = (
    ("guessed right", lambda result, rows, private: _percent(result, rows, private, "top1")),
    ("rare words", lambda result, rows, private: _percent(result, rows, private, "rare")),
    ("loss", lambda result, rows, private: _plain(result, rows, private, "loss")),
    ("bits a byte", lambda result, rows, private: _plain(result, rows, private, "bits_per_byte")),
    ("exposure", lambda result, rows, private: _plain(result, rows, private, "exposure")),
    ("epsilon", _of_plan("epsilon")),
    ("rows", _of_plan("rows")),
    ("CPU", _cost),
)
