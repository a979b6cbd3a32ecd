"""A measurement, or one beside another, as plain values and as lines for a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dpmlm.evaluation.buckets import BUCKETS
from dpmlm.evaluation.calibration import calibration
from dpmlm.evaluation.groups import Group, gap
from dpmlm.evaluation.intervals import (
    FEWEST_UNITS,
    TOO_FEW,
    Estimate,
    changes,
    differences,
    estimates,
)
from dpmlm.evaluation.measurement import Measurement

SAYS = {
    "top1": "right at the first guess",
    "top5": "right among five guesses",
    "loss": "loss (nats a hidden token, 0 is always right)",
    "perplexity": "perplexity (unsure as between so many tokens)",
    "bits_per_byte": "bits a byte of text (the less the better)",
    "confidence": "how sure it says it is of its first guess",
    "calibration_error": "how far that is off, on average (0 is honest)",
    "brier": "Brier score of the first guess (0 is best)",
}
"""What each figure is, for somebody who sees it first."""
SHARES = ("top1", "top5", "confidence", "calibration_error")


def figures_of(measurement: Measurement) -> dict[str, float] | None:
    """All averages of a measurement by name; None where no token could be masked."""
    if measurement.figures is None:
        return None
    found: dict[str, float] = asdict(measurement.figures)
    if measurement.bits_per_byte is not None:
        found["bits_per_byte"] = measurement.bits_per_byte
    sure = calibration(measurement.confidence, measurement.first)
    if sure is not None:
        found |= {"confidence": sure.confidence, "calibration_error": sure.error}
        found["brier"] = sure.brier
    return found


def beside(models: Mapping[str, Measurement], *, alike: bool = True) -> dict[str, Any]:
    """Figures, intervals and buckets of one model or two, by the names they are given.

    With two, `intervals.change` is the second minus the first, on the same units; of models that
    are not `alike` in their vocabulary only bits a byte are compared.
    """
    one = next(iter(models.values()))
    both = list(models.values())
    intervals: dict[str, Any] = {name: _ends(estimates(m)) for name, m in models.items()}
    if len(both) == 2:
        found = changes(both[0], both[1])
        told = {name: e for name, e in found.items() if alike or name == "bits_per_byte"}
        intervals["change"] = _ends(told)
    units = len(set(one.units))
    return {
        "documents": len(one.documents),
        "units": units,
        **{name: figures_of(m) for name, m in models.items()},
        "intervals": intervals,
        "without_interval": TOO_FEW if units < FEWEST_UNITS else None,
        "same_vocabulary": alike,
        "buckets": _buckets(models),
    }


def generalization(trained_on: Measurement, held_out: Measurement, visits: float) -> dict[str, Any]:
    """Figures of one model on text that it was trained on, and `gap`: held out minus those.

    `visits`: how often a unit of the training was drawn in the mean.
    """
    return {
        "visits": visits,
        "documents": len(trained_on.documents),
        "units": len(set(trained_on.units)),
        "figures": figures_of(trained_on),
        "gap": _ends(differences(trained_on, held_out)),
    }


def groups_told(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The groups as plain values."""
    return [
        {
            "group": group.name,
            "documents": group.documents,
            "units": group.units,
            **asdict(group.figures),
            "intervals": _ends(group.estimates),
            "change": _ends(group.changes),
        }
        for group in groups
    ]


def lines_of(told: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """What `beside` gave, as lines; `names` are those of its models."""
    if not all(told.get(name) for name in names):
        return ["no hidden token was asked for: the held-out text has none that can be hidden"]
    asked = told[names[-1]]["tokens"]
    head = f"held-out text: {told['documents']} documents of {told['units']} units, {asked} hidden"
    rows = [["", *names, *(["change, with 95 % interval"] if len(names) == 2 else [])]]
    for name, says in SAYS.items():
        values = [told[model].get(name) for model in names]
        if any(value is None for value in values):
            continue
        rows.append([says, *(_shown(name, float(value)) for value in values)])
        if len(names) == 2:
            rows[-1].append(_change_shown(name, told["intervals"]["change"].get(name)))
    lines = [head, *_aligned(rows)]
    if told.get("without_interval"):
        lines.append(f"  {told['without_interval']}")
    if not told.get("same_vocabulary", True):
        lines.append("  the vocabularies differ, so that only bits a byte can be compared")
    lines += generalization_lines(told.get("trained_on"))
    return lines + _bucket_lines(told["buckets"], names)


def generalization_lines(told: Mapping[str, Any] | None) -> list[str]:
    """What `generalization` gave, as lines; none where there is nothing to compare."""
    if not told or not told["gap"]:
        return []
    figures, gap_of = told["figures"], told["gap"]
    rows = [["", "trained on", "held out minus that, with 95 % interval"]]
    for name in ("top1", "loss"):
        rows.append([SAYS[name], _shown(name, float(figures[name])),
                     _change_shown(name, gap_of[name])])  # fmt: skip
    head = (
        f"overfitting: {told['documents']} documents of {told['units']} units of the training, "
        f"each drawn {told['visits']:.2g} times in the mean"
    )
    blind = ["  most of them were never drawn: a gap cannot show"] if told["visits"] < 1 else []
    return [head, *_aligned(rows), *blind]


def group_lines(groups: Sequence[Group], field: str) -> list[str]:
    """The groups as a table, and which two lie farthest apart."""
    against = any(group.changes for group in groups)
    rows = [[field, "documents", "hidden", "right at first", *(["change"] if against else [])]]
    for group in groups:
        rows.append([group.name, str(group.documents), str(group.figures.tokens)])
        rows[-1].append(_with_ends("top1", group.estimates["top1"]))
        if against:
            change = group.changes.get("top1")
            rows[-1].append(_change_shown("top1", _plain(change)) if change else "not to be had")
    lines = ["by group of documents", *_aligned(rows)]
    apart = gap(list(groups))
    if apart is None:
        return [*lines, f"  fewer than two groups of {FEWEST_UNITS} units: no gap is told"]
    what = "gains" if against else "is right for"
    least, most = apart
    lines.append(f"  {what} least: {least.name}; most: {most.name}")
    return lines


def probe_lines(probe: Mapping[str, Any]) -> list[str]:
    """One probe's figures."""
    rows = []
    for name, estimate in probe["figures"].items():
        rows.append([name, _ends_shown(estimate)])
    if probe.get("change"):
        change = probe["change"]
        apart = _ends_shown(change, sign=True)
        told = change["low"] is None or not change["low"] <= 0 <= change["high"]
        rows.append(["change", apart if told else f"{apart}, not told apart"])
    return [f"probe {probe['probe']}: {probe['says']}", *_aligned(rows)]


def pseudo_lines(pseudo: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every token hidden alone, by model."""
    rows = [["", *pseudo]]
    for field, says in (
        ("perplexity", "pseudo-perplexity (unsure as between so many tokens)"),
        ("bits_per_byte", "bits a byte of text (the less the better)"),
    ):
        values = [of[field] for of in pseudo.values()]
        rows.append([says, *("-" if value is None else f"{value:.4g}" for value in values)])
    one = next(iter(pseudo.values()))
    head = f"every token hidden alone: {one['documents']} documents, {one['tokens']} tokens"
    return [head, *_aligned(rows)]


def _ends_shown(estimate: Mapping[str, Any], *, sign: bool = False) -> str:
    spelling = "+.3f" if sign else ".3f"
    value = f"{estimate['value']:{spelling}}"
    if estimate["low"] is None:
        return value
    return f"{value} ({estimate['low']:{spelling}} to {estimate['high']:{spelling}})"


def _bucket_lines(buckets: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    if not buckets:
        return ["no public text to count words in, so no figures by how common a word is"]
    rows = [["times a million words of public text", "hidden", *names]]
    for bucket in buckets:
        shares = [
            _shown("top1", bucket[name]["top1"]) if bucket.get(name) else "-" for name in names
        ]
        rows.append([bucket["bucket"], str(bucket["tokens"]), *shares])
    return ["right at the first guess, by how common the word is", *_aligned(rows)]


def _buckets(models: Mapping[str, Measurement]) -> list[dict[str, Any]]:
    by_model = {name: m.by_bucket for name, m in models.items()}
    found = []
    for bucket in BUCKETS:
        of = {name: asdict(b[bucket]) for name, b in by_model.items() if bucket in b}
        if of:
            found.append({"bucket": bucket, "tokens": list(of.values())[-1]["tokens"], **of})
    return found


def _plain(estimate: Estimate) -> dict[str, float | None]:
    return asdict(estimate)


def _ends(found: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {name: _plain(estimate) for name, estimate in found.items()}


def _shown(name: str, value: float) -> str:
    return f"{100 * value:.1f} %" if name in SHARES else f"{value:.4g}"


def _with_ends(name: str, estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return _shown(name, estimate.value)
    ends = f"{_shown(name, estimate.low)} to {_shown(name, estimate.high)}"
    return f"{_shown(name, estimate.value)} ({ends})"


def _change_shown(name: str, change: Mapping[str, Any] | None) -> str:
    """A difference with its interval; shares in points."""
    if change is None:
        return ""
    scale, unit = (100, " points") if name in SHARES else (1, "")
    value = f"{scale * float(change['value']):+.3g}{unit}"
    if change["low"] is None or change["high"] is None:
        return value
    low, high = (scale * float(change[end]) for end in ("low", "high"))
    apart = "" if not low <= 0 <= high else ", not told apart"
    return f"{value} ({low:+.3g} to {high:+.3g}{apart})"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
