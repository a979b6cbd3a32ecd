"""What guidance asks for: every pointer leads somewhere, and nothing private reaches consumers."""

import base64
import json
import re
from pathlib import Path

import pytest
import yaml
from variants import rest_in_full

from dpmlm.release import assessment, render_report
from dpmlm.release.facts import public_evidence
from dpmlm.release.report import identifiers
from dpmlm.release.report.clauses import GUIDANCE
from dpmlm.release.report.pointers import HELD, Gone, at, is_field, pointer

ROOT = Path(__file__).parents[3]
FILES = ("statement", "plan", "ledger", "training", "evidence", "decision")
RECALL = {
    "documents": 50,
    "annotation": "blind",
    "all": {"found": 4711, "of": 4800, "rate": 4711 / 4800, "low": 0.977, "high": 0.985},
    "direct": None,
    "quasi": None,
    "by_type": {
        "PERSON": {"found": 612, "of": 640, "rate": 0.95625, "low": 0.9375, "high": 0.9707},
        "JOB": {"found": 3, "of": 9, "rate": 1 / 3, "low": 0.07, "high": 0.7},
    },
    "precision": None,
    "elsewhere": 0,
}


@pytest.fixture
def released(bundle):
    """The files of a written bundle by name, the signed predicate as `manifest`."""
    read = {name: json.loads((bundle / f"{name}.json").read_bytes()) for name in FILES}
    envelope = json.loads((bundle / "manifest.dsse.json").read_bytes())
    return read | {"manifest": json.loads(base64.b64decode(envelope["payload"]))["predicate"]}


def _anchors(page):
    """Anchors of a page's headings, as forges make them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def dangling(places, released, page, folder):
    """Those of the places that lead nowhere."""
    found = []
    for place in places:
        file, _, anchor = place.partition("#")
        if place.startswith("#"):
            there = f'id="{anchor}"' in page
        elif is_field(place):
            there = not isinstance(at(released, place), Gone)
        elif file.startswith("docs/"):
            there = (ROOT / file).exists() and anchor in _anchors(ROOT / file)
        else:
            there = (folder / place).exists()
        if not there:
            found.append(place)
    return found


def _inputs(report, **changed):
    evidence = public_evidence(report.evidence or {})
    given = {
        "statement": report.statement, "training": report.training, "evidence": evidence,
        "decision": report.decision, "found": None,
    }  # fmt: skip
    return {one.name: one for one in assessment.inputs(**{**given, **changed})}


def test_every_pointer_leads_somewhere(report_data, released, bundle):
    report = report_data()
    page = render_report(report, private=False)
    places = [place for part in GUIDANCE for clause in part.clauses for place in clause.where]
    places += [place for one in _inputs(report).values() for place in one.where]
    assert len(places) > 80
    assert dangling(places, released, page, bundle) == []
    assert "not in this run" not in page


NOWHERE = [
    "plan.epsilom", "statement.details.trusty", "#nowhere", "docs/claim.md#what-is-thick",
    "docs/none.md#what-is-thin", "NONE.md", "manifest.recipients.anybody",
]  # fmt: skip


@pytest.mark.parametrize("place", rest_in_full(NOWHERE, NOWHERE[::3]))
def test_a_pointer_that_leads_nowhere_is_found(report_data, released, bundle, place):
    page = render_report(report_data(), private=False)
    assert dangling([place], released, page, bundle) == [place]


def test_every_clause_says_something_or_why_nothing_is_delivered(report_data):
    page = render_report(report_data(), private=False)
    for part in GUIDANCE:
        assert part.source in page
        for clause in part.clauses:
            assert clause.says or clause.lacks, clause.asks
            assert clause.where or not clause.says, clause.asks
            assert clause.asks in page
    lacking = sum(bool(clause.lacks) for part in GUIDANCE for clause in part.clauses)
    assert page.count("Not delivered:") == lacking > 5


def test_values_stand_beside_pointers_and_what_is_missing_says_so(released):
    assert pointer(released, "plan.steps").value == "20"
    assert pointer(released, "plan.noise_seed").value == "none"
    assert pointer(released, "statement.details.renyi").value == ""
    assert pointer(released, "manifest.files").value == ""
    assert pointer(released, "#rules").link
    assert pointer(released, "evidence.membership.records").value == HELD
    assert pointer(released, "plan.epsilom").value == "not in this run"
    released["evidence"]["subjects"]["target"]["exposure"] = {"applicable": False, "reason": "why"}
    found = pointer(released, "evidence.subjects.target.exposure.mean_bits")
    assert found.value == "could not be tried: why"


def test_the_eighteen_identifiers_are_the_scrub_policys(evidence):
    policy = yaml.safe_load((ROOT / "policies/scrub/hipaa-safe-harbor.yaml").read_text())
    rows = identifiers.rows(evidence, None)
    assert [row["number"] for row in rows] == list(range(1, 19))
    assert [row["identifier"] for row in rows] == [
        one["identifier"] for one in policy["identifiers"]
    ]
    for number in (16, 17):
        assert rows[number - 1]["recall"] == rows[number - 1]["games"] == ["no recogniser"]


def test_recall_of_an_identifier_is_that_of_its_types_and_never_guessed(evidence):
    rows = {row["number"]: row for row in identifiers.rows(evidence, RECALL)}
    assert rows[1]["recall"] == [
        "PERSON: 612 of 640, 95.6 % (95 % interval 93.8 % to 97.1 %)"
    ]  # fmt: skip
    assert rows[6]["recall"] == ["unmeasured: none was marked"]
    assert "none of the rows: JOB." in identifiers.notes(evidence, RECALL)[0]
    without = {"applicable": False, "reason": "the run file names no scrub.gold"}
    for row in identifiers.rows(evidence, without):
        if row["entities"]:
            assert row["recall"] == ["unmeasured"]
    assert "the run file names no scrub.gold" in identifiers.notes(evidence, without)[0]


def test_games_are_told_by_type_beside_the_other_model(whole_evidence):
    rows = {row["number"]: row for row in identifiers.rows(whole_evidence, RECALL)}
    assert rows[1]["games"] == [
        "text before scrubbing, PERSON: extractable 1 of 9 (other model 0), reconstructable "
        "2 of 9 (other model 1), inferable 3 of 9 (other model 4)",
    ]
    assert "inferable 5 of 31" in rows[3]["games"][0]
    assert rows[7]["games"] == [identifiers.NONE_DRAWN]
    refused = "Not judged on text as trained on: nothing was tagged."
    assert refused in identifiers.notes(whole_evidence, RECALL)
    assert refused not in identifiers.notes(public_evidence(whole_evidence), None)


def test_consumers_learn_of_identifiers_that_the_auditor_holds_them(whole_evidence, evidence):
    for row in identifiers.rows(public_evidence(whole_evidence), None):
        held = [HELD] if row["entities"] else ["no recogniser"]
        assert row["recall"] == row["games"] == held
    not_played = identifiers.rows(evidence, None)[0]["games"]
    assert not_played == [identifiers.NOT_PLAYED]
    assert "set audit.identifiers" in identifiers.notes(evidence, None)[0]


def test_the_assessment_has_labels_for_the_auditor_and_no_count_for_anybody(report_data):
    report = report_data()
    whole = _inputs(report, found=report.private.scrubbed)["categories of personal data"].says
    assert "DATE_TIME, PERSON, PHONE_NUMBER, US_SSN" in whole
    assert not re.search(r"\d{2,}", whole)
    assert _inputs(report)["categories of personal data"].says == HELD
    assert _inputs(report)["purpose of the processing"].says == assessment.OWNERS


def test_the_assessment_states_measures_tests_and_what_is_left(report_data, evidence):
    told = {name: one.says for name, one in _inputs(report_data()).items()}
    assert "scrubbing by policy default" in told["measures"]
    assert "removed from a likeness of 0.8" in told["measures"]
    assert "1 of 2 known attacks run" in told["tests of the measures"]
    assert "none beyond the promise" in told["tests of the measures"]
    # e^eps / (1 + e^eps) at an even bet, of the epsilon that the statement rounds up.
    assert "an even bet that this one is in the text, can become 100 %" not in told["residual risk"]
    assert "more than 99.9 % sure at most" in told["residual risk"]
    without = _inputs(report_data(), statement={"epsilon": "inf", "delta": 1e-6})
    assert without["residual risk"].says.startswith("no limit on what the model gives away")
    assert "no differential privacy" in without["measures"].says
    assert "none were run" in _inputs(report_data(), evidence={})["tests of the measures"].says


def test_the_white_box_section_is_the_auditors(report_data, facts, whole_evidence):
    facts["audit"] = whole_evidence
    report = report_data()
    page, public = (render_report(report, private=who) for who in (True, False))
    assert "could find nothing" not in page
    for trace in ("Watching every step", "133 of 200", "0.9011", "6.92", "0.771"):
        assert trace in page, trace
        assert trace not in public, trace
    whole_evidence["gradients"]["gating"]["needed_strict"] = None
    assert "could find nothing" in render_report(report_data(), private=True)
    whole_evidence["gradients"] = None
    assert "Watching every step" not in render_report(report_data(), private=True)


def test_private_figures_of_guidance_stay_out_of_the_public_copy(
    report_data, facts, whole_evidence
):
    facts["audit"] = whole_evidence
    report = report_data()
    report.private.recall.update(RECALL)
    page, public = (render_report(report, private=who) for who in (True, False))
    labels = "found by software: DATE_TIME, PERSON"
    for trace in (
        labels,
        "612 of 640",
        "inferable 3 of 9",
        "60 records of 30",
        "300 stretches",
        "JOB",
    ):
        assert trace in page, trace
        assert trace not in public, trace
    assert HELD in public
    assert 'id="identifiers"' in public


def test_the_second_bound_says_what_it_assumes(report_data, facts):
    text = " ".join(render_report(report_data(), private=False).split())
    bound = facts["audit"]["subjects"]["target"]["lower_bound"]["fdp_one_run"]
    assert f"gives <b>{bound:.2f}</b>" in text
    assert "assumes that the whole curve" in text
    assert "Gaussian-shaped" in text
    facts["audit"]["subjects"]["target"]["lower_bound"]["fdp_one_run"] = None
    assert "Gaussian-shaped" not in render_report(report_data(), private=False)
