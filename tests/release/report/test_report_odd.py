"""Runs that nobody planned for still make a page whose every figure is explained."""

import math
from dataclasses import replace

import pytest
from explained import unexplained
from html_page import Page
from variants import rest_in_full

from dpmlm.release import model_card, render_report

NAN = math.nan
CASES = {
    "200 letters": {"name": "n" * 200},
    "right to left": {"name": "ملاحظات \u202e العيادة 🦠🩺"},
    "no audit": {"evidence": None},
    "no curves": {"epsilon_curve": [], "delta_curve": {}},
    "one point": {"epsilon_curve": [(1, 2.0)], "delta_curve": {"PLD": [(1e-6, 8.0)]}},
    "nothing but a name": {"training": {}, "digests": {}, "versions": {}},
    "no text but the promise": {
        "statement": {"sentence": "Nothing else is known here at all.", "note": ""}
    },
    "infinite": {"statement": {"sentence": "s", "note": "", "epsilon": "inf", "delta": 0}},
}


@pytest.mark.parametrize(
    "changed", rest_in_full(CASES.values(), list(CASES.values())[1::2]), ids=CASES
)
def test_an_odd_run_has_its_page_and_its_card(report_data, changed):
    data = report_data(**changed)
    for private in (True, False):
        page = Page(render_report(data, private=private))
        assert not (wrong := unexplained(page)), wrong
        told = {one.words for one in page.root.all("td", "dd", "text")}
        assert not {"nan", "None", "inf", "{}"} & told
        assert page.root.all("h1")[0].words == " ".join(data.name.split())
    assert model_card(data).startswith(f"# {data.name}\n")


def test_a_policy_without_rules_decides_nothing_and_says_so(report_data):
    data = report_data()
    empty = replace(data.decision, rules=(), verdict="INCONCLUSIVE")
    page = Page(render_report(replace(data, decision=empty), private=False))
    assert "0 of 0" in page.words
    assert not unexplained(page)


@pytest.mark.parametrize(
    ("curve", "drawn"),
    [
        ([(1, 5.0)], False),
        pytest.param([(1, NAN), (2, NAN), (3, NAN)], False, marks=pytest.mark.full),
        ([(1, 5.0), (2, math.inf), (3, 4.0)], True),
        pytest.param([(1, 0.0), (2, 0.0)], True, marks=pytest.mark.full),
        pytest.param([(1, 1e30), (2, 1e-30)], True, marks=pytest.mark.full),
    ],
)
def test_curves_with_few_points_or_none(report_data, curve, drawn):
    figures = replace(
        report_data().private, loss_curve=curve, norm_curve=curve, clipped_curve=curve
    )
    page = Page(render_report(report_data(private=figures), private=True))
    titles = {one.words for one in page.root.all("title")}
    named = {"Training loss over steps", "Median gradient norm over steps"}
    assert (named <= titles) == drawn
    assert drawn or not named & titles
    assert not unexplained(page)
    assert "nan" not in page.words.lower().split()
