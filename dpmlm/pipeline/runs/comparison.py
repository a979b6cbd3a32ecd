"""Runs held side by side: `dpmlm runs compare`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from dpmlm.errors import UserError
from dpmlm.pipeline.runs.entry import Entry, problems
from dpmlm.pipeline.runs.shown import Shown, show_run
from dpmlm.pipeline.runs.words import columns, flat, spelled

_CLAIMED = ("verdict", "epsilon", "delta", "state", "continues")


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side: every value is a list, an item a run."""

    runs: list[Entry]
    settings: dict[str, list[Any]]
    """Settings that differ."""
    plan: dict[str, list[Any]]
    claim: dict[str, list[Any]]
    audit: dict[str, list[Any]]
    private: dict[str, Any] | None = field(default=None, repr=False)
    """Figures on held-out text; choosing among runs by them costs budget (`dpmlm runs select`)."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "runs": [entry.to_json() for entry in self.runs]}

    def text(self) -> str:
        names = [entry.name or "?" for entry in self.runs]
        if len(set(names)) < len(names):
            names = [spelled(entry.workspace) for entry in self.runs]
        rows = [("", *names)]
        for title in ("settings", "plan", "claim", "audit", "private"):
            values = {k: v for k, v in (getattr(self, title) or {}).items() if k != "label"}
            if values:
                rows.append((title, *("" for _ in names)))
            rows += [(f"  {spelled(key)}", *map(spelled, cells)) for key, cells in values.items()]
        lines = columns(rows)
        lines += problems(self.runs)
        if self.private:
            lines += ["choosing by these figures is charged: `dpmlm runs select`"]
            lines += ["which file of the corpus it is: `dpmlm runs shards`"]
        return "\n".join(lines)


def compare_runs(
    paths: Sequence[Path],
    overrides: Mapping[str, Any] | None = None,
    *,
    identity: Path | None = None,
    private: bool = False,
) -> Comparison:
    """Hold runs side by side, with `overrides` of each run file; see `show_run`.

    Raises UserError for fewer than two.
    """
    if len(paths) < 2:
        raise UserError("one run", "a comparison is between two or more", "name another run")
    shown = [
        show_run(path, overrides, identity=identity, private=private, sources=private)
        for path in paths
    ]
    settings = _beside([each.settings for each in shown])
    claims = [{name: getattr(each.entry, name) for name in _CLAIMED} for each in shown]
    figures = [(each.private or {}).get("evaluation") or {} for each in shown]
    utility = [
        {
            **{moment: each[moment] for moment in ("before", "after") if moment in each},
            "overfitting": _gap(each),
            "sources": apart,
        }
        for each, apart in zip(figures, _sources_apart(shown), strict=True)
    ]
    return Comparison(
        [each.entry for each in shown],
        {key: cells for key, cells in settings.items() if any(c != cells[0] for c in cells)},
        _beside([each.plan for each in shown]),
        _beside(claims),
        _beside([each.audit for each in shown]),
        {"label": "private", **_beside(utility)} if private else None,
    )


def _sources_apart(shown: Sequence[Shown]) -> list[dict[str, str]]:
    """Of each run the sources that are not the same in all of them, with digests of their texts."""
    every: list[Mapping[str, str]] = [(each.private or {}).get("sources") or {} for each in shown]
    same = set.intersection(*(set(one.items()) for one in every))
    return [
        {name: digest[:8] for name, digest in one.items() if (name, digest) not in same}
        for one in every
    ]


def _gap(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Held out minus trained on."""
    gap = (evaluation.get("trained_on") or {}).get("gap") or {}
    return {name: gap[name]["value"] for name in ("loss", "top1") if name in gap}


def _beside(parts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Dotted key to the value of each part, None where one has none."""
    all_of = [dict(flat(part)) for part in parts]
    keys = dict.fromkeys(chain.from_iterable(all_of))
    return {key: [part.get(key) for part in all_of] for key in keys}
