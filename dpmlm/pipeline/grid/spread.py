"""Which differences between settings are more than chance between trainings.

Every setting is trained once a seed, and a seed is a block: initial weights and masks are the same
for all settings in it. A figure is (its setting's level) + (its seed's level) + chance, and chance
is estimated from what is left over, on (settings - 1)(seeds - 1) degrees of freedom (two-way layout
without interaction; Montgomery, Design and Analysis of Experiments, chapter 4). The levels of one
axis are compared over all settings of the other axes that both have figures in; intervals are
Student's, their error shared out over everything that is asked of a grid (Bonferroni): with 95 %
all of them hold at once. With one seed chance is not known and nothing is told apart.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = Sequence[Sequence[float | None]]

CONFIDENCE = 0.95
"""Of all comparisons of a grid together."""


@dataclass(frozen=True)
class Difference:
    """One value of an axis against another, by one figure."""

    axis: str
    """Key of the run file."""
    metric: str
    """Name of the figure."""
    one: Any
    other: Any
    """Values of the axis."""
    difference: float
    """Mean of `other` less mean of `one`."""
    interval: tuple[float, float] | None
    """None with one seed."""
    seeds: int
    """Blocks with a figure for every setting that is counted."""

    @property
    def told_apart(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Counted:
    """Which cells of a table of figures comparisons count: rows and columns without a gap."""

    settings: tuple[int, ...]
    """Places of the settings that have any figure."""
    seeds: tuple[int, ...]
    """Places of the seeds in which all of these have one."""

    @classmethod
    def of(cls, figures: Figures) -> "Counted":
        """Of figures [settings, seeds], None where a cell has none."""
        settings = [i for i, row in enumerate(figures) if any(map(_is_figure, row))]
        seeds = [
            j
            for j in range(len(figures[0]) if figures else 0)
            if all(_is_figure(figures[i][j]) for i in settings)
        ]
        return cls(tuple(settings), tuple(seeds) if settings else ())

    def columns(self, figures: Figures) -> list[list[float]]:
        """The figures that are counted, [seeds, settings]."""
        rows = [figures[i] for i in self.settings]
        return [[value for row in rows if (value := row[j]) is not None] for j in self.seeds]


def differences(
    axis: str,
    values: Sequence[Any],
    metric: str,
    settings: Sequence[Mapping[str, Any]],
    figures: Figures,
    *,
    comparisons: int,
    least: float = 0.0,
) -> list[Difference]:
    """Every pair of the axis' values; `figures` [settings, seeds], None where a cell has none.

    `comparisons` is how many there are in all, of every axis and figure; `least` a variance that
    each figure is known to have, so that a residual that is small by luck counts for no less.

    Settings without any figure are left out, then seeds without a figure for every other setting;
    two values without a setting in common, or without a whole seed, are not compared.
    """
    counted = Counted.of(figures)
    columns, there = counted.columns(figures), [settings[i] for i in counted.settings]
    if not columns or len(values) < 2:
        return []
    seeds, count = len(columns), len(there)
    means = [sum(column[i] for column in columns) / seeds for i in range(count)]
    chance = max(_residual(columns, means), least)
    freedom = (count - 1) * (seeds - 1)
    found = []
    for one, other in itertools.combinations(values, 2):
        pairs = _pairs(there, axis, one, other)
        if not pairs:
            continue
        of_one, of_other = (sum(means[i] for i in places) for places in zip(*pairs, strict=True))
        difference = of_other / len(pairs) - of_one / len(pairs)
        interval = None
        if freedom:
            error = math.sqrt(chance * 2 / len(pairs) / seeds)
            half = _student(freedom, comparisons) * error
            interval = difference - half, difference + half
        found.append(Difference(axis, metric, one, other, difference, interval, seeds))
    return found


def _pairs(
    settings: Sequence[Mapping[str, Any]], axis: str, one: Any, other: Any
) -> list[tuple[int, int]]:
    """Places of settings with `one` and with `other` that are alike in all other axes."""
    found = []
    for place, setting in enumerate(settings):
        beside = {**setting, axis: other}
        if setting[axis] == one and beside in settings:
            found.append((place, settings.index(beside)))
    return found


def _residual(columns: Sequence[Sequence[float]], means: Sequence[float]) -> float:
    """Variance of chance: what neither the setting's nor the seed's mean explains."""
    seeds, count = len(columns), len(means)
    if (count - 1) * (seeds - 1) == 0:
        return 0.0
    grand = sum(means) / count
    total = 0.0
    for column in columns:
        level = sum(column) / count - grand
        total += sum((x - mean - level) ** 2 for x, mean in zip(column, means, strict=True))
    return total / ((count - 1) * (seeds - 1))


def _student(freedom: int, comparisons: int) -> float:
    from scipy.stats import t

    return float(t.ppf(1 - (1 - CONFIDENCE) / (2 * comparisons), freedom))


def _is_figure(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
