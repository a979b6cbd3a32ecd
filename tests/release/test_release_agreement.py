"""The gate comes to no better a verdict than the auditor's tool on the same evidence."""

import copy
import itertools
import math

import pytest
from settled import settled

from audits.verdict import SIGMAS, power_of_tests, verdict_of
from dpmlm.release import decide, load_policy, policy_names
from dpmlm.release.facts import complete

BETTER = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}


def mean_above(audit, by):
    """Mean exposure `by` bits above where it is odd; the counts above the threshold stay."""
    exposure = audit["subjects"]["target"]["exposure"]
    odd = exposure["ceiling_bits"] + SIGMAS / (math.log(2) * math.sqrt(exposure["n"]))
    exposure["mean_bits"] = exposure["mean_bits_optimistic"] = odd + by


def guessed(audit, correct):
    audit["subjects"]["target"]["gating"]["correct"] = correct


ODDITIES = {
    "mean exposure": (lambda audit: mean_above(audit, 0.01), "audit.mean_exposure"),
    "right guesses": (lambda audit: guessed(audit, 66), "audit.reversed"),
    "tokens": (lambda audit: audit["declared"].update(tokens_checked=False), "audit.tokens"),
}


@pytest.fixture
def affordable(facts, monkeypatch):
    """Facts whose promise every shipped policy accepts, so that the audit alone decides."""
    monkeypatch.setattr("dpmlm.release.facts.contradictions", lambda audit, plan: [])
    facts["ledger"] |= {"epsilon": 1.0, "delta": 1e-6}
    for part in ("documents", "spans"):
        facts.setdefault("scrub", {}).setdefault("recall", {})[part] = 100
    share = {"found": 1000, "of": 1000}
    recall = {"annotation": "blind", "elsewhere": 0, "direct": share, "all": share}
    facts["scrub"]["recall"] |= recall
    return facts


@pytest.mark.parametrize("policy", policy_names())
@pytest.mark.parametrize("oddity", ODDITIES)
def test_what_is_odd_is_inconclusive_under_every_policy(affordable, now, policy, oddity):
    change, rule = ODDITIES[oddity]
    rules = load_policy(policy)
    assert decide(rules, affordable, now=now).verdict == "PASS"
    change(affordable["audit"])
    assert verdict_of(affordable["audit"]).word == "INCONCLUSIVE"
    decision = decide(rules, affordable, now=now)
    assert decision.verdict == "INCONCLUSIVE"
    assert [one.id for one in decision.rules if one.status != "pass"] == [rule]


def test_the_edges_are_the_auditors(affordable, now):
    rules, audit = load_policy("internal"), affordable["audit"]
    for change, odd in (
        (lambda one: mean_above(one, -0.01), "none"),
        (lambda one: guessed(one, 68), "none"),
        (lambda one: guessed(one, 66), "66 of 200 guesses were right"),
    ):
        changed = copy.deepcopy(audit)
        change(changed)
        found = complete({**affordable, "audit": changed})["audit"]["odd"]
        assert any(one.startswith(odd) for one in found.values())
        assert (decide(rules, {**affordable, "audit": changed}, now=now).verdict == "PASS") == (
            verdict_of(changed).word == "PASS"
        )


def test_what_somebody_wrote_into_the_evidence_is_not_believed(affordable, now):
    plain = decide(load_policy("internal"), affordable, now=now)
    guessed(affordable["audit"], 50)
    affordable["audit"]["odd"] = {"exposure": "none", "gating": "none"}
    assert decide(load_policy("internal"), affordable, now=now).verdict == "INCONCLUSIVE"
    guessed(affordable["audit"], 108)
    again = decide(load_policy("internal"), affordable, now=now)
    assert again.to_json() == plain.to_json()  # the digest of the evidence too


COUNTS = {"correct": (108, 0, 60, 66, 67, 150, 200), "extracted": (0, 1, 90), "n": (496, 99)}
REST = {
    "mean": (None, -1.0, 0.01, 5.0),
    "control": (True, False),
    "untrained": (True, False),
    "tokens": (True, False, None),
}


def cases(grid, step):
    """Every `step`-th combination."""
    every = itertools.product(*grid.values())
    return [dict(zip(grid, values)) for values in itertools.islice(every, 0, None, step)]


def with_counts(audit, plan, case):
    """The target's conclusions follow from its counts; the others' are as they were."""
    changed = copy.deepcopy(audit)
    target = changed["subjects"]["target"]
    guessed(changed, case["correct"])
    target["canary_extraction"] |= {"extracted": case["extracted"], "n": case["n"]}
    settled({**changed, "subjects": {"target": target}}, plan)
    return changed


def with_rest(audit, case):
    changed = copy.deepcopy(audit)
    subjects = changed["subjects"]
    if not case["untrained"]:  # the test accuses a model that never saw a secret
        subjects["untrained"] = copy.deepcopy(subjects["control"])
    if not case["control"]:
        subjects["control"] = None
    changed["power"] = power_of_tests(subjects)
    changed["declared"]["tokens_checked"] = case["tokens"]
    if case["tokens"] is None:
        del changed["declared"]["tokens_checked"]
    if case["mean"] is not None:
        mean_above(changed, case["mean"])
    return changed


@pytest.mark.parametrize(
    ("step", "inner"),
    [pytest.param(39, 11, id="some"), pytest.param(1, 5, id="all", marks=pytest.mark.full)],
)
def test_the_gate_is_never_kinder_than_the_auditor(affordable, now, step, inner):
    seen = set()
    policies = [load_policy(name) for name in policy_names()]
    for counts in cases(COUNTS, step):
        counted = with_counts(affordable["audit"], affordable["plan"], counts)
        for rest in cases(REST, inner):
            audit = with_rest(counted, rest)
            theirs = verdict_of(audit)
            for policy in policies:
                ours = decide(policy, {**affordable, "audit": audit}, now=now).verdict
                assert BETTER[ours] <= BETTER[theirs.word], (policy.policy, counts, rest, theirs)
                seen.add((ours, theirs.word))
    same = {(word, word) for word in BETTER}
    assert same <= seen
