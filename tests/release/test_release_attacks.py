"""Every attack in the report: run or not, how much it tried, what it could have found."""

import pytest

from audits.coverage import ATTACKS
from dpmlm.release import attacks, kinds
from dpmlm.release.facts import public_evidence
from dpmlm.release.report import reach
from dpmlm.release.report.page import _cell


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


def test_a_group_is_told_by_its_default_score():
    sides = {
        "in": {"n": 3, "mean_text": ">= 9.10 bits"},
        "out": {"n": 2, "mean_text": "1.40 bits"},
        "ranked": "its last 4 digits, given the rest",
    }
    group = {"name": "phone/1/exempt", "default_score": "left_to_right"}
    evidence = {
        "attacks": [{"attack": "g", "status": "RUN", "evidence": "groups"}],
        "groups": [group | {"models": {"target": {"scores": {"left_to_right": sides}}}}],
    }
    (row,) = attacks.rows(evidence)
    assert row["found"] == (
        "phone/1/exempt: >= 9.10 bits planted, 1.40 bits unused (its last 4 digits, given the rest)"
    )
    sides["out"] = {"n": 0, "mean_bits": None}
    assert attacks.rows(evidence)[0]["found"] == "phone/1/exempt: no canary on one side"


def test_a_result_that_could_not_be_judged_says_why():
    evidence = {
        "attacks": [{"attack": "m", "status": "RUN", "evidence": "membership"}],
        "membership": {"label": "private", "applicable": False, "reason": "too few units"},
    }
    assert attacks.rows(evidence)[0]["found"] == "could not be judged: too few units"


def test_every_attack_that_has_a_result_has_words_for_it():
    assert {a.evidence for a in ATTACKS if a.evidence} <= set(attacks._WORDS)


def test_what_could_have_been_found_is_in_numbers_of_this_run(whole_evidence):
    rows = {row.get("evidence"): row for row in attacks.rows(whole_evidence)}
    gating = rows["subjects.target.gating"]
    assert gating["tried"] == "1,000 secrets, 200 guesses"
    assert "197 right guesses of 200" in gating["reach"]
    assert "a coin gets 100" in gating["reach"]
    assert "1.4 times the promise" in gating["reach"]
    assert "above 13.0 bits" in rows["subjects.target.exposure"]["reach"]
    assert "above 24 of 36 bits" in rows["subjects.target.exposure"]["reach"]
    assert "34,359,738,368" in rows["subjects.target.canary_extraction"]["reach"]
    assert "300 stretches" in rows["verbatim"]["tried"]
    assert "190 right guesses of 200" in rows["gradients"]["reach"]
    assert "4.17 at most" in rows["gradients"]["reach"]
    assert "60 records of 30 units" in rows["membership"]["tried"]
    assert "40 sentences" in rows["identifiers"]["tried"]


def test_a_test_that_no_guess_could_fail_says_so(evidence):
    part = evidence["subjects"]["target"]["gating"] | {"needed_strict": None}
    assert "could find nothing" in reach.reach("subjects.target.gating", part)


@pytest.mark.parametrize("n", [1, 60, 496])
def test_no_hit_leaves_what_the_binomial_law_leaves(n):
    most = 1 - 0.025 ** (1 / n)  # P(no hit) = (1 - p)^n is 2.5 % there
    assert f"{100 * most:.3g} %" in reach.none_of(n)


def test_numbers_of_private_attacks_are_the_auditors(whole_evidence):
    rows = {row.get("evidence"): row for row in attacks.rows(public_evidence(whole_evidence))}
    for name in ("verbatim", "gradients", "membership", "identifiers"):
        assert rows[name]["status"] == "RUN"
        assert rows[name]["tried"] == "private, held by the auditor"
        assert rows[name]["reach"] == ""


def test_declared_tests_are_those_that_the_evidence_declares(evidence):
    evidence["declared"]["tests"] = ["gating", "lower_bound", "fresh_test"]
    evidence["subjects"]["target"]["lower_bound"] |= {"rejected": True, "p_value": 0.001}
    rows = {row["name"]: row for row in attacks.declared_tests(evidence)}
    assert list(rows) == ["gating", "lower_bound", "fresh_test"]
    assert rows["gating"]["run"]
    assert (rows["gating"]["outcome"], rows["gating"]["kind"]) == ("within the promise", "good")
    assert rows["gating"]["interval"] == pytest.approx([0.468, 0.611], abs=1e-3)
    assert rows["lower_bound"]["kind"] == "bad"
    assert rows["lower_bound"]["outcome"] == "beyond the promise"
    assert "4.19 at most" in rows["lower_bound"]["reach"]
    assert not rows["fresh_test"]["run"]
    assert rows["fresh_test"]["why_not"] == "it is not in the evidence"
    assert rows["fresh_test"]["title"] == "fresh test"


def test_silence_of_a_declared_test_that_missed_the_control_is_no_good_sign(evidence):
    evidence["subjects"]["control"]["gating"]["rejected"] = False
    row = attacks.declared_tests(evidence)[0]
    assert row["kind"] == "open"
    assert "not shown to notice a leak" in row["outcome"]


def test_a_declared_test_that_could_not_be_run_says_why(evidence):
    evidence["subjects"]["target"]["exposure"] = {
        "applicable": False, "reason": "no threshold", "p_value": None, "rejected": None,
    }  # fmt: skip
    row = attacks.declared_tests(evidence)[1]
    assert (row["name"], row["run"], row["why_not"]) == ("exposure", False, "no threshold")


def test_kinds_of_attack_are_the_opinions_and_the_control_is_none_of_them(whole_evidence):
    rows = {row["kind"]: row for row in kinds.rows(whole_evidence)}
    assert list(rows) == [
        "membership", "attribute inference", "exfiltration", "regurgitation", "inversion",
        "reconstruction",
    ]  # fmt: skip
    run = {kind for kind, row in rows.items() if row["status"] == "RUN"}
    assert run == {"membership", "regurgitation", "reconstruction"}
    assert not any("control" in name for name in rows["membership"]["scope"])
    assert any("1,000 secrets, 200 guesses" in one for one in rows["membership"]["quantity"])
    assert "leaky twin and the untrained model" in rows["membership"]["frequency"]
    assert any("caught the leaky twin" in one for one in rows["regurgitation"]["quality"])
    assert rows["inversion"]["not_run"][0].endswith("no such attack is implemented")
    assert not rows["inversion"]["quality"]


def test_the_quality_of_a_test_is_whether_it_catches_the_control(whole_evidence):
    control = whole_evidence["subjects"]["control"]
    control["gating"]["rejected"] = False
    whole_evidence["subjects"]["untrained"]["gating"]["rejected"] = True
    quality = next(row for row in kinds.rows(whole_evidence) if row["kind"] == "membership")
    assert "missed the leaky twin and accused the untrained model" in quality["quality"][0]
    whole_evidence["subjects"]["control"] = None
    quality = next(row for row in kinds.rows(whole_evidence) if row["kind"] == "membership")
    assert "there was no leaky twin" in quality["quality"][0]


def test_without_an_audit_no_kind_was_run():
    for row in kinds.rows({}):
        assert row["status"] == "NOT RUN"
        assert row["not_run"] == ["the evidence lists no such attack"]


@pytest.mark.parametrize(
    ("control", "untrained", "kind"),
    [
        ({"rejected": True}, {"rejected": False}, "good"),
        ({"rejected": True}, None, "good"),
        ({"rejected": True}, {"rejected": True}, "open"),
        ({"rejected": False}, {"rejected": False}, "open"),
        (None, None, "open"),
    ],
)
def test_silence_counts_where_the_same_test_caught_the_control(control, untrained, kind):
    part = {"rejected": False, "correct": 1, "guesses": 2}
    subjects = {"target": {"gating": part}, "control": control and {"gating": control}}
    subjects["untrained"] = untrained and {"gating": untrained}
    cell = _cell(subjects, "gating", "target")
    assert cell["kind"] == kind
