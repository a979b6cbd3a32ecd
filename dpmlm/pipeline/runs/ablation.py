"""What a run would be without one of its sources: `dpmlm runs ablate`.

A grid over `training.leave_out`: one training of all sources and one without each suspect, every
one a run of the ledger, priced before the first and taken up where it was killed. All are asked
about the same held-out documents, those of the other sources. With `halves` each training leaves
out half of the sources, by the digits of their binary numbers: of n sources one bad one is found by
2 log2 n trainings (group testing, Dorfman 1943), where no two are bad.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dpmlm.config import load_config
from dpmlm.corpus import corpus_files
from dpmlm.errors import UserError, visible
from dpmlm.pipeline.grid import Axis, Grid
from dpmlm.pipeline.grid.axes import shown
from dpmlm.pipeline.grid.result import GridResult, change
from dpmlm.pipeline.grid.spread import Difference, differences

KEY = "training.leave_out"
METRICS = ("loss", "top1")
FEWEST, MOST = 4, 256
"""Sources that halves are made of."""


@dataclass(frozen=True)
class Without:
    """The run without some sources, against the run with all of them, or with the other half."""

    sources: list[str]
    loss: Difference
    top1: Difference | None
    """None where no seed has one for every training."""

    @property
    def better(self) -> bool:
        """Whether leaving them out takes loss away, by more than chance between trainings."""
        return self.loss.told_apart and self.loss.difference < 0

    def to_json(self) -> dict[str, Any]:
        kept = ("difference", "interval", "seeds")
        figures = {"loss": self.loss, "top1": self.top1}
        return {
            "sources": self.sources,
            "better": self.better,
            **{
                name: one and {key: asdict(one)[key] for key in kept}
                for name, one in figures.items()
            },
        }

    def text(self) -> str:
        told = "better" if self.better else "worse" if self.loss.told_apart else "not told apart"
        more = "" if self.top1 is None else f"; {change(self.top1)}"
        return f"without {visible(shown(self.sources))}: {told} ({change(self.loss)}{more})"


@dataclass(frozen=True)
class Ablation:
    """All of it; private, names of sources among it."""

    name: str
    runs: int
    failed: list[str]
    halves: bool
    found: list[Without] = field(repr=False)
    """The best to leave out first; with halves a line for each half that is better."""
    culprits: list[str] = field(repr=False)
    """Sources whose removal brings the figure back."""
    uncompared: list[list[str]] = field(repr=False)
    """What trainings left out that came to no comparison."""

    def to_json(self, *, private: bool = False) -> dict[str, Any]:
        told = {"found": [one.to_json() for one in self.found], "culprits": self.culprits}
        known = {"name": self.name, "runs": self.runs, "failed": self.failed, "label": "private"}
        return {**known, "halves": self.halves, "private": told if private else None}

    def text(self, *, private: bool = False) -> str:
        head = f"{self.runs} runs of {self.name} trained"
        lines = [f"failed: {line}" for line in self.failed]
        if not private:
            return "\n".join([f"{head}; figures are private: --show-private prints them", *lines])
        lines = [f"{head}; held-out loss and guesses (private)", *lines]
        lines += [f"  {one.text()}" for one in self.found]
        lines += [f"  without {visible(shown(one))}: not compared" for one in self.uncompared]
        if self.culprits:
            names = ", ".join(map(visible, self.culprits))
            lines.append(
                f"better without {names}; `dpmlm runs quarantine` keeps a source out of later "
                "runs, and these figures are private grounds for it"
            )
        else:
            lines.append("no removal is better by more than chance between trainings")
        return "\n".join(lines)


def ablation_grid(
    run_file: Path,
    out: Path,
    sources: Sequence[str],
    *,
    seeds: int,
    halves: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Grid:
    """The trainings. Raises UserError for no source, one given twice, one that is no file of the
    corpus, and too few or too many for halves."""
    if not sources or len(set(sources)) != len(sources):
        raise UserError(
            "--source",
            "each suspect is named, and named once",
            "`dpmlm runs shards RUN.yaml --show-private` ranks the sources",
        )
    if halves and not FEWEST <= len(sources) <= MOST:
        raise UserError(
            f"--halves of {len(sources)} sources",
            f"halves are made of {FEWEST} to {MOST}",
            "leave --halves out: each source is left out by itself",
        )
    corpus = load_config(run_file, dict(overrides or {})).corpus.path
    for source in set(sources) - {name for _, name in corpus_files(corpus)}:
        raise UserError(
            f"--source {visible(source)}",
            f"the corpus {corpus} has no file of this name",
            "name one as `dpmlm runs shards --show-private` does",
        )
    values = halves_of(sources) if halves else [[], *([source] for source in sources)]
    # With halves every source is a suspect, and all held-out text is asked about.
    apart = () if halves else tuple(sources)
    axis = Axis(KEY, tuple(values), numbered=True)
    return Grid.of(run_file, out, [axis], seeds=seeds, overrides=overrides, apart=apart)


def halves_of(sources: Sequence[str]) -> list[list[str]]:
    """For each binary digit of the places of the sources: those with a 0 there, those with a 1."""
    digits = (len(sources) - 1).bit_length()
    return [
        [source for place, source in enumerate(sources) if place >> digit & 1 == side]
        for digit in range(digits)
        for side in (0, 1)
    ]


def ablation_of(grid: Grid, result: GridResult) -> Ablation:
    """What the trainings of a grid of `ablation_grid` say of its sources."""
    halves = not grid.apart
    tables = {metric: _table(result, metric) for metric in METRICS}
    values = [setting[KEY] for setting in result.settings]
    pairs = (
        list(zip(values[1::2], values[::2], strict=True))
        if halves
        else [([], value) for value in values[1:]]
    )
    by_pair = {metric: _by_pair(result, metric, tables[metric], len(pairs)) for metric in METRICS}
    found: list[Without] = []
    uncompared: list[list[str]] = []
    for one, other in pairs:
        loss = by_pair["loss"].get((shown(one), shown(other)))
        if loss is None:
            uncompared.append(list(other))
            continue
        top1 = by_pair["top1"].get((shown(one), shown(other)))
        both = [Without(list(other), loss, top1)]
        if halves:
            both.append(Without(list(one), _turned(loss), top1 and _turned(top1)))
        found += both
    if halves:
        better = [set(one.sources) for one in found if one.better]
        whole = len(better) == len(pairs)
        culprits = sorted(set.intersection(*better)) if whole else []
    else:
        culprits = [one.sources[0] for one in found if one.better]
    found.sort(key=lambda one: one.loss.difference)
    failed = [f"{row.name}: {row.failed}" for row in result.rows if row.failed]
    return Ablation(result.name, len(result.done), failed, halves, found, culprits, uncompared)


def _table(result: GridResult, metric: str) -> list[list[float | None]]:
    def read(row: Any) -> float | None:
        part = row.open("held_out", True)
        value = part and part.get(metric)
        return None if value is None else float(value)

    return [[read(row) for row in result.of_setting(one)] for one in result.settings]


def _by_pair(
    result: GridResult, metric: str, table: list[list[float | None]], pairs: int
) -> dict[tuple[str, str], Difference]:
    values = [setting[KEY] for setting in result.settings]
    found = differences(
        KEY, values, metric, result.settings, table, comparisons=pairs * len(METRICS)
    )
    told = {(shown(one.one), shown(one.other)): one for one in found}
    return told | {(b, a): _turned(one) for (a, b), one in told.items()}


def _turned(one: Difference) -> Difference:
    ends = None if one.interval is None else (-one.interval[1], -one.interval[0])
    return Difference(one.axis, one.metric, one.other, one.one, -one.difference, ends, one.seeds)
