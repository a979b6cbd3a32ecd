"""Curves of the training for the auditor: what each shows, and what is odd about this one.

All are computed from private text, one figure a step. A step without a number keeps its place in
what is said, and none in the drawing.
"""

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

from markupsafe import Markup

from dpmlm.release.report import charts
from dpmlm.release.report.words import percent

Steps = Sequence[tuple[int, float]]
"""(step, figure); NaN where the step has no number."""

DRAWN = 500
"""Points of a drawing; of a longer training each is the mean of neighbouring steps."""
GROWN = 10.0
"""From this factor on, larger at the end than at the beginning is worth a sentence."""
NOTHING_ODD = "Nothing odd."


class Curve(NamedTuple):
    """One drawing with its sentences."""

    heading: str
    chart: Markup
    shows: str
    """What the figure is, and which way is better."""
    odd: str
    """What somebody who knows such trainings would stop at; says so where there is nothing."""


def draw(loss: Steps, norms: Steps, clipped: Steps, *, clip_norm: float) -> list[Curve]:
    """The curves that have two points or more; `clip_norm` is the plan's clipping norm."""
    drawn = [_loss(loss), _norms(norms, clip_norm), _clipped(clipped)]
    return [curve for curve in drawn if curve is not None]


def thinned(points: Steps, most: int = DRAWN) -> list[tuple[float, float]]:
    """Finite points, at most `most`: means over equal stretches of those there are."""
    finite = [(float(x), float(y)) for x, y in points if math.isfinite(y)]
    size = -(-len(finite) // most) or 1
    stretches = [finite[at : at + size] for at in range(0, len(finite), size)]
    return [(fmean(x for x, _ in part), fmean(y for _, y in part)) for part in stretches]


def _loss(points: Steps) -> Curve | None:
    if len(drawn := thinned(points)) < 2:
        return None
    chart = charts.line_chart(
        drawn, title="Training loss over steps", x_label="step", y_label="loss (nats a token)"
    )
    first, last = _ends(points)
    odd = ""
    if last > first:
        odd = "It ends higher than it began: the training did not help, or ran away."
    shows = (
        "How wrong the model is about hidden words of the text drawn in each step; lower is "
        "better, and 0 would be always right. It jumps up and down because each step draws other "
        "text."
    )
    return Curve("Loss", chart, _with_thinning(shows, points), _odd(odd, points))


def _norms(points: Steps, clip_norm: float) -> Curve | None:
    if len(drawn := thinned(points)) < 2:
        return None
    chart = charts.line_chart(
        drawn,
        title="Median gradient norm over steps",
        x_label="step",
        y_label="gradient norm",
        limit=charts.Mark(clip_norm, f"clipping norm: {clip_norm:g}"),
    )
    first, last = _ends(points)
    middle = median(y for _, y in points if math.isfinite(y))
    odd = ""
    if last > GROWN * first:
        odd = f"It grows {last / first:,.0f}-fold: the training may be running away."
    elif middle < clip_norm / 10:
        odd = (
            "It lies far below the clipping norm. Noise is made to cover the clipping norm, so a "
            "smaller one would have needed less noise for the same promise."
        )
    shows = (
        "How strongly the middle one of the drawn units pulls at the model before it is cut back. "
        "Whatever is above the dashed line is cut back to it, so that no unit can pull harder."
    )
    return Curve("Pull of a unit", chart, _with_thinning(shows, points), _odd(odd, points))


def _clipped(points: Steps) -> Curve | None:
    if len(drawn := thinned(points)) < 2:
        return None
    chart = charts.line_chart(
        drawn,
        title="Share of clipped units over steps",
        x_label="step",
        y_label="share cut back",
        shares=True,
    )
    middle = median(y for _, y in points if math.isfinite(y))
    odd = ""
    if middle > 0.95:
        odd = (
            "In most steps nearly every unit is cut back, so that all pull alike. That is common "
            "in private training and costs no privacy."
        )
    elif middle < 0.05:
        odd = (
            "Hardly any unit is cut back: the clipping norm, and with it the noise, is larger than "
            "this text needs."
        )
    shows = (
        "Of the units drawn in each step, the share that is cut back to the clipping norm. High or "
        f"low, the promise is the same. Median over the steps: {percent(middle)}."
    )
    return Curve("Units cut back", chart, _with_thinning(shows, points), _odd(odd, points))


def _ends(points: Steps) -> tuple[float, float]:
    """Means of the first and of the last tenth."""
    ys = [y for _, y in points if math.isfinite(y)]
    tenth = max(1, len(ys) // 10)
    return fmean(ys[:tenth]), fmean(ys[-tenth:])


def _with_thinning(shows: str, points: Steps) -> str:
    finite = sum(math.isfinite(y) for _, y in points)
    size = -(-finite // DRAWN)
    return shows if size <= 1 else f"{shows} Each point is the mean of {size} steps."


def _odd(found: str, points: Steps) -> str:
    """What was found, and steps without a number, which no other test would mention."""
    gaps = sum(not math.isfinite(y) for _, y in points)
    steps = "1 step has" if gaps == 1 else f"{gaps:,} steps have"
    missing = f"{steps} no number: nothing was drawn, or nothing finite came out." if gaps else ""
    return " ".join(part for part in (found, missing) if part) or NOTHING_ODD
