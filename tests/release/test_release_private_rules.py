"""Rules on private figures: they decide, and the statement says whose word it is."""

import json

import pytest

from dpmlm.errors import UserError
from dpmlm.privacy.statement import statement
from dpmlm.release import load_policy
from dpmlm.release.facts import Missing, find
from dpmlm.release.gate import not_covered

PRIVATE = {
    "audit.verbatim.hits.train": "max: 20",
    "audit.gradients.rejected_by": "equals: []",
    "audit.gradients.lower_bound.fdp_one_run": "max: 5",
    "audit.membership.record_level.leaks": "equals: []",
    "audit.identifiers.training.extractable.hits": "max: 90000",
    "audit.survival.groups.1.whole": "max: 90000",
}
"""Metrics of every attack on private figures, and a rule on each that holds."""
NUMBERS = (3.14159265, 31337, 27182)
"""Of the evidence below; no copy for consumers may hold them."""


@pytest.fixture
def asking_privately(facts):
    """A policy with rules on private figures, on facts that have them."""
    from dpmlm.release.policy import parse_policy

    bound, hits, whole = NUMBERS
    facts["audit"] |= {
        "gradients": {
            "label": "private", "applicable": True, "rejected_by": [],
            "lower_bound": {"fdp_one_run": bound},
        },
        "membership": {"label": "private", "record_level": {"leaks": []}},
        "identifiers": {"label": "private", "training": {"extractable": {"hits": hits}}},
        "survival": {
            "label": "private",
            "groups": [{"label": "private", "whole": 0}, {"label": "private", "whole": whole}],
        },
    }  # fmt: skip
    rules = "".join(
        f"  # private\n  - id: mine.{number}\n    title: t\n    why: w\n"
        f"    metric: {metric}\n    {comparison}\n"
        for number, (metric, comparison) in enumerate(PRIVATE.items())
    )
    return parse_policy((load_policy("internal").text + rules).encode(), name="mine")


@pytest.fixture
def said_so(plan, ledger_summary, asking_privately):
    """The statement that names those rules."""
    beyond = not_covered(asking_privately.require)
    return statement(
        plan, what="the weights of the model", summary=ledger_summary, not_covered=beyond
    )


def test_rules_on_private_figures_decide_and_are_noted_as_the_signers(
    tmp_path, write, facts, check, asking_privately, said_so
):
    named = ", ".join(f"mine.{number}" for number in range(len(PRIVATE)))
    assert f"private figures ({named})" in said_so.sentence
    folder = write(tmp_path / "private", facts, policy=asking_privately, statement=said_so)
    found = check(folder)
    assert found.ok, found.findings
    assert found.verdict == "PASS"
    assert sum("private figures" in note for note in found.notes) == len(PRIVATE)
    rules = json.loads((folder / "decision.json").read_text())["rules"][-len(PRIVATE) :]
    assert all((rule["status"], rule["observed"]) == ("pass", None) for rule in rules)
    released = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    assert not [number for number in NUMBERS if str(number).encode() in released]
    facts["audit"]["survival"]["groups"][1]["whole"] = 90001
    folder = write(tmp_path / "failed", facts, policy=asking_privately, statement=said_so)
    assert check(folder).verdict == "FAIL"


def test_a_statement_that_does_not_name_private_rules_is_refused(
    tmp_path, write, facts, asking_privately
):
    with pytest.raises(UserError, match="it leaves out: the verdict, as rules of its policy"):
        write(tmp_path / "silent", facts, policy=asking_privately)


def test_what_is_labelled_private_is_found_by_no_other_path(facts, now):
    facts["audit"]["groups"] = [{"label": "private", "claimed_epsilon": 31337}]
    found = find(facts, "audit.groups.0.claimed_epsilon")
    assert isinstance(found, Missing)
    assert "private" in found.reason
    assert find(facts, "audit.attacks.1.status") == "RUN"
