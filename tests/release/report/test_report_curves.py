"""Curves of the training: what is drawn, what is said of it, and what is odd."""

import math
import re

import pytest

from dpmlm.release import render_report
from dpmlm.release.report import curves


def drawn(loss=(), norms=(), clipped=(), clip_norm=1.0):
    return curves.draw(
        list(enumerate(loss, 1)),
        list(enumerate(norms, 1)),
        list(enumerate(clipped, 1)),
        clip_norm=clip_norm,
    )


def test_nothing_odd_is_said_where_nothing_is():
    found = drawn([9, 7, 5], [2, 3, 2], [0.5, 0.6, 0.4])
    assert [one.odd for one in found] == [curves.NOTHING_ODD] * 3


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"loss": [5, 6, 9]}, "ends higher than it began"),
        ({"loss": [5, math.nan, 4]}, "1 step has no number"),
        ({"norms": [1, 2, 30]}, "grows 30-fold"),
        ({"norms": [0.01, 0.02, 0.01]}, "far below the clipping norm"),
        ({"clipped": [1, 0.99, 1]}, "nearly every unit is cut back"),
        ({"clipped": [0, 0.01, 0]}, "Hardly any unit is cut back"),
    ],
)
def test_what_is_odd_is_said(figures, said):
    (found,) = drawn(**figures)
    assert said in found.odd


def test_a_long_training_is_drawn_by_means_and_says_so():
    steps = [(step, float(step % 7)) for step in range(1, 2101)]
    points = curves.thinned(steps, most=300)
    assert len(points) == 300
    for number, (x, y) in enumerate(points):
        part = [steps[number * 7 + i] for i in range(7)]
        assert x == sum(at for at, _ in part) / 7
        assert y == 3.0  # the mean of 0 to 6, in any order
    (found,) = drawn(loss=[9.0 - i / 1000 for i in range(2100)])
    assert "Each point is the mean of 5 steps." in found.shows
    assert curves.thinned(steps[:300], most=300) == steps[:300]


def test_shares_stand_on_an_axis_from_none_to_all():
    (found,) = drawn(clipped=[0.25, 0.5])
    ticks = re.findall(r'<text class="tick end"[^>]*y="([\d.]+)">(\d+)%<', found.chart)
    assert [name for _, name in ticks] == ["0", "20", "40", "60", "80", "100"]
    at = {int(name): float(y) - 4 for y, name in ticks}
    ys = [
        float(one.split(",")[1]) for one in re.search(r'points="([^"]+)"', found.chart)[1].split()
    ]
    assert ys[0] == pytest.approx(at[0] + 0.25 * (at[100] - at[0]), abs=0.2)
    assert ys[1] == pytest.approx(at[0] + 0.5 * (at[100] - at[0]), abs=0.2)


def test_the_clipping_norm_is_the_plans(report_data, plan):
    html = render_report(report_data(), private=True)
    assert f"clipping norm: {plan.max_grad_norm:g}" in html
    for heading in ("Loss", "Pull of a unit", "Units cut back"):
        assert f'<h3>{heading} <span class="tag">private</span></h3>' in html
        assert f"<h3>{heading} " not in render_report(report_data(), private=False)
