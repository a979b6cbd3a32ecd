"""Explanations: of each rule what was found, and what would make it pass does make it pass."""

import copy

import pytest
from variants import rest_in_full

from audits.statistics import clopper_pearson
from dpmlm.errors import UserError
from dpmlm.release import decide, load_policy, policy_names
from dpmlm.release.explanation import explain, least_found
from dpmlm.release.gate import spans_needed
from dpmlm.release.policy import parse_policy

HEAD = "policy: t/v1\nsummary: t\nrequire:\n  - id: r\n    title: t\n    why: w\n"


def _one(lines, facts, now):
    policy = parse_policy((HEAD + "".join(f"    {line}\n" for line in lines)).encode(), name="t")
    (told,) = explain(policy, decide(policy, facts, now=now))
    return told


@pytest.mark.parametrize("name", policy_names())
def test_every_rule_says_what_the_decision_says_and_how_to_pass_if_it_does_not(facts, now, name):
    policy = load_policy(name)
    decision = decide(policy, facts, now=now)
    told = explain(policy, decision)
    assert [one.result for one in told] == list(decision.rules)
    for one, rule in zip(told, policy.require, strict=True):
        shown = one.to_json()
        assert (one.to_pass is None) is (shown["status"] == "pass")
        assert shown["evidence"]["path"] == rule.metric
        assert (one.file is None) is shown["private"] is (shown["evidence"]["digest"] is None)
        for words in (rule.title, rule.why, one.required, rule.metric, shown["explanation"]):
            assert words in one.text()


def test_evidence_files_are_those_of_a_bundle(bundle, facts, now):
    policy = load_policy("internal")
    told = explain(policy, decide(policy, facts, now=now))
    assert {one.file for one in told} == {"plan.json", "ledger.json", "evidence.json"}
    assert all((bundle / one.file).is_file() for one in told)


@pytest.mark.parametrize(
    ("lines", "required", "needed"),
    [
        (["metric: ledger.epsilon", "max: 3"], "at most 3", "ledger.epsilon has to be at most 3."),
        (["metric: plan.units", "min: 9999"], "at least 9999", "has to be at least 9999."),
        (["metric: plan.unit", "equals: document"], "document", "has to be document."),
        (["metric: plan.private", "equals: false"], "no", "plan.private has to be no."),
        (
            ["metric: ledger.epsilon", "max_ref: plan.delta"],
            "at most plan.delta (1e-06)",
            "has to be at most plan.delta (1e-06).",
        ),
        (
            ["metric: ledger.epsilon", "max_ref: plan.nothing"],
            "at most plan.nothing (missing)",
            "has to be at most plan.nothing (missing).",
        ),
        (
            ["metric: plan.nothing", "max: 3"],
            "at most 3",
            "plan.nothing has to be there, and be at most 3.",
        ),
        (
            ["metric: ledger.epsilon", "max: 9", "at: {delta: 1e-7}"],
            "at most 9, at delta 1e-07 or less",
            "has to be at most 9, at delta 1e-07 or less.",
        ),
        (
            ["metric: ledger.epsilon", "max: 9", "unit: document"],
            "at most 9, of a promise about one document",
            "of a promise about one document.",
        ),
    ],
)
def test_what_is_required_and_what_would_pass_in_words(facts, now, lines, required, needed):
    told = _one(lines, facts, now)
    assert told.required == required
    assert needed in told.to_pass


SHARES = [(of, bound) for of in (20, 100, 317) for bound in (0.5, 0.8, 0.95)]


@pytest.mark.parametrize(("of", "bound"), rest_in_full(SHARES, [(20, 0.8), (20, 0.95), (100, 0.5)]))
def test_a_share_names_how_many_would_have_to_be_found(facts, now, bound, of):
    facts = copy.deepcopy(facts) | {"scrub": {"recall": {"all": {"found": 0, "of": of}}}}
    lines = ["metric: scrub.recall.all", f"min_rate: {bound}"]
    told = _one(lines, facts, now)
    enough = [k for k in range(of + 1) if clopper_pearson(k, of)[0] >= bound]
    if of < spans_needed(bound):
        assert not enough
        assert f"at least {spans_needed(bound)}, all of them found." in told.to_pass
        return
    assert least_found(of, bound) == enough[0]
    assert f"{enough[0]} or more of {of}." in told.to_pass
    for found, status in ((enough[0], "pass"), (enough[0] - 1, "inconclusive")):
        facts["scrub"]["recall"]["all"]["found"] = found
        assert _one(lines, facts, now).result.status == status


def test_an_unknown_rule_names_the_nearest_or_all(facts, now):
    policy = load_policy("internal")
    decision = decide(policy, facts, now=now)
    (one,) = explain(policy, decision, "audit.gating")
    assert one.result.id == "audit.gating"
    with pytest.raises(UserError, match=r"did you mean dp\.epsilon"):
        explain(policy, decision, "dp.epsilom")
    with pytest.raises(UserError, match=r"its rules: dp\.private, "):
        explain(policy, decision, "7")
