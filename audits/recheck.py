"""Whether the conclusions of evidence follow from its own figures.

Whoever signs evidence could write a conclusion that its figures do not carry. A reader draws them
again: p-values and bounds from the counts (`figures.py`), what each test rejects (Holm over the
p-values), which tests had power, and that the canaries are those that the plan committed to.
"""

from collections.abc import Mapping
from typing import Any

from audits.figures import mistaken
from audits.statistics import holm
from audits.subject import TESTS
from audits.verdict import power_of_tests
from dpmlm.artifacts import UserError


def contradictions(evidence: Mapping[str, Any], plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Places in the evidence, as dotted paths, with what is wrong there; empty if all follows."""
    try:
        return [
            *_other_terms(evidence, plan),
            *(
                found
                for name, subject in evidence["subjects"].items()
                if subject is not None
                for found in _misjudged(f"subjects.{name}", subject, evidence["declared"]["beta"])
            ),
            *_power(evidence["subjects"], evidence["power"]),
            *mistaken(evidence, plan),
        ]
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, UserError):
        return [("evidence", "it does not have the form of evidence")]


def _other_terms(evidence: Mapping[str, Any], plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    claim, declared = evidence["claim"], evidence["declared"]
    found = []
    committed = (plan.get("bindings") or {}).get("canary_commitment")
    if committed is not None and declared["commitment"] != committed:
        found.append(("declared.commitment", "the plan was made for other canaries"))
    if committed is not None and declared.get("pre_registered") is False:
        found.append(("declared.pre_registered", "the plan binds the canaries"))
    if claim["delta"] != plan["delta"]:
        found.append(("claim.delta", "it is not the plan's"))
    if declared["copies"] == 1 and claim["canary_epsilon"] != claim["epsilon"]:
        found.append(("claim.canary_epsilon", "one copy is covered by the plan's epsilon itself"))
    return found


def _misjudged(path: str, subject: Mapping[str, Any], beta: float) -> list[tuple[str, str]]:
    p_values = {test: subject[test].get("p_value") for test in TESTS}
    known = {test: 1.0 if value is None else value for test, value in p_values.items()}
    rejected = holm(known, beta)
    found = []
    if sorted(subject["rejected_by"]) != sorted(rejected):
        found.append((f"{path}.rejected_by", "it does not follow from the p-values"))
    for test, value in p_values.items():
        expected = None if value is None else test in rejected
        if subject[test].get("rejected") != expected:
            found.append((f"{path}.{test}.rejected", "it does not follow from the p-values"))
    return found


def _power(subjects: Mapping[str, Any], power: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is said of power must follow from what was rejected."""
    expected = power_of_tests(subjects)
    return [
        (
            f"power.{key}",
            "it does not follow from what was rejected",
        )
        for key, value in expected.items()
        if power.get(key) != value
    ]
