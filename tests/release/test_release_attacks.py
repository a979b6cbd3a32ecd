"""Every attack in the report, and where it answers what guidance asks for."""

import json

import pytest

from audits.coverage import ATTACKS
from dpmlm.release import attacks
from dpmlm.release.clauses import CLAUSES
from dpmlm.release.facts import Missing, find, public_evidence
from dpmlm.release.report import _cell, _environment


@pytest.fixture
def page_sections():
    source = _environment().loader.get_source(_environment(), "report.html.j2")[0]
    return {part.split('"')[0] for part in source.split('<section id="')[1:]}


def test_what_was_not_run_has_its_reason_and_what_was_its_finding(evidence):
    rows = {row["attack"]: row for row in attacks.rows(evidence)}
    assert rows["attribute inference"]["found"] == "no labels were declared"
    assert "secrets read out" in rows["extraction of planted secrets"]["found"]


def test_private_results_are_told_to_the_auditor_alone():
    def entry(name):
        return {"attack": name, "status": "RUN", "evidence": name, "kind": "", "could_find": ""}

    hits = {"train": 3, "twins": 2}
    evidence = {
        "attacks": [entry("verbatim"), entry("membership"), entry("groups")],
        "verbatim": {
            "label": "private", "hits": hits, "spans": {"train": 90, "twins": 80}, "discordant": 1,
        },
        "membership": {"label": "private", "record_level": {"leaks": ["rmia"]}},
        "groups": [{"label": "private", "name": "phone/1/pipeline", "models": {}}],
    }  # fmt: skip
    whole = [row["found"] for row in attacks.rows(evidence)]
    assert "3 of 90" in whole[0]
    assert "rmia" in whole[1]
    assert "phone" in whole[2]
    public = [row["found"] for row in attacks.rows(public_evidence(evidence))]
    assert public == [attacks.PRIVATE] * 3


def test_a_result_that_could_not_be_judged_says_why():
    evidence = {
        "attacks": [{"attack": "m", "status": "RUN", "evidence": "membership"}],
        "membership": {"label": "private", "applicable": False, "reason": "too few units"},
    }
    assert attacks.rows(evidence)[0]["found"] == "could not be judged: too few units"


def test_every_attack_that_has_a_result_has_words_for_it():
    assert {a.evidence for a in ATTACKS if a.evidence} <= set(attacks._WORDS)


def test_every_pointer_of_the_clauses_leads_somewhere(evidence, plan, page_sections):
    facts = {"plan": plan.to_json(), "audit": evidence, "ledger": {"epsilon": 8.0}}
    for clause in CLAUSES:
        assert clause.where or clause.note
        for place in clause.where:
            if place.startswith("#"):
                assert place[1:] in page_sections, clause
            else:
                assert not isinstance(find(facts, place), Missing), clause


def test_no_clause_says_compliant_or_anonymous():
    text = json.dumps(CLAUSES).lower()
    assert "compliant" not in text
    assert "anonym" not in text


@pytest.mark.parametrize(
    ("control", "kind"),
    [({"rejected": True}, "good"), ({"rejected": False}, "open"), (None, "open")],
)
def test_silence_counts_where_the_same_test_caught_the_control(control, kind):
    part = {"rejected": False, "correct": 1, "guesses": 2}
    subjects = {"target": {"gating": part}, "control": control and {"gating": control}}
    cell = _cell(subjects, "gating", "target", lambda part: "")
    assert cell["kind"] == kind
