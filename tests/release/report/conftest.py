"""Models whose audit found something, or could not be carried out."""

import copy

import pytest

from audits.verdict import power_of_tests


@pytest.fixture
def failing(facts):
    """A model that leaks, audited without an untrained model."""
    audit = facts["audit"]
    audit["subjects"]["target"] = copy.deepcopy(audit["subjects"]["control"])
    audit["subjects"]["untrained"] = None
    audit["power"] = power_of_tests(audit["subjects"])
    return facts


@pytest.fixture
def unscored(facts):
    """A model whose training ran away, as the audit describes it."""
    audit, part = facts["audit"], {"applicable": False, "reason": "a score is not finite"}
    tests = dict.fromkeys(("exposure", "canary_extraction", "lower_bound"), part)
    audit["subjects"]["target"] |= tests | {
        "gating": part | {"canaries": 1000}, "rejected_by": [],
    }  # fmt: skip
    audit["verbatim"] = {"label": "private"} | part
    return facts
