"""Recall as a rule: decided by its interval, never passed on too little, private throughout."""

import math

import pytest

from dpmlm.errors import UserError
from dpmlm.release import decide, load_policy, render_report
from dpmlm.release.gate import not_covered, spans_needed
from dpmlm.release.policy import parse_policy
from dpmlm.release.report.words import shown

RULE = """policy: t/v1
summary: t
require:
  - {id: r, title: t, why: w, metric: scrub.recall.direct, min_rate: BOUND}
"""


def share(found, of):
    return {"found": found, "of": of, "rate": found / of}


@pytest.fixture
def sound():
    """What a run with a good scrubber and enough marks measures."""
    return {
        "policy": "default",
        "policy_digest": "sha256:" + "d" * 64,
        "documents": 83,
        "annotation": "blind",
        "elsewhere": 0,
        "all": share(1171, 1300) | {"low": 0.8832, "high": 0.9165},
        "direct": share(297, 300) | {"low": 0.971, "high": 0.9979},
        "quasi": share(874, 1000) | {"low": 0.8519, "high": 0.8939},
        "by_type": {"PERSON": share(297, 300) | {"low": 0.971, "high": 0.9979}},
        "precision": {"right": 12011, "characters": 14093, "rate": 12011 / 14093},
    }


def _at_least(hits, total, p):
    return sum(math.comb(total, k) * p**k * (1 - p) ** (total - k) for k in range(hits, total + 1))


def _naive_status(found, of, bound):
    """By the definition: a tail of 2.5 % on the side that the bound lies on."""
    if found and _at_least(found, of, bound) <= 0.025:
        return "pass"
    return "fail" if found < of and 1 - _at_least(found + 1, of, bound) < 0.025 else "inconclusive"


def _decide(recall, now, bound=0.9):
    rule = parse_policy(RULE.replace("BOUND", str(bound)).encode(), name="t")
    facts = {"scrub": {"recall": recall}}
    decision = decide(rule, facts, now=now)
    return decision.verdict, decision.rules[0]


@pytest.mark.parametrize("bound", [0.5, 0.8, 0.9, 0.95])
def test_the_interval_decides_as_its_definition_says(now, bound):
    for of in (1, 20, 35, 36, 80, 300):
        for found in sorted({0, of // 2, round(0.8 * of), round(0.93 * of), of - 1, of}):
            _, rule = _decide({"direct": share(found, of)}, now, bound)
            assert rule.status == _naive_status(found, of, bound), (found, of, bound)


@pytest.mark.parametrize(
    ("found", "of", "verdict", "says"),
    [
        (297, 300, "PASS", "Found 297 of 300, 95 % interval 0.9711 to 0.9979"),
        (200, 300, "FAIL", "required is at least 0.9"),
        (276, 300, "INCONCLUSIVE", "more of them would narrow it"),
        (35, 35, "INCONCLUSIVE", "with fewer than 36 even all of them found would not show it"),
        (36, 36, "PASS", "Found 36 of 36"),
        (35, 36, "INCONCLUSIVE", "more of them would narrow it"),
        (0, 1, "INCONCLUSIVE", "with fewer than 36"),
    ],
)
def test_each_verdict_explains_itself(now, found, of, verdict, says):
    decided, rule = _decide({"direct": share(found, of)}, now)
    assert decided == verdict
    assert says in rule.explanation


def test_the_counts_are_believed_and_a_written_interval_is_not(now):
    verdict, _ = _decide({"direct": share(2, 3) | {"low": 0.99, "high": 1.0}}, now)
    assert verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("bound", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_the_spans_needed_are_the_first_that_can_pass(bound):
    first = next(n for n in range(1, 2000) if bound**n <= 0.025)
    assert spans_needed(bound) == first


@pytest.mark.parametrize(
    ("recall", "says"),
    [
        ({"direct": None}, "scrub.recall.direct was not measured"),
        ({"applicable": False, "reason": "the run file names no scrub.gold"}, "no scrub.gold"),
        ({}, "there is no scrub.recall.direct"),
    ],
)
def test_what_was_not_measured_is_inconclusive(now, recall, says):
    verdict, rule = _decide(recall, now)
    assert (verdict, rule.status) == ("INCONCLUSIVE", "inconclusive")
    assert says in rule.explanation


@pytest.mark.parametrize(
    "odd",
    [0.99, {"found": 1}, {"found": 3, "of": 2}, {"found": 0, "of": 0}, {"found": 1.0, "of": 1}],
)
def test_what_is_no_share_is_an_error_and_no_pass(now, odd):
    verdict, rule = _decide({"direct": odd}, now)
    assert (verdict, rule.status) == ("INCONCLUSIVE", "error")


@pytest.mark.parametrize("bound", ["1", "0", "-0.5", "yes"])
def test_a_bound_that_no_interval_can_reach_is_refused(bound):
    with pytest.raises(UserError, match="min_rate"):
        parse_policy(RULE.replace("BOUND", bound).encode(), name="t")


def test_the_shipped_policy_passes_a_sound_run(facts, sound, now):
    decision = decide(load_policy("internal-recall"), facts | {"scrub": {"recall": sound}}, now=now)
    assert {rule.id: rule.status for rule in decision.rules if rule.status != "pass"} == {}
    assert decision.verdict == "PASS"


@pytest.mark.parametrize(
    ("change", "rule", "status"),
    [
        ({"annotation": "prefilled"}, "scrub.recall.blind", "inconclusive"),
        pytest.param(
            {"annotation": "unsaid"}, "scrub.recall.blind", "inconclusive", marks=pytest.mark.full
        ),
        ({"elsewhere": 1}, "scrub.recall.elsewhere", "inconclusive"),
        ({"documents": 49}, "scrub.recall.documents", "inconclusive"),
        ({"direct": share(99, 99)}, "scrub.recall.spans", "inconclusive"),
        pytest.param(
            {"direct": share(290, 300)},
            "scrub.recall.direct",
            "inconclusive",
            marks=pytest.mark.full,
        ),
        ({"direct": share(250, 300)}, "scrub.recall.direct", "fail"),
        ({"direct": None}, "scrub.recall.direct", "inconclusive"),
        pytest.param(
            {"all": share(1040, 1300)}, "scrub.recall.all", "inconclusive", marks=pytest.mark.full
        ),
        ({"all": share(900, 1300)}, "scrub.recall.all", "fail"),
    ],
)
def test_each_rule_is_decided_by_its_own_figure(facts, sound, now, change, rule, status):
    facts = facts | {"scrub": {"recall": sound | change}}
    decision = decide(load_policy("internal-recall"), facts, now=now)
    odd = {result.id: result.status for result in decision.rules if result.status != "pass"}
    assert odd.pop(rule) == status
    assert set(odd) <= {"scrub.recall.spans"}  # without any span, too few were marked as well
    assert decision.verdict == ("FAIL" if status == "fail" else "INCONCLUSIVE")


def test_a_run_without_gold_is_inconclusive_under_it(facts, now):
    decision = decide(load_policy("internal-recall"), facts, now=now)
    assert decision.verdict == "INCONCLUSIVE"
    assert {rule.id for rule in decision.rules if rule.private} == {
        rule.id for rule in decision.of("inconclusive")
    }


def test_its_verdict_is_said_not_to_be_covered():
    (said,) = not_covered(load_policy("internal-recall").require)
    assert said.startswith("the verdict, as rules of its policy look at private figures (")
    assert "scrub.recall.blind, scrub.recall.elsewhere," in said
    assert not_covered(load_policy("internal").require) == []


@pytest.fixture
def page(facts, sound, report_data, now):
    """The page of a run with these figures of recall, in either copy."""

    def build(*, private, **change):
        figures = sound | change
        facts["scrub"] = {"recall": figures}
        decision = decide(load_policy("internal-recall"), facts, now=now)
        data = report_data(decision=decision)
        return render_report(
            type(data)(**{**data.__dict__, "private": _with(data.private, figures)}),
            private=private,
        )

    return build


def _with(figures, recall):
    return type(figures)(**{**figures.__dict__, "recall": recall})


def test_the_auditors_page_says_recall_in_plain_words(page):
    html = page(private=True)
    assert "People read 83 documents" in html
    assert "takes out 1,171 from the first letter to the last: <b>90.1\u00a0%</b>" in html
    assert "marked without seeing what the software finds" in html
    assert "what points to one person by itself" in html
    assert "97.1\u00a0% to 99.8\u00a0%" in html
    assert "297 of 300" in html  # the rule's own row
    assert "not from this corpus" not in html
    assert "recall" not in html.partition("How much of it was found")[2].partition("<table")[0]


def test_the_page_says_what_weakens_the_figures(page):
    html = page(private=True, annotation="prefilled", elsewhere=2)
    assert "shown what the software had found" in html
    assert "2 of the documents are not from this corpus" in html
    assert "Nothing says whether" in page(private=True, annotation="unsaid")


def test_the_public_page_has_no_figure_of_recall(page):
    html = page(private=False)
    auditors = page(private=True)
    for trace in ("1,171", "297 of 300", "97.1 %", "How much of it was found", "83 documents"):
        assert trace in auditors
        assert trace not in html, trace
    assert "Decided on private figures" in html


def test_the_page_says_that_nobody_measured(report_data):
    data = report_data()
    html = render_report(data, private=True)
    assert "Nobody has measured it" in html
    reason = {"applicable": False, "reason": "the run file names no scrub.gold"}
    told = type(data)(**{**data.__dict__, "private": _with(data.private, reason)})
    assert "measured it: the run file names no scrub.gold." in render_report(told, private=True)


def test_a_share_is_spelled_by_its_counts():
    assert shown(share(1171, 1300)) == "1,171 of 1,300"
