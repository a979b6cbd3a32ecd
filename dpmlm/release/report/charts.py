"""Inline SVG charts for the report: small, without scripts, readable in print and by ear.

Colours come from the page's CSS variables, so that charts follow light, dark and print. No meaning
hangs on colour alone: series differ by fill, dash or label. Every chart has a title and a
description for screen readers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations, product
from typing import Any

from markupsafe import Markup

from dpmlm.canonical import digest

_WIDTH = 720
_LETTER = 7
"""Width of a letter of a label, at most on average, in SVG units."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """A labelled reference line."""

    at: float
    """Position on the axis."""
    label: str
    """What stands there."""


@dataclass(frozen=True)
class Frame:
    """A plot area with linear axes."""

    x0: float
    """Left data limit."""
    x1: float
    """Right data limit."""
    y1: float
    """Upper data limit; the lower one is `y0`."""
    height: float = 240
    """Of the whole drawing, in SVG units."""
    y0: float = 0
    """Lower data limit."""
    left: float = 64
    """Margin for the labels of the vertical axis."""
    bottom: float = 44
    """Margin for the labels of the horizontal axis."""
    top: float = 22
    """Margin above."""

    def x(self, value: float) -> float:
        """Horizontal position of a value."""
        span = (self.x1 - self.x0) or 1
        return self.left + (value - self.x0) / span * (_WIDTH - self.left - 20)

    def y(self, value: float) -> float:
        """Vertical position of a value."""
        span = (self.y1 - self.y0) or 1
        return self.height - self.bottom - (value - self.y0) / span * self.plot_height

    @property
    def plot_height(self) -> float:
        """Height of the plot area."""
        return self.height - self.bottom - self.top


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, near `about` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def line_chart(
    points: Points,
    *,
    title: str,
    x_label: str,
    y_label: str,
    limit: Mark | None = None,
    shares: bool = False,
) -> Markup:
    """One curve over steps, with the value at its end and a reference line if there is one.

    The vertical axis begins at 0 under a reference line, and runs from 0 to 1 for `shares`.
    """
    ys = [y for _, y in points]
    lows = [0.0] if limit is not None else ys
    pad = (max(ys) - min(lows)) * 0.08 or 1
    highest = max([*ys, *([limit.at] if limit else [])])
    low = 0.0 if limit is not None else max(0.0, min(lows) - pad)
    low, high = (0.0, 1.08) if shares else (low, highest + pad)
    frame = Frame(min(x for x, _ in points), max(x for x, _ in points), high, y0=low)
    marked, form = (1.0, "{:.0%}") if shares else (high, "{:g}")
    drawn = [_axes(frame, x_label, y_label, ticks(low, marked), form)]
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
    drawn.append(Markup('<polyline class="curve" points="{}"/>').format(path))
    if limit is not None:
        y = frame.y(limit.at)
        drawn.append(
            Markup('<line class="limit" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                frame.left, _WIDTH - 20, y, y
            )
        )
        drawn.append(written(frame.left + 8, y - 6, limit.label, "label"))
    end_x, end_y = points[-1]
    drawn.append(
        Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(
            frame.x(end_x), frame.y(end_y)
        )
    )
    above = 18 if limit is not None and frame.y(end_y) < frame.y(limit.at) + 24 else -10
    at_end = f"{end_y:.0%}" if shares else f"{end_y:.3g}"
    drawn.append(written(frame.x(end_x) - 6, frame.y(end_y) + above, at_end, "value end"))
    first = points[0]
    words = (
        f"{y_label} goes from {first[1]:.3g} at {x_label} {first[0]:g} "
        f"to {end_y:.3g} at {x_label} {end_x:g}."
    )
    return drawing(drawn, frame.height, title, words)


def delta_chart(
    curves: Mapping[str, Points], *, title: str, claimed: tuple[float, float]
) -> Markup:
    """Epsilon over delta, a curve for each accountant; delta runs in powers of ten.

    `curves` are {accountant: (delta, epsilon) by rising delta}, `claimed` the point that the claim
    states.
    """
    points = [point for curve in curves.values() for point in (*curve, claimed)]
    logs = [math.log10(delta) for delta, _ in points]
    highest = max(epsilon for _, epsilon in points)
    frame = Frame(min(logs), max(logs), highest * 1.15, height=262, top=44)
    powers = [(tick, _power(tick)) for tick in ticks(frame.x0, frame.x1, 8) if tick == int(tick)]
    drawn = [_axes(frame, "delta", "epsilon", ticks(0, frame.y1), x_ticks=powers)]
    first = {name: curve[0][1] for name, curve in curves.items()}
    for number, (name, curve) in enumerate(sorted(curves.items(), key=lambda c: -c[1][0][1])):
        path = " ".join(f"{frame.x(math.log10(x)):.1f},{frame.y(y):.1f}" for x, y in curve)
        kind = "curve" if number == 0 else "curve dashed"
        drawn.append(Markup('<polyline class="{}" points="{}"/>').format(kind, path))
        shift = 26 if number else -10  # the upper one is named above, the lower one below itself
        drawn.append(written(frame.left + 8, frame.y(first[name]) + shift, name, "value"))
    at, epsilon = math.log10(claimed[0]), claimed[1]
    drawn += _verticals(frame, [Mark(at, f"claimed: {epsilon:.3g} at {_power(at)}")])
    drawn.append(
        Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(
            frame.x(at), frame.y(epsilon)
        )
    )
    words = " ".join(
        f"By {name} epsilon is {curve[0][1]:.3g} at delta {curve[0][0]:.1e} "
        f"and {curve[-1][1]:.3g} at delta {curve[-1][0]:.1e}."
        for name, curve in curves.items()
    )
    return drawing(drawn, frame.height, title, words)


def _power(log: float) -> str:
    """A power of ten in words of the page, with one digit before it where it needs one."""
    exponent = math.floor(log + 1e-9)
    factor = 10 ** (log - exponent)
    digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{digits}" if abs(factor - 1) < 0.005 else f"{factor:.1f} × 10{digits}"


def exposure_chart(
    histogram: Mapping[str, Any], *, title: str, mean: float, marks: Sequence[Mark]
) -> Markup:
    """Shares of inserted (solid) and never inserted (outlined) canaries a bit of exposure."""
    edges, inside, outside = histogram["edges"], histogram["in"], histogram["out"]
    shares = [_shares(inside), _shares(outside)]
    peak = max(max(values, default=0) for values in shares) or 1
    top = 24 + 15 * len(marks)
    frame = Frame(edges[0], edges[-1], peak * 1.05, height=240 + top, top=top)
    percent = [tick for tick in ticks(0, frame.y1, 4) if tick <= frame.y1]
    drawn = [_axes(frame, "exposure in bits", "share of canaries", percent, "{:.0%}")]
    for number, (low, high) in enumerate(pairwise(edges)):
        width = (frame.x(high) - frame.x(low)) * 0.42
        for share, kind, shift in zip(
            (shares[0][number], shares[1][number]), ("in", "out"), (0.06, 0.52), strict=True
        ):
            if share:
                x = frame.x(low) + (frame.x(high) - frame.x(low)) * shift
                drawn.append(_bar(x, frame.y(share), width, frame.y(0) - frame.y(share), kind))
    drawn += _verticals(frame, marks)
    drawn.append(
        Markup('<path class="mean" d="M{0:.1f} {1:.1f} l6 10 h-12 z"/>').format(
            frame.x(mean), frame.y(0) + 1
        )
    )
    words = (
        f"Inserted canaries have a mean exposure of {mean:.2f} bits. "
        + " ".join(f"{mark.label}." for mark in marks)
        + f" {sum(inside)} canaries were inserted, {sum(outside)} never were."
    )
    return drawing(drawn, frame.height, title, words)


def guess_chart(rows: Sequence[tuple[str, int, int, int | None]], *, title: str) -> Markup:
    """Right guesses of all guesses for each model, with chance and the number needed to reject.

    A row is (name, right, made, needed or None).
    """
    height = 46 + 54 * len(rows)
    drawn = []
    words = []
    left, width = 110, _WIDTH - 110 - 110
    for number, (name, right, made, needed) in enumerate(rows):
        y = 30 + 54 * number
        drawn.append(written(left - 12, y + 17, name, "name end"))
        drawn.append(_bar(left, y, width, 24, "rail"))
        drawn.append(_bar(left, y, width * right / made, 24, "in"))
        drawn.append(written(left + width + 10, y + 17, f"{right} of {made}", "value"))
        drawn.append(_tick(left + width / 2, y, "chance" if number == 0 else ""))
        if needed is not None:
            label = f"needed: {needed}" if number == 0 else ""
            drawn.append(_tick(left + width * needed / made, y, label, "needed"))
        words.append(f"{name}: {right} of {made} guesses right, {needed or 'no number'} needed.")
    return drawing(drawn, height, title, " ".join(words))


def bar_list(rows: Sequence[tuple[str, int]], *, title: str) -> Markup:
    """Named counts as horizontal bars, in the order given."""
    most = max((value for _, value in rows), default=1) or 1
    left, height = 210, 26 * len(rows) + 8
    drawn = []
    for number, (name, value) in enumerate(rows):
        y = 4 + 26 * number
        width = (_WIDTH - left - 90) * value / most
        drawn.append(written(left - 10, y + 14, name, "name end"))
        drawn.append(_bar(left, y + 2, max(width, 1), 16, "in"))
        drawn.append(written(left + width + 8, y + 14, f"{value:,}", "value"))
    return drawing(drawn, height, title, "; ".join(f"{name} {value}" for name, value in rows))


def meter(share: float) -> Markup:
    """A bar for a probability, for table cells; the number beside it says the same."""
    return Markup(
        '<svg class="meter" viewBox="0 0 100 8" aria-hidden="true" preserveAspectRatio="none">'
        '<rect class="rail" width="100" height="8"/>'
        '<rect class="in" width="{:.2f}" height="8"/></svg>'
    ).format(100 * share)


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [number / total for number in counts]


def drawing(drawn: Sequence[Markup], height: float, title: str, words: str) -> Markup:
    """A drawing that tells screen readers its title and, in words, what it shows."""
    name = "c" + digest(title.encode())[7:15]
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h:.0f}" role="img" aria-labelledby="{n}t {n}d">'
        '<title id="{n}t">{title}</title><desc id="{n}d">{words}</desc>{drawn}</svg>'
    ).format(w=_WIDTH, h=height, n=name, title=title, words=words, drawn=Markup("").join(drawn))


def _axes(
    frame: Frame,
    x_label: str,
    y_label: str,
    y_ticks: Sequence[float],
    form: str = "{:g}",
    x_ticks: Sequence[tuple[float, str]] | None = None,
) -> Markup:
    base = frame.y(frame.y0)
    drawn = []
    for tick in y_ticks:
        y = frame.y(tick)
        drawn.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                frame.left, _WIDTH - 20, y, y
            )
        )
        drawn.append(written(frame.left - 8, y + 4, form.format(tick), "tick end"))
    named = x_ticks or [(tick, f"{tick:g}") for tick in ticks(frame.x0, frame.x1, 8)]
    for tick, name in named:
        drawn.append(written(frame.x(tick), base + 18, name, "tick middle"))
    drawn.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            frame.left, _WIDTH - 20, base, base
        )
    )
    middle = (frame.left + _WIDTH - 20) / 2
    drawn.append(written(middle, frame.height - 6, x_label, "axis-name middle"))
    drawn.append(
        Markup(
            '<text class="axis-name middle" transform="translate(14 {:.1f}) rotate(-90)">{}</text>'
        ).format(frame.y(frame.y0) - frame.plot_height / 2, y_label)
    )
    return Markup("").join(drawn)


def _verticals(frame: Frame, marks: Sequence[Mark]) -> list[Markup]:
    """Vertical reference lines, a row of labels for each, such that no line runs through a label.

    A line begins at its own row, so it can only touch the labels of rows below.
    """
    order, sides = min(
        product(permutations(marks), product((1, -1), repeat=len(marks))),
        key=lambda placed: _touching(frame, *placed),
    )
    drawn = []
    line = Markup('<line class="limit" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>')
    for row, (mark, side) in enumerate(zip(order, sides, strict=True)):
        x, y = frame.x(mark.at), 14 + 15 * row
        kind = "label" if side > 0 else "label end"
        drawn += [line.format(x, y - 9, frame.y(0)), written(x + 6 * side, y, mark.label, kind)]
    return drawn


def _touching(frame: Frame, order: Sequence[Mark], sides: Sequence[int]) -> int:
    """How many labels leave the plot or are crossed by a line that begins above them."""
    count = 0
    for row, (mark, side) in enumerate(zip(order, sides, strict=True)):
        near = frame.x(mark.at)
        far = near + side * (_LETTER * len(mark.label) + 10)
        low, high = min(near, far), max(near, far)
        count += low < 0 or high > _WIDTH
        count += sum(low < frame.x(above.at) < high for above in order[:row])
    return count


def _tick(x: float, y: float, label: str, kind: str = "chance") -> Markup:
    line = Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    drawn = line.format(kind, x, x, y - 4, y + 28)
    anchor = "end" if kind == "needed" else "middle"
    return drawn + (written(x, y - 9, label, f"label {kind} {anchor}") if label else Markup(""))


def _bar(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, x, y, width, height
    )


def written(x: float, y: float, text: str, kind: str) -> Markup:
    """Words at a place; `kind` are classes of the style sheet."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, text)
