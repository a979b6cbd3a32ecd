"""A dot for each trained model, a line for each setting: inline SVG in the report's style."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from dpmlm.release.report.charts import Frame, Mark, drawing, ticks, written

ROW = 30
"""Height of a setting, in SVG units."""
LEFT = 270
"""Room for its name."""
LONGEST = 34
"""Letters of a name that fit there."""
_LETTER = 7


class Line(NamedTuple):
    """One setting."""

    label: str
    values: Sequence[float]
    """Of its trainings; none where all failed."""


def dot_chart(
    lines: Sequence[Line], *, title: str, axis: str, form: str, mark: Mark | None = None
) -> Markup:
    """Values of every line over one axis, with the mean of each and a reference line.

    `form` spells a value. Raises ValueError where no line has a value.
    """
    every = [value for line in lines for value in line.values]
    edges = [*every, *([mark.at] if mark else [])]
    pad = (max(edges) - min(edges)) * 0.08 or abs(max(edges)) * 0.1 or 1.0
    top = 34 if mark else 14
    height = top + ROW * len(lines) + 48
    frame = Frame(min(edges) - pad, max(edges) + pad, 1, height=height, left=LEFT, top=top)
    base = top + ROW * len(lines) + 4
    drawn = [_scale(frame, base, top, axis, form)]
    if mark:
        x = frame.x(mark.at)
        drawn.append(_line("limit", x, x, top - 12, base))
        end = x + 6 + _LETTER * len(mark.label) > 700
        drawn.append(
            written(x - 6 if end else x + 6, top - 16, mark.label, "label end" if end else "label")
        )
    for number, line in enumerate(lines):
        drawn.append(_row(frame, top + ROW * number + ROW / 2, line))
    words = "; ".join(
        f"{line.label}: {', '.join(form.format(value) for value in line.values) or 'no value'}"
        for line in lines
    )
    return drawing(drawn, height, title, words)


def short(label: str) -> str:
    """A name that fits beside the drawing."""
    return label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"


def _row(frame: Frame, y: float, line: Line) -> Markup:
    dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"/>')
    drawn = [written(LEFT - 12, y + 4, short(line.label), "name end")]
    drawn += [dot.format(frame.x(value), y) for value in line.values]
    if line.values:
        x = frame.x(sum(line.values) / len(line.values))
        drawn.append(_line("axis", x, x, y - 10, y + 10))
    return Markup("").join(drawn)


def _scale(frame: Frame, base: float, top: float, axis: str, form: str) -> Markup:
    drawn = []
    for tick in ticks(frame.x0, frame.x1, 5):
        x = frame.x(tick)
        drawn += [
            _line("grid", x, x, top, base),
            written(x, base + 18, form.format(tick), "tick middle"),
        ]
    right = frame.x(frame.x1)
    drawn.append(_line("axis", LEFT, right, base, base))
    drawn.append(written((LEFT + right) / 2, frame.height - 6, axis, "axis-name middle"))
    return Markup("").join(drawn)


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> Markup:
    form = '<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
    return Markup(form).format(kind, x1, x2, y1, y2)
