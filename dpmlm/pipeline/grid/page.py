"""The comparison as one HTML page, for people who never heard of masking.

No script, nothing from the network, light and dark. Private figures stand on it only where they
are asked for, and the page says so at its head.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dpmlm.artifacts import atomic_write
from dpmlm.errors import UserError
from dpmlm.evaluation import BUCKETS
from dpmlm.pipeline.grid.axes import Axis, shown
from dpmlm.pipeline.grid.drawing import Line, dot_chart
from dpmlm.pipeline.grid.result import CHANCE_BITS, METRICS, WORDS, GridResult, Row, change, mean
from dpmlm.pipeline.grid.spread import Difference
from dpmlm.release.report.charts import Mark
from dpmlm.release.report.templates import environment

TITLES = {
    "masking.ratio": (
        "How much is hidden",
        "the share of a text's pieces that is hidden at a time; more to guess, fewer hints",
    ),
    "masking.strategy": (
        "What is hidden together",
        "single pieces of words, whole words, or whatever else the name says",
    ),
    "masking.static": (
        "New words each time or always the same",
        "whether other words are hidden each time a text comes up, or the same for ever (yes)",
    ),
}
"""Of axes that are better known: a question, and what it means."""


NO_FIGURES = "There are no figures to compare."


def write_page(result: GridResult, target: Path, *, private: bool = False) -> Path:
    """Write the page; with private figures to a new file that its owner alone reads."""
    if private:
        refuse_present(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target, mode=0o600 if private else 0o666) as file:
        file.write(render(result, private=private).encode())
    return target


def refuse_present(target: Path) -> None:
    """What is opened in clear never takes the place of another file. Raises UserError."""
    if target.exists():
        raise UserError(f"--open-to {target}", "it is there already", "name a new file")


def render(result: GridResult, *, private: bool = False) -> str:
    """The page as HTML."""
    page = environment().get_template("grid.html.j2")
    found = result.findings(private=private)
    text = result.text_of(private)
    told = sum(one.told_apart for one in found)
    return page.render(
        name=result.name,
        private=private and not result.public,
        settings=result.settings,
        byline=_byline(result),
        varied=_varied(result),
        axes=[_axis(axis) for axis in result.axes],
        trained=_trained(result),
        summary=_summary(told, len(found), result.left_out(private=private)),
        questions=[
            {
                "title": _title(axis),
                "answers": [
                    {"told_apart": one.told_apart, "words": _answer(one)}
                    for one in found
                    if one.axis == axis.key
                ],
            }
            for axis in result.axes
        ],
        rule=_rule(result),
        text=WORDS.get(text or ""),
        documents=_documents(result, text, private),
        guesses=_guesses(result, private),
        buckets=_buckets(result, text, private),
        intervals=_intervals(result, text, private),
        exposure=_exposure(result, private),
        exposure_note=_exposure_note(result, private),
        costs=[_cost(result, setting, private) for setting in result.settings],
        seconds=result.public or private,
        charged=_charged(result),
        failed=[row for row in result.rows if row.failed],
        doubts=_doubts(result),
    )


def label_of(result: GridResult, setting: Mapping[str, Any]) -> str:
    """A setting's name: the values of all axes, in their order."""
    return " · ".join(_value(axis.key, setting[axis.key]) for axis in result.axes)


def _value(key: str, value: Any) -> str:
    if key == "masking.static":
        return "same words" if value else "new words"
    if key == "masking.ratio" and isinstance(value, float):
        return f"{100 * value:g} %"
    if key == "masking.ratio" and isinstance(value, list):
        return " to ".join(f"{100 * float(part):g} %" for part in value)
    return shown(value).replace("_", " ")


def _answer(one: Difference) -> str:
    """One comparison for the page; which way is better where it was told apart."""
    given = [_value(one.axis, value) for value in (one.other, one.one)]
    better = ""
    if one.told_apart:
        gain = one.difference > 0 if one.metric == "top1" else one.difference < 0
        better = f": {given[0]} is {'better' if gain else 'worse'}"
    return f"{given[0]} against {given[1]}, {METRICS[one.metric][0]}: {change(one)}{better}"


def _title(axis: Axis) -> str:
    return TITLES.get(axis.key, (axis.key, ""))[0]


def _axis(axis: Axis) -> dict[str, str]:
    title, meaning = TITLES.get(axis.key, (axis.key, "this field of the run file"))
    values = ", ".join(_value(axis.key, value) for value in axis.values)
    return {"title": title, "meaning": meaning, "given": values}


def _byline(result: GridResult) -> str:
    done = len(result.done)
    steps = {row.steps for row in result.done}
    each = f" of {steps.pop():,} steps" if len(steps) == 1 else ""
    return f"{len(result.settings)} settings · {len(result.seeds)} seeds · {done} trainings{each}"


def _varied(result: GridResult) -> str:
    masks = all(axis.key.startswith("masking.") for axis in result.axes)
    if masks:
        return "Which words, and how many, is up to whoever trains it, and this page compares:"
    return "How it is trained is up to whoever trains it, and this page compares:"


def _trained(result: GridResult) -> str:
    seeds = len(result.seeds)
    times = "once" if seeds == 1 else f"{seeds} times from different beginnings"
    return (
        f"Each of the {len(result.settings)} combinations was trained {times}, with the same "
        "effort and, unless epsilon is what varies, the same protection of the text."
    )


def _summary(told: int, asked: int, left_out: Sequence[str]) -> str:
    gaps = "".join(f" {line[0].upper()}{line[1:]}." for line in left_out)
    if not asked:
        return f"{'No two settings could be compared.' if gaps else NO_FIGURES}{gaps}"
    if not told:
        return (
            "Nothing: no difference is larger than what chance makes between two trainings of "
            f"one setting. Take the cheapest, or train longer and with more seeds.{gaps}"
        )
    are = "difference is" if told == 1 else "differences are"
    return f"{told} of {asked} {are} larger than chance between trainings explains.{gaps}"


def _rule(result: GridResult) -> str:
    if len(result.seeds) == 1:
        return "Each setting was trained once, so that chance between trainings is not known."
    return (
        "Told apart means: the interval excludes zero. All intervals of this page together hold "
        "with a probability of 95 %, chance between trainings being estimated from the seeds. "
        "Values of one question are compared over all settings of the other questions."
    )


def _documents(result: GridResult, text: str | None, private: bool) -> str:
    parts = [row.open(text, private) for row in result.done] if text else []
    counts = {(part["documents"], part["tokens"]) for part in parts if part}
    return " or ".join(f"{d:,} documents, {t:,} hidden pieces" for d, t in sorted(counts))


def _lines(result: GridResult, metric: str, private: bool, factor: float = 1) -> list[Line]:
    read = result.figure(metric, private)
    lines = []
    for setting in result.settings:
        values = [read(row) for row in result.of_setting(setting)]
        there = [factor * value for value in values if value is not None]
        lines.append(Line(label_of(result, setting), there))
    return lines


def _guesses(result: GridResult, private: bool) -> Markup | None:
    lines = _lines(result, "top1", private, 100)
    if not any(line.values for line in lines):
        return None
    title = "Share of hidden words guessed right, by setting"
    return dot_chart(lines, title=title, axis="guessed right, %", form="{:.4g}")


def _exposure(result: GridResult, private: bool) -> Markup | None:
    lines = _lines(result, "exposure", private)
    if not any(line.values for line in lines):
        return None
    title = "Mean exposure of planted secrets, by setting"
    chance = Mark(CHANCE_BITS, "never seen: 1.44")
    return dot_chart(lines, title=title, axis="exposure, bits", form="{:.3g}", mark=chance)


def _exposure_note(result: GridResult, private: bool) -> str:
    parts = [part for row in result.done if (part := row.open("exposure", private))]
    halves = [(part["interval"][1] - part["interval"][0]) / 2 for part in parts if part["interval"]]
    if not halves:
        return ""
    inserted = sorted({part["inserted"] for part in parts})
    return (
        f"Of one model the mean over its {inserted[0]} to {inserted[-1]} planted secrets is known "
        f"to about {sum(halves) / len(halves):.2f} bits either way (95 %)."
    )


def _buckets(result: GridResult, text: str | None, private: bool) -> dict[str, Any] | None:
    parts = [part for row in result.done if text and (part := row.open(text, private))]
    names = [name for name in BUCKETS if any(name in part["by_bucket"] for part in parts)]
    if not names:
        return None
    tokens = {n: mean([p["by_bucket"][n]["tokens"] for p in parts if n in p["by_bucket"]])
              for n in names}  # fmt: skip
    return {
        "names": names,
        "rows": [
            {
                "label": label_of(result, setting),
                "cells": [
                    _bucket(result.of_setting(setting), text or "", name, private) for name in names
                ],
            }
            for setting in result.settings
        ],
        "counts": ", ".join(f"{name}: {count:,.0f}" for name, count in tokens.items()),
    }


def _bucket(rows: Sequence[Row], text: str, name: str, private: bool) -> str:
    parts = [row.open(text, private) for row in rows if not row.failed]
    found = [
        part["by_bucket"][name]["top1"] for part in parts if part and name in part["by_bucket"]
    ]
    value = mean(found)
    return "–" if value is None else f"{100 * value:.1f} %"


def _intervals(result: GridResult, text: str | None, private: bool) -> str | None:
    parts = [part for row in result.done if text and (part := row.open(text, private))]
    halves = [
        50 * (part["top1_interval"][1] - part["top1_interval"][0])
        for part in parts
        if part["top1_interval"]
    ]
    if not halves:
        return None
    return (
        f"On other texts of the same kind one model's share would be another by about "
        f"{sum(halves) / len(halves):.2f} points either way (95 %). All settings were asked about "
        "the same texts, so that this moves them together."
    )


def _cost(result: GridResult, setting: Mapping[str, Any], private: bool) -> dict[str, str]:
    rows = result.of_setting(setting)
    done = [row for row in rows if not row.failed]
    seconds = mean([(row.figures or {}).get("cpu_seconds") for row in done])
    epsilon, text = mean([row.epsilon for row in done]), mean([row.rows for row in done])
    return {
        "label": label_of(result, setting),
        "runs": f"{len(done)} of {len(rows)}",
        "epsilon": "–" if epsilon is None else f"{epsilon:g}",
        "rows": "–" if text is None else f"{text:,.0f}",
        "seconds": "–" if seconds is None else f"{seconds:,.0f} s",
    }


def _charged(result: GridResult) -> str:
    if result.public:
        free = "The text is public, so that nothing was charged to anybody's privacy. "
        if all(row.epsilon == math.inf for row in result.done):
            return free + "No run had noise: with noise the answers may be others."
        return free + "The noise of each run is that of its epsilon all the same."
    return (
        "Every run looked at the private text and was charged to its ledger, those without a "
        "result too: together they are part of what any later release of this text claims."
    )


def _doubts(result: GridResult) -> list[str]:
    doubts = [
        "These are small trainings. What is better after few steps of a small model need not be "
        "better after many steps of a large one: it is known that large models gain from hiding "
        "more (Wettig and others 2023, arXiv 2202.08005).",
        "The test hides 15 % of the pieces one by one, whatever the training hid. A model that "
        "was trained on whole words answers an unfamiliar kind of question.",
        "Where a difference was not told apart, that does not mean that there is none, but that "
        "these trainings are too few or too short to see it.",
    ]
    if len(result.seeds) == 1:
        doubts.insert(0, "Each setting was trained once: this page can tell nothing apart.")
    if any((row.figures or {}).get("exposure") for row in result.done):
        doubts.append(
            "Exposure compares settings. Whoever released the very run that showed least of it "
            "would have chosen by the auditors' own test, so that `dpmlm run` releases none of "
            "these runs: train the chosen setting again for a release."
        )
    if not result.public:
        doubts.append(
            "Whoever reads figures of private text and then chooses a setting lets that text "
            "decide something that nobody was charged for. `dpmlm runs select` chooses with "
            "noise, and charges for it."
        )
    return doubts
