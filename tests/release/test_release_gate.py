"""The gate: a sound run passes, each rule can fail alone, and nothing missing ever passes."""

import copy
import math

import pytest
from variants import rest_in_full

from audits.recheck import contradictions
from audits.subject import TESTS
from audits.verdict import power_of_tests
from dpmlm.canonical import digest
from dpmlm.errors import UserError
from dpmlm.release import Decision, decide, load_policy, policy_names
from dpmlm.release.facts import complete, find, public_evidence
from dpmlm.release.policy import parse_policy


def _put(facts, path, value):
    *parents, leaf = path.split(".")
    for name in parents:
        facts = facts[name]
    facts[leaf] = value


def _status(decision):
    return {rule.id: rule.status for rule in decision.rules}


def _one_rule(lines, facts, now):
    head = "policy: t/v1\nsummary: t\nrequire:\n  - id: r\n    title: t\n    why: w\n"
    text = head + "".join(f"    {line}\n" for line in lines)
    return decide(parse_policy(text.encode(), name="t"), facts, now=now).rules[0]


def _naive_verdict(statuses):
    for status in statuses:
        if status == "fail":
            return "FAIL"
    for status in statuses:
        if status != "pass":
            return "INCONCLUSIVE"
    return "PASS"


def test_a_sound_run_passes(facts, now):
    decision = decide(load_policy("internal"), facts, now=now)
    assert set(_status(decision).values()) == {"pass"}
    assert decision.verdict == "PASS"
    assert all(rule.explanation and rule.evidence_digest for rule in decision.rules)


def test_the_stricter_policy_fails_the_same_run(facts, now):
    decision = decide(load_policy("partner"), facts, now=now)
    assert {key for key, status in _status(decision).items() if status != "pass"} == {"dp.epsilon"}
    assert decision.verdict == "FAIL"


@pytest.mark.usefixtures("believed")
@pytest.mark.parametrize(
    ("path", "value", "rule", "verdict"),
    [
        ("ledger.epsilon", 1.0, None, "PASS"),
        ("ledger.epsilon", 1.01, "dp.epsilon", "FAIL"),
        ("ledger.delta", 1.1e-6, "dp.delta", "FAIL"),
        ("audit.subjects.target.canary_extraction.n", 299, "audit.canaries", "INCONCLUSIVE"),
        ("audit.power.tests.gating.power", False, "audit.power.gating", "INCONCLUSIVE"),
        ("audit.power.tests.exposure", None, "audit.power.exposure", "INCONCLUSIVE"),
        (
            "audit.power.tests.canary_extraction.power",
            False,
            "audit.power.canary_extraction",
            "INCONCLUSIVE",
        ),
    ],
)
def test_what_is_public_needs_power_of_every_test(facts, now, path, value, rule, verdict):
    facts["ledger"] |= {"epsilon": 1.0, "delta": 1e-6}
    _put(facts, path, value)
    decision = decide(load_policy("public"), facts, now=now)
    assert [key for key, status in _status(decision).items() if status != "pass"] == [rule] * (
        rule is not None
    )
    assert decision.verdict == verdict


@pytest.fixture
def believed(monkeypatch):
    """One fact is looked at alone, whether or not it follows from the others."""
    monkeypatch.setattr("dpmlm.release.facts.contradictions", lambda audit, plan: [])


TARGET = "audit.subjects.target"
_NAMES = ("private", "cryptographic_noise", "whole_texts", "accounted_epsilon")
DERIVED = {f"plan.{name}" for name in _NAMES}
COUNTED = {"audit.odd.exposure": f"{TARGET}.exposure", "audit.odd.gating": f"{TARGET}.gating"}


@pytest.mark.parametrize(
    ("path", "value", "rule", "status"),
    [
        ("ledger.epsilon", 8.01, "dp.epsilon", "fail"),
        ("ledger.epsilon", "inf", "dp.epsilon", "fail"),
        ("ledger.epsilon", math.inf, "dp.epsilon", "fail"),
        ("ledger.epsilon", math.nan, "dp.epsilon", "error"),
        ("ledger.epsilon", "8", "dp.epsilon", "error"),
        ("ledger.epsilon", True, "dp.epsilon", "error"),
        ("ledger.epsilon", None, "dp.epsilon", "fail"),
        ("ledger.delta", 1.1e-5, "dp.delta", "fail"),
        ("ledger.intact", False, "ledger.intact", "fail"),
        ("ledger.intact", 1, "ledger.intact", "fail"),
        ("ledger.committed_steps", 21, "ledger.steps", "fail"),
        ("ledger.charged_steps", 19, "ledger.charged", "fail"),
        ("audit.power.status", "not shown", "audit.power", "inconclusive"),
        ("audit.power.untrained_rejected_by", ["gating"], "audit.untrained", "inconclusive"),
        (f"{TARGET}.gating.rejected", None, "audit.gating", "inconclusive"),
        (f"{TARGET}.canary_extraction.n", 99, "audit.canaries", "inconclusive"),
        (f"{TARGET}.canary_extraction.extracted", 1, "audit.extracted", "inconclusive"),
        (TARGET, None, "audit.gating", "inconclusive"),
        (
            f"{TARGET}.gating",
            {"applicable": False, "reason": "4 copies"},
            "audit.gating",
            "inconclusive",
        ),
    ],
)
@pytest.mark.usefixtures("believed")
def test_each_rule_is_decided_by_its_own_fact(facts, now, path, value, rule, status):
    _put(facts, path, value)
    decision = decide(load_policy("internal"), facts, now=now)
    assert _status(decision)[rule] == status
    assert decision.verdict == _naive_verdict(_status(decision).values())
    assert decision.verdict != "PASS"


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.usefixtures("believed")
def test_a_test_that_rejects_the_target_fails_it(facts, now, test):
    target = facts["audit"]["subjects"]["target"]
    target[test] |= {"p_value": 1e-9, "rejected": True}
    target["rejected_by"] = [test]
    decision = decide(load_policy("internal"), facts, now=now)
    assert _status(decision)[f"audit.{test.removeprefix('canary_')}"] == "fail"


@pytest.mark.usefixtures("believed")
def test_a_test_without_power_is_named_as_silent(facts, now):
    audit = facts["audit"]
    audit["subjects"]["control"]["exposure"] |= {"p_value": 1.0, "rejected": False}
    audit["subjects"]["control"]["rejected_by"] = ["canary_extraction", "gating"]
    audit["power"] = power_of_tests(audit["subjects"])
    decision = decide(load_policy("internal"), facts, now=now)
    assert decision.verdict == "PASS"  # two others have power
    silent = [rule.id for rule in decision.rules if "its silence says nothing" in rule.explanation]
    assert silent == ["audit.exposure"]
    for other in ("gating", "canary_extraction"):
        audit["subjects"]["control"][other] |= {"p_value": 1.0, "rejected": False}
    audit["subjects"]["control"]["rejected_by"] = []
    audit["power"] = power_of_tests(audit["subjects"])
    decision = decide(load_policy("internal"), facts, now=now)
    assert decision.verdict == "INCONCLUSIVE"
    assert _status(decision)["audit.power"] == "inconclusive"
    silent = [rule.id for rule in decision.rules if "its silence says nothing" in rule.explanation]
    assert silent == ["audit.gating", "audit.exposure", "audit.extraction"]


FORGERIES = {
    "no control": lambda audit: audit["subjects"].update(control=None),
    "no untrained model": lambda audit: audit["subjects"].update(untrained=None),
    "control not rejected": lambda audit: audit["subjects"]["control"].update(
        audit["subjects"]["untrained"]
    ),
    "a rejection denied": lambda audit: audit["subjects"]["target"]["exposure"].update(
        p_value=1e-9
    ),
    "power of a test without it": lambda audit: audit["power"]["tests"]["exposure"].update(
        control_rejected=None
    ),
    "other canaries": lambda audit: audit["declared"].update(commitment="sha256:" + "0" * 64),
    "a wider claim": lambda audit: audit["claim"].update(canary_epsilon=99.0),
    "another delta": lambda audit: audit["claim"].update(delta=0.5),
    "fewer right guesses": lambda audit: audit["subjects"]["control"]["gating"].update(correct=150),
    "a bound made small": lambda audit: audit["subjects"]["target"]["lower_bound"].update(
        one_run=0.0, one_run_ceiling=1.0
    ),
}


@pytest.mark.parametrize("forgery", rest_in_full(FORGERIES, list(FORGERIES)[::3]))
def test_evidence_whose_conclusions_do_not_follow_never_passes(facts, now, forgery):
    assert contradictions(facts["audit"], facts["plan"]) == []
    FORGERIES[forgery](facts["audit"])
    assert contradictions(facts["audit"], facts["plan"])
    assert decide(load_policy("internal"), facts, now=now).verdict != "PASS"


@pytest.mark.parametrize("part", ["plan", "ledger", "audit"])
def test_a_missing_part_never_passes(facts, now, part):
    del facts[part]
    assert decide(load_policy("internal"), facts, now=now).verdict != "PASS"


def test_nothing_at_all_never_passes(now):
    assert decide(load_policy("internal"), {}, now=now).verdict == "FAIL"


def test_every_rule_of_the_policy_stops_a_pass_when_its_metric_is_gone(facts, now):
    policy = load_policy("internal")
    for rule in policy.require:
        left = copy.deepcopy(facts)
        if rule.metric in DERIVED:
            left["plan"]["noise_multiplier"] = 5.0  # no longer the plan that hashes to its digest
        else:
            _put(left, COUNTED.get(rule.metric, rule.metric), None)
        decision = decide(policy, left, now=now)
        assert _status(decision)[rule.id] in ("fail", "inconclusive"), rule.id
        assert decision.verdict != "PASS"


def test_derived_facts_of_the_plan_are_computed_not_believed(facts, now):
    facts["plan"] |= {"private": True, "cryptographic_noise": True, "accounted_epsilon": 0.1}
    whole = complete(facts)
    assert whole["plan"]["accounted_epsilon"] == pytest.approx(8, abs=0.05)
    facts["plan"]["epsilon"] = "inf"
    assert "private" not in complete(facts)["plan"]


def test_an_underestimated_epsilon_is_found_by_the_second_accountant(plan, facts, now):
    from dataclasses import replace

    facts["plan"] = replace(plan, noise_multiplier=plan.noise_multiplier * 0.7).to_json()
    decision = decide(load_policy("internal"), facts, now=now)
    assert _status(decision)["dp.accounted"] == "fail"


def test_a_promise_about_single_sequences_fails(plan, facts, now):
    from dataclasses import replace

    from dpmlm.privacy.rules import SEQUENCES

    facts["plan"] = replace(plan, unit="sequence", scope=SEQUENCES).to_json()
    for policy in policy_names():
        status = _status(decide(load_policy(policy), facts, now=now))
        assert status["dp.unit"] == "fail"
        assert status["dp.private"] == "pass"


def test_a_plan_without_privacy_fails(facts, now):
    from dpmlm.privacy.planning import make_plan

    facts["plan"] = make_plan(
        epsilon=math.inf, delta=1e-6, units=100, expected_batch_size=10, steps=20, max_grad_norm=1
    ).to_json()
    facts["ledger"]["epsilon"] = "inf"
    status = _status(decide(load_policy("internal"), facts, now=now))
    assert status["dp.private"] == status["dp.epsilon"] == status["dp.noise_source"] == "fail"


@pytest.mark.usefixtures("believed")
def test_not_applicable_gives_its_reason(facts, now):
    _put(facts, f"{TARGET}.exposure", {"applicable": False, "reason": "4 copies of it"})
    facts["audit"]["power"] = power_of_tests(facts["audit"]["subjects"])
    rules = {rule.id: rule for rule in decide(load_policy("internal"), facts, now=now).rules}
    assert "4 copies of it" in rules["audit.exposure"].explanation


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["metric: ledger.epsilon", "max: 9", "at: {delta: 1.0e-6}"], "pass"),
        (["metric: ledger.epsilon", "max: 9", "at: {delta: 1.0e-9}"], "fail"),
        (["metric: ledger.epsilon", "max: 9", "unit: person"], "pass"),
        (["metric: ledger.epsilon", "max: 9", "unit: document"], "fail"),
        (["metric: ledger.epsilon", "max: 7", "unit: person"], "fail"),
        (["metric: plan.steps", "min: 20"], "pass"),
        (["metric: plan.steps", "min: 21"], "fail"),
        (["metric: plan.steps", "equals: 20.0"], "pass"),
        (["metric: plan.steps", "min_ref: ledger.nothing"], "inconclusive"),
        (["metric: training.seconds", "max: 1"], "inconclusive"),
        (["metric: training.seconds", "max: 1", "on_missing: fail"], "fail"),
        (["metric: plan.unit", "max: 1"], "error"),
    ],
)
def test_comparisons(facts, now, lines, status):
    assert _one_rule(lines, facts, now).status == status


def test_max_ref_takes_the_observed_value_of_another_rule(facts, now):
    text = (
        "policy: t/v1\nsummary: t\nrequire:\n"
        "  - {id: a.b, title: t, why: w, metric: plan.steps, min: 1}\n"
        "  - {id: c, title: t, why: w, metric: plan.units, max_ref: a.b}\n"
    )
    rule = decide(parse_policy(text.encode(), name="t"), facts, now=now).rules[1]
    assert (rule.status, rule.threshold) == ("fail", {"max_ref": "a.b", "value": 20})


def test_no_threshold_comes_from_a_private_rule():
    text = (
        "policy: t/v1\nsummary: t\nrequire:\n"
        "  - {id: a.b, title: t, why: w, metric: audit.verbatim.hits.train, max: 1}\n"
        "  - {id: c, title: t, why: w, metric: plan.units, min_ref: a.b}\n"
    )
    with pytest.raises(UserError, match=r"a\.b is private"):
        parse_policy(text.encode(), name="t")


def test_private_figures_decide_but_are_withheld(facts, now):
    lines = ["metric: audit.verbatim.hits.train", "max: 0"]
    rule = _one_rule(lines, facts, now)
    assert (rule.status, rule.observed, rule.private) == ("fail", 17, True)
    assert rule.evidence_digest is None
    shown = rule.withheld()
    assert shown.observed is None
    assert "17" not in shown.explanation


def test_evidence_for_consumers_has_nothing_private(evidence):
    evidence["subjects"]["target"]["text"] = {"label": "private", "hits": 3}
    shown = public_evidence(evidence)
    assert "verbatim" not in shown
    assert "text" not in shown["subjects"]["target"]
    assert shown["subjects"]["control"] == evidence["subjects"]["control"]
    assert public_evidence(shown) == shown


def test_the_evidence_digest_is_of_the_public_part(facts, now):
    rules = {rule.id: rule for rule in decide(load_policy("internal"), facts, now=now).rules}
    assert rules["audit.gating"].evidence_digest == digest(public_evidence(facts["audit"]))
    assert rules["dp.private"].evidence_digest == digest(facts["plan"])


def test_decision_json_round_trip(facts, now):
    _put(facts, "ledger.epsilon", math.inf)
    decision = decide(load_policy("internal"), facts, now=now)
    digest(decision.to_json())  # plain JSON, infinities spelled
    assert Decision.from_json(decision.to_json()) == decision
    for bad in ({}, {**decision.to_json(), "verdict": "FINE"}, {**decision.to_json(), "more": 1}):
        with pytest.raises(UserError):
            Decision.from_json(bad)


def test_find_walks_plain_paths():
    facts = {"a": {"b": {"c": 0}}}
    assert find(facts, "a.b.c") == 0
    assert "a.b.d" in find(facts, "a.b.d").reason
    assert "a.b.c.d" in find(facts, "a.b.c.d").reason
