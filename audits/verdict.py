"""What follows from evidence: PASS, FAIL or INCONCLUSIVE, and why.

FAIL: a test contradicts the claim, a planted secret was read out, a lower bound lies above the
claim, or the plan's own noise does not give what it claims. INCONCLUSIVE: none of these, and
nothing shows that a leak would have been noticed. PASS: none of these, and the tests that could be
made of this model are those that reject a non-private control.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from audits.subject import TESTS

FEWEST = 100
"""Inserted canaries below which silence says too little: 0 of 100 leaves a rate of 3 %."""
SLACK = 1.02
"""What the claim recomputed may exceed the claim by: discretisation errs upward."""

Word = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class Verdict(NamedTuple):
    """A word, and the first reason for it."""

    word: Word
    reason: str


def verdict_of(evidence: Mapping[str, Any]) -> Verdict:
    """The verdict on the target, from the evidence's own figures."""
    target, claim = evidence["subjects"]["target"], evidence.get("claim") or {}
    broken = _broken(target, claim)
    if broken:
        return Verdict("FAIL", broken)
    missing = _missing(target, evidence["power"])
    if missing:
        return Verdict("INCONCLUSIVE", missing)
    return Verdict("PASS", "no test contradicts the claim, and the same tests catch the control")


def _broken(target: Mapping[str, Any], claim: Mapping[str, Any]) -> str | None:
    if target["rejected_by"]:
        return f"the claim is contradicted by {', '.join(target['rejected_by'])}"
    if (target.get("canary_extraction") or {}).get("extracted"):
        return "planted secrets were read out"
    if (target.get("lower_bound") or {}).get("exceeds_claim"):
        return "the lower bound on epsilon lies above the claim"
    claimed, own = float(claim.get("epsilon", "inf")), float(claim.get("recomputed_epsilon", 0))
    if own > SLACK * claimed:
        return f"the plan claims epsilon {claimed:g}, and its own noise gives {own:.4g}"
    return None


def _missing(target: Mapping[str, Any], power: Mapping[str, Any]) -> str | None:
    silent = [test for test in TESTS if target[test].get("p_value") is None]
    if len(silent) == len(TESTS):
        return f"no claim was tested: {target[silent[0]].get('reason', 'no test applies')}"
    if power["status"] != "shown":
        return f"power is not shown: {_no_power(power)}"
    blind = sorted(set(silent) & set(power["control_rejected_by"]))
    if blind:
        return f"{', '.join(blind)} caught the control and could not be made of this model"
    inserted = int((target.get("canary_extraction") or {}).get("n", 0))
    if inserted < FEWEST:
        return f"{inserted} canaries were inserted: {FEWEST - inserted} more are needed"
    return None


def _no_power(power: Mapping[str, Any]) -> str:
    """Why silence of the tests means nothing."""
    control, untrained = power["control_rejected_by"], power["untrained_rejected_by"]
    if control is None:
        return "no --control was given"
    if not control:
        return "no test catches the control"
    if untrained is None:
        return "no --untrained model was given, so a test that is broken is not excluded"
    if not untrained:
        return "the untrained model could not be scored"
    return f"{', '.join(untrained)} reject the untrained model too"
