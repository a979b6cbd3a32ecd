"""Each figure and each table of the page stands beside a sentence that says what it shows."""

import re
from dataclasses import replace

import pytest
from explained import unexplained
from html_page import Page

from dpmlm.release import render_report
from dpmlm.release.report import fields


@pytest.mark.parametrize("private", [True, False], ids=["auditor", "public"])
@pytest.mark.parametrize("whole", [True, False], ids=["all attacks", "no audit"])
def test_every_figure_and_table_is_explained(report_data, facts, whole_evidence, private, whole):
    facts["audit"] = whole_evidence if whole else {}
    page = Page(render_report(report_data(), private=private))
    assert not (wrong := unexplained(page)), wrong
    assert len(page.root.all("table")) >= 10
    assert len(page.root.all("figure")) >= (3 if whole else 2)


@pytest.mark.parametrize(
    "taken", [r"<figcaption>.*?</figcaption>", r' aria-describedby="says-plan"', r'id="says-rules"']
)
def test_what_is_not_explained_is_found(report_data, taken):
    html = re.sub(taken, "", render_report(report_data(), private=True), count=1, flags=re.DOTALL)
    assert len(unexplained(Page(html))) == 1


def test_every_field_of_a_plan_and_of_the_figures_is_described(plan, facts, report_data):
    bound = replace(plan, batch_schedule=((5, 300.0),)).to_json()
    for rows in (
        fields.plan_rows(bound, facts["training"]),
        fields.rows(report_data().private.documents, fields.TEXT),
    ):
        assert not [row.name for row in rows if not row.says]
    assert "300 from step 5" in [row.value for row in fields.plan_rows(bound, {})]


def test_a_setting_that_plan_and_training_name_stands_once(plan):
    own = plan.to_json() | {"bindings": {"window": 96, "masking": "sha256:" + "0" * 64}}
    rows = fields.plan_rows(own, {"window": 96, "masking": "whole_word", "steps": plan.steps})
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    assert next(row for row in rows if row.name == "masking").value == "whole_word"
