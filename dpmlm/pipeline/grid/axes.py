"""What varies over a grid, and the runs that follow from it.

Every cell is a run of its own with a run file of its own, so that `dpmlm runs select` can choose
among the cells and `dpmlm run` makes a release of the chosen one. Cells differ in what is
trained, never in the text: sections about text are not varied, and all cells read one copy of it.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from dpmlm.artifacts import atomic_write
from dpmlm.canonical import canonical_json, digest
from dpmlm.config import RunConfig, load_config, parse_overrides
from dpmlm.errors import UserError
from dpmlm.pipeline.workspace import deciding_settings

VARIED = ("masking", "model", "privacy", "training")
"""Sections that a grid may vary: the text and the held-out units stay the same for all cells."""
SCHEMA = "dpmlm.grid-settings/3"
"""1: all seeds shared their masks. 2: words were counted in the text that was asked about, too."""
MARKER = "grid.json"
"""Says whose grid a folder holds; public."""
LEDGER = "public-ledger.jsonl"
"""Of a grid on public text: no cap, so that no claim can rest on it."""
MOST = 500
"""Cells: more is a mistyped list."""


@dataclass(frozen=True)
class Axis:
    """One field of the run file and the values that it takes."""

    key: str
    """Dotted, e.g. masking.ratio."""
    values: tuple[Any, ...]
    """As in the run file, none of them twice; with `second`, a pair is a value of each field."""
    second: str | None = None
    """A field that pairs set as well, and that other values leave null."""
    numbered: bool = False
    """Whether cells are named by the place of their value: names of files stay out of a ledger."""

    def fields(self, value: Any) -> dict[str, Any]:
        """What the run file holds at this value."""
        if self.second is None:
            return {self.key: value}
        first, second = value if isinstance(value, list | tuple) else (value, None)
        return {self.key: first, self.second: second}

    def slug(self, value: Any) -> str:
        """Its part of a cell's name."""
        return f"part{self.values.index(value)}" if self.numbered else _slug(value)

    def value_in(self, config: RunConfig) -> Any:
        """The value that a run file holds, as JSON has it: 1e-3 is a number by now."""
        first = _field(config, self.key)
        second = None if self.second is None else _field(config, self.second)
        return first if second is None else [first, second]


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    config: RunConfig
    setting: dict[str, Any]
    """Value of each axis, by key."""
    seed: int
    """Of initial weights and masks; noise and samples are drawn anew in each cell."""
    run_file: Path
    """Where its run file is written."""

    @property
    def name(self) -> str:
        """Its run's name, in the ledger too."""
        return self.config.name


@dataclass(frozen=True)
class Grid:
    """All cells, seed by seed, so that a grid that stops early has whole seeds."""

    folder: Path
    base: RunConfig
    """The run that the cells are variants of."""
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    public: bool
    """Whether the corpus was said to be public: then nothing is private and nothing is charged."""
    exposing: bool
    """Whether the models are asked for the planted secrets."""
    cells: tuple[Cell, ...]
    apart: tuple[str, ...] = ()
    """Sources whose held-out documents no cell is asked about."""

    @classmethod
    def of(
        cls,
        run_file: Path,
        folder: Path,
        axes: Sequence[Axis],
        *,
        seeds: int,
        overrides: Mapping[str, Any] | None = None,
        public: bool = False,
        exposing: bool = False,
        apart: Sequence[str] = (),
    ) -> "Grid":
        """Every combination of the axes, `seeds` times, below `folder`.

        Raises UserError for a section that is not varied, a value that the run file does not
        take, no or too many cells, and `public` where a ledger counts the corpus as private.
        """
        folder = folder.resolve()
        plain = dict(overrides or {})
        _check_axes(axes, plain)
        base = load_config(run_file, plain)
        if public:
            _refuse_charged(base)
            cap = {"epsilon": float("inf"), "delta": base.ledger.cap.delta}
            plain |= {"ledger.path": folder / LEDGER, "ledger.cap": cap}
            plain |= {"release.log": None}
        # Files, folders and ports are of one run: a second one is refused there.
        plain = {key: plain[key] for key in plain if key.partition(".")[0] != "telemetry"}
        plain |= {"telemetry": {}}
        if seeds < 1:
            raise UserError(
                f"--seeds {seeds}", "every setting is trained at least once", "give 1 or more"
            )
        combinations = list(itertools.product(*(axis.values for axis in axes)))
        count = seeds * len(combinations)
        if not 2 <= count <= MOST:
            raise _wrong_size(count, len(combinations))
        chosen = tuple(base.seed + number for number in range(seeds))
        cells = tuple(
            _cell(run_file, folder, base.name, axes, values, seed, plain)
            for seed in chosen
            for values in combinations
        )
        _refuse_same_names(cells)
        _refuse_two_vocabularies(cells)
        read = tuple(_as_read(axis, cells) for axis in axes)
        return cls(folder, base, read, chosen, public, exposing, cells, tuple(apart))

    @property
    def text(self) -> RunConfig:
        """The run that reads, scrubs and splits the text once, for all cells."""
        name, place = f"{self.base.name}.text", self.folder / "text"
        return self.cells[0].config.model_copy(update={"name": name, "workspace": place})

    @property
    def names_sources(self) -> bool:
        """Whether run files of cells hold names of files of the corpus, which are private."""
        return any(axis.numbered for axis in self.axes)

    @property
    def settings(self) -> list[dict[str, Any]]:
        """The combinations, in the order of the cells."""
        return [cell.setting for cell in self.cells if cell.seed == self.seeds[0]]

    def claim(self) -> None:
        """Take the folder for this grid and write the cells' run files.

        Where these name sources, the folder and they are open to their owner alone. Raises
        UserError where the folder holds another grid or other things.
        """
        marker = self.folder / MARKER
        mine = {
            "schema": SCHEMA,
            "name": self.base.name,
            "public": self.public,
            "exposing": self.exposing,
            "cells": {cell.name: digest(deciding_settings(cell.config)) for cell in self.cells},
        }
        if marker.exists():
            if marker.read_bytes() != canonical_json(mine):
                raise UserError(
                    f"--out {self.folder}",
                    "it holds another grid, or one of an earlier version: results are never mixed",
                    "repeat the command that began it, or name another folder",
                )
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(f"--out {self.folder}", "it is not empty", "name a new folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.names_sources:
            self.folder.chmod(0o700)
        with atomic_write(marker) as file:
            file.write(canonical_json(mine))
        for cell in self.cells:
            tree = cell.config.model_dump(mode="json", by_alias=True)
            with atomic_write(cell.run_file, mode=0o600 if self.names_sources else 0o666) as file:
                file.write(yaml.safe_dump(tree, sort_keys=False).encode())


def axes_of(settings: Sequence[str]) -> tuple[list[Axis], dict[str, Any]]:
    """Axes from `KEY=A,B`, and overrides from `KEY=A`; commas inside brackets do not part."""
    axes: list[Axis] = []
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        parts = _parted(value)
        if not equals or len(parts) == 1:
            overrides |= parse_overrides([setting])
            continue
        values = [parse_overrides([f"{key}={part}"])[key.strip()] for part in parts]
        axes.append(Axis(key.strip(), tuple(values)))
    return axes, overrides


def shown(value: Any) -> str:
    """A value in few letters: a pair as both, numbers without trailing zeros."""
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "nothing"
    if isinstance(value, list | tuple):
        return " to ".join(shown(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parted(value: str) -> list[str]:
    parts, depth = [""], 0
    for letter in value:
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _check_axes(axes: Sequence[Axis], overrides: Mapping[str, Any]) -> None:
    """Every axis is a field that is varied, and no field is given twice."""
    given = list(overrides)
    seconds = {axis.second: axis.key for axis in axes if axis.second}
    for axis in axes:
        _check_section(axis)
        for key in filter(None, (axis.key, axis.second)):
            for other in given:
                if _overlap(key, other):
                    raise _given_twice(key, other, seconds, alone=other in overrides)
            given.append(key)


def _overlap(one: str, other: str) -> bool:
    """Whether two fields are one, or one holds the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _given_twice(key: str, other: str, seconds: Mapping[str, str], *, alone: bool) -> UserError:
    first = seconds.get(key) or seconds.get(other)
    if first is not None:
        return UserError(
            f"{other} beside {first}",
            f"each value of {first} sets it: START:END to END, a number to null",
            "write schedules as START:END, and leave it out",
        )
    rule = "it is given one value and several" if alone else "it varies twice"
    given = key if key == other else f"{key} beside {other}"
    return UserError(given, rule, "give it once")


def _wrong_size(count: int, settings: int) -> UserError:
    if count < 2:
        advice = "give an axis two values or more, or --seeds 2"
    elif settings > MOST:
        advice = "give fewer values"
    else:
        advice = f"give --seeds {MOST // settings} or fewer, or fewer values"
    cells = "1 cell" if count == 1 else f"{count} cells"
    return UserError(f"a grid of {cells}", f"a comparison is between 2 and {MOST} runs", advice)


def _check_section(axis: Axis) -> None:
    section = axis.key.partition(".")[0]
    if section not in VARIED or "." not in axis.key:
        raise UserError(
            f"axis {axis.key}",
            f"cells differ in what is trained ({', '.join(VARIED)}), on the same text",
            "for another text or split make another grid; --seeds repeats a setting",
        )


def _cell(
    run_file: Path,
    folder: Path,
    base: str,
    axes: Sequence[Axis],
    values: Sequence[Any],
    seed: int,
    plain: Mapping[str, Any],
) -> Cell:
    given: dict[str, Any] = {}
    for axis, value in zip(axes, values, strict=True):
        given |= axis.fields(value)
    read = load_config(run_file, {**plain, **given, "seed": seed})
    setting = {axis.key: axis.value_in(read) for axis in axes}
    slugs = [axis.slug(value) for axis, value in zip(axes, setting.values(), strict=True)]
    name = "-".join([base, *slugs, f"seed{seed}"])
    place = {"name": name, "workspace": folder / "cells" / name}
    return Cell(read.model_copy(update=place), setting, seed, folder / f"{name}.yaml")


def _field(config: RunConfig, key: str) -> Any:
    value: Any = config.model_dump(mode="json", by_alias=True)
    for part in key.split("."):
        value = value[part]
    return value


def _as_read(axis: Axis, cells: Sequence[Cell]) -> Axis:
    values = [cell.setting[axis.key] for cell in cells]
    firsts = tuple(value for i, value in enumerate(values) if value not in values[:i])
    return replace(axis, values=firsts)


def _slug(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", shown(value)).strip("_") or "none"


def _refuse_same_names(cells: Sequence[Cell]) -> None:
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"two cells named {name}",
                "cells are named by their values, and no value stands in an axis twice",
                "give each value once",
            )


def _refuse_two_vocabularies(cells: Sequence[Cell]) -> None:
    """A vocabulary of private text is drawn with the tokens, which masking by names makes anew."""
    by_names = {cell.config.masking.strategy == "entity" for cell in cells}
    if cells[0].config.tokens.private is not None and len(by_names) > 1:
        raise UserError(
            "masking.strategy entity beside others, with tokens.private",
            "tokens with marked names draw the vocabulary again, so that cells would not be alike",
            "leave entity out, or take a public vocabulary",
        )


def _refuse_charged(base: RunConfig) -> None:
    """A ledger with anything but its registration, or forgotten persons, says that the corpus is
    private: runs, choices, vocabularies and imports are charges alike."""
    from dpmlm.pipeline.tombstones import file_beside
    from dpmlm.privacy import Ledger

    path = base.ledger.path
    charged = path.exists() and len(Ledger.open(path).entries) > 1
    if charged or file_beside(path).exists():
        raise UserError(
            f"--public with ledger {path}",
            "it holds charges for this corpus, or persons who are left out of it: it is not public",
            "leave --public out, and the cells are charged",
        )
