"""The model card: one page, failures on it, nothing private."""

from dataclasses import replace

import pytest
from html_page import Page

from audits.verdict import power_of_tests
from dpmlm.release import model_card, render_report
from dpmlm.release.report.card import UNTOLD_USE, card


def test_model_card_shows_failures_and_nothing_private(report_data, failing):
    card = model_card(report_data(intended_use="Research.", base="nothing"))
    assert card.startswith("# clinic notes 2026")
    assert "**Verdict: FAIL**" in card
    assert "Found 470, required is at most 0." in card
    assert "Research." in card
    assert UNTOLD_USE not in card
    assert UNTOLD_USE in model_card(report_data())
    assert "&#" not in card
    for trace in ("4123", "McNemar", "183.1", "8717"):
        assert trace not in card


def test_the_model_card_is_one_page_with_every_declared_test_on_it(report_data, facts):
    audit = facts["audit"]
    audit["declared"]["tests"] = [*audit["declared"]["tests"], "fresh_test"]
    audit["subjects"]["target"]["fresh_test"] = {"applicable": False, "reason": "no luck"}
    audit["subjects"]["target"]["lower_bound"] |= {"one_run": 0.12, "fdp_one_run": 0.2}
    card = model_card(report_data())
    assert "108 of 200 guesses right" in card
    assert "0 of 496 secrets read out" in card
    assert "fresh test no luck." in card
    assert "at least 0.12 (by a calculation that assumes a Gaussian-shaped curve 0.20)" in card
    assert len(card.splitlines()) <= 60  # of a printed page


def test_the_card_is_a_section_of_both_copies_and_says_the_same(report_data, facts):
    data = report_data(base="a public model")
    told, text = card(data), model_card(data)
    for private in (True, False):
        page = Page(render_report(data, private=private))
        (section,) = [one for one in page.root.all("section") if one.attributes.get("id") == "card"]
        for line in (told.use, *told.text, *told.limits, *(one.says for one in told.figures)):
            assert " ".join(line.split()) in section.words
            assert line in text
        for figure in told.figures:
            assert " ".join(figure.value.split()) in section.words
            assert f"| {figure.name} | {figure.value} |" in text
    assert "It started from a public model." in text
    assert f"at most {data.plan['units']:,} {data.plan['unit']}s" in text
    assert "(policy default)" in text


def test_figures_of_a_model_that_leaks_are_marked(report_data, failing):
    data = report_data()
    figures = {one.name: one for one in card(data).figures}
    assert figures["Planted secrets read out"].value == "470 of 496"
    assert [one.bad for one in figures.values()] == [False, True, True, True]
    page = render_report(data, private=False)
    assert page.count('<dd class="bad">') == 3


def test_nothing_of_the_card_is_private(report_data, facts):
    facts["audit"]["verbatim"]["hits"]["train"] = 3917
    data = report_data()
    assert card(data) == card(replace(data, private=None))
    assert "3917" not in repr(card(data))


@pytest.fixture
def blunt(facts):
    """An audit in which reading secrets out did not catch the leaky twin."""
    audit = facts["audit"]
    control = audit["subjects"]["control"]
    control["canary_extraction"] |= {"extracted": 0, "p_value": 1.0, "rejected": False}
    control["rejected_by"] = [one for one in control["rejected_by"] if "extr" not in one]
    audit["power"] = power_of_tests(audit["subjects"])
    assert audit["power"]["status"] == "shown"
    return facts


def test_a_test_that_did_not_catch_the_leaky_twin_is_not_counted_as_able_to(report_data, blunt):
    data = report_data()
    told, text = card(data), model_card(data)
    figures = {one.name: one for one in told.figures}
    assert figures["Attacks beyond the promise"].note == "2 of 3 could have noticed a leak"
    secrets = figures["Planted secrets read out"]
    assert secrets.note == "not shown to notice a leak"
    assert "of the leaky twin it read out 0 of 496" in secrets.says
    assert secrets.says in text
    assert "0 of 496 secrets read out; not shown to notice a leak." in text
    assert "Power is shown for 2 of 3 tests" in told.power
    page = Page(render_report(data, private=False)).words
    assert "2 of 3 attacks could have noticed a leak." in page
    assert "that of the others proves nothing: “Can the secret be read out?”" in page


def test_where_every_test_caught_the_leaky_twin_nothing_is_held_back(report_data):
    data = report_data()
    figures = {one.name: one for one in card(data).figures}
    assert figures["Attacks beyond the promise"].note == "3 of 3 could have noticed a leak"
    assert figures["Planted secrets read out"].note == "each hidden in the training text"
    assert "proves nothing" not in model_card(data)
    assert "3 of 3 attacks could" in Page(render_report(data, private=False)).words


def test_secrets_that_came_out_have_no_caveat(report_data, blunt):
    blunt["audit"]["subjects"]["target"]["canary_extraction"]["extracted"] = 2
    (secrets,) = [one for one in card(report_data()).figures if "secrets" in one.name]
    assert secrets.bad
    assert "leaky twin" not in secrets.says


def test_without_a_promise_the_twins_secrets_say_whether_any_could_come_out(report_data, blunt):
    subjects = blunt["audit"]["subjects"]
    for one in subjects.values():
        one["canary_extraction"] |= {"p_value": None, "rejected": None}
    blind, able = "not shown to notice a leak", "each hidden in the training text"
    for extracted, note in ((0, blind), (9, able)):
        subjects["control"]["canary_extraction"]["extracted"] = extracted
        (secrets,) = [one for one in card(report_data()).figures if "secrets" in one.name]
        assert secrets.note == note
