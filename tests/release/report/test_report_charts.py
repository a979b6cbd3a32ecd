"""Charts hold what they are given, and no label is crossed or out of the drawing."""

import math
import re

import pytest
from html_page import Page

from dpmlm.release import render_report
from dpmlm.release.report.charts import (
    Mark,
    bar_list,
    delta_chart,
    exposure_chart,
    guess_chart,
    line_chart,
    ticks,
)


def test_ticks_are_round_and_inside():
    for low, high in ((0, 1), (0, 8.4), (5, 9), (1, 150), (0, 0.013), (3, 3)):
        found = ticks(low, high)
        assert all(low <= tick <= high for tick in found)
        assert 1 <= len(found) <= 11
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(1, 20, 8) == [5, 10, 15, 20]


def _floats(pattern, svg):
    return [float(value) for value in re.findall(pattern, svg)]


def test_a_line_chart_draws_its_points_in_order():
    svg = line_chart([(1, 2.0), (2, 4.0), (3, 3.0)], title="t", x_label="step", y_label="y")
    points = re.search(r'points="([^"]+)"', svg).group(1).split()
    xs, ys = zip(*(map(float, point.split(",")) for point in points), strict=True)
    assert xs == tuple(sorted(xs))
    assert ys[1] < ys[2] < ys[0]  # up is smaller in SVG
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


def test_a_flat_line_and_a_line_at_its_limit_can_be_drawn():
    limit = Mark(8.0, "budget")
    for points in ([(1, 8.0), (2, 8.0)], [(0, 0.0), (5, 0.0)]):
        svg = line_chart(points, title="t", x_label="step", y_label="y", limit=limit)
        assert "nan" not in svg
        assert 'class="limit"' in svg


def test_histogram_bars_are_proportional_to_shares():
    histogram = {"edges": [0, 1, 2], "in": [3, 1], "out": [0, 10]}
    svg = exposure_chart(histogram, title="t", mean=0.5, marks=[Mark(1.5, "ceiling")])
    heights = {
        kind: _floats(rf'<rect class="{kind}"[^>]* height="([\d.]+)"', svg)
        for kind in ("in", "out")
    }
    assert heights["in"][0] / heights["in"][1] == pytest.approx(3, rel=0.01)
    assert heights["out"] == [pytest.approx(heights["in"][0] / 0.75, rel=0.01)]
    assert "ceiling" in svg


@pytest.mark.parametrize("places", [(3, 24), (24, 3), (3, 6), (30, 33), (17, 19), (1, 35)])
def test_no_line_runs_through_the_label_of_another(places):
    histogram = {"edges": list(range(37)), "in": [1] * 36, "out": [1] * 36}
    marks = [Mark(place, "highest mean allowed: 24.5") for place in places]
    svg = exposure_chart(histogram, title="t", mean=0.5, marks=marks)
    lines = re.findall(r'<line class="limit" x1="([\d.]+)" x2="[\d.]+" y1="([\d.]+)"', svg)
    labels = re.findall(r'<text class="label( end)?" x="([\d.]+)" y="([\d.]+)"', svg)
    assert len(lines) == len(labels) == 2
    for end, x, y in labels:
        other = float(x) + (-1 if end else 1) * 26 * 6.5
        assert 0 < other < 720
        low, high = sorted((float(x), other))
        assert not any(low < float(at) < high and float(top) < float(y) for at, top in lines)


def test_guess_bars_are_proportional():
    rows = [("a", 50, 200, 198), ("b", 100, 200, None)]
    svg = guess_chart(rows, title="t")
    widths = _floats(r'<rect class="in"[^>]* width="([\d.]+)"', svg)
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.01)
    assert svg.count('<line class="needed"') == 1


def test_delta_runs_in_powers_of_ten():
    curves = {"RDP": [(1e-8, 9.0), (1e-7, 8.0)], "PLD": [(1e-8, 7.0), (1e-7, 6.5), (1e-5, 5.5)]}
    svg = delta_chart(curves, title="t", claimed=(3e-7, 6.2))
    lines = re.findall(r'<polyline class="([\w ]+)" points="([^"]+)"', svg)
    assert [kind for kind, _ in lines] == ["curve", "curve dashed"]
    xs, ys = zip(*[map(float, p.split(",")) for p in lines[1][1].split()], strict=True)
    assert xs[2] - xs[1] == pytest.approx(2 * (xs[1] - xs[0]), abs=0.2)
    assert ys[0] < ys[1] < ys[2]
    at, height = (
        _floats(r'<circle class="dot" c[xy]="([\d.]+)"', svg),
        _floats(r'cy="([\d.]+)"', svg),
    )
    assert at[0] == pytest.approx(xs[0] + (xs[1] - xs[0]) * (math.log10(3e-7) + 8), abs=0.2)
    assert ys[1] < height[0] < ys[2]
    assert "10⁻⁸" in svg
    assert "6.2 at 3.0 × 10⁻⁷" in svg


def test_each_curve_is_explained_and_the_claim_stands_in_it(report_data):
    page = Page(render_report(report_data(), private=False)).words
    for said in ("step by step", "the chance with which the limit may fail", "at 10⁻⁶"):
        assert said in page
    assert (
        "the chance with which"
        not in Page(render_report(report_data(delta_curve={}), private=False)).words
    )


def test_every_chart_speaks_to_screen_readers(report_data):
    html = render_report(report_data(), private=True)
    charts = re.findall(r'<svg class="chart".*?</svg>', html, flags=re.S)
    assert len(charts) == 10
    for chart in charts:
        title, description = re.search(r'aria-labelledby="(\w+) (\w+)"', chart).groups()
        assert re.search(rf'<title id="{title}">[^<]+</title>', chart)
        assert re.search(rf'<desc id="{description}">[^<]+</desc>', chart)
    assert "PERSON 4123" in bar_list([("PERSON", 4123)], title="t")
