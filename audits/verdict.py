"""What follows from evidence: PASS, FAIL or INCONCLUSIVE, and why.

FAIL: a test contradicts the claim, the plan's own noise does not give what it claims, or planted
secrets were read out where nothing is claimed. INCONCLUSIVE: none of these, and secrets were read
out as the claim allows, or nothing shows that a leak would have been noticed. PASS: none of these,
and the tests that could be made of this model are those that reject a non-private control.

A claim that is kept is contradicted in a share beta of audits at most, all tests together: beside
Holm's rejections, nothing that chance decides makes FAIL.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from scipy.stats import binom

from audits.subject import TESTS

FEWEST = 100
"""Inserted canaries below which silence says too little: 0 of 100 leaves a rate of 3 %."""
SIGMAS = 4.0
"""Standard deviations of chance that mean exposure may lie above its ceiling."""
TOO_FEW = 1e-6
"""Probability below which few right guesses are no bad luck."""
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
    power = evidence["power"]
    missing = _missing(target, power, evidence.get("declared") or {})
    if missing:
        return Verdict("INCONCLUSIVE", missing)
    shown = [test for test in TESTS if power["tests"][test]["power"]]
    silent = "".join(f"; {test}: its silence says nothing" for test in TESTS if test not in shown)
    reason = f"no test contradicts the claim, and {' and '.join(shown)} caught the control"
    return Verdict("PASS", reason + silent)


def power_of_tests(subjects: Mapping[str, Any]) -> dict[str, Any]:
    """The evidence's `power`, from its `subjects`: which tests would have noticed a leak.

    A test has power where it could be made of the target and rejects the control, and could be
    made of the untrained model and does not reject it: silence of any other says nothing. Power is
    shown where one test has it and none rejects the untrained model.
    """
    target, control, untrained = (subjects.get(who) for who in ("target", "control", "untrained"))
    tests = {test: _power_of(test, target, control, untrained) for test in TESTS}
    accused = untrained["rejected_by"] if untrained else None
    shown = not accused and any(test["power"] for test in tests.values())
    return {
        "control_rejected_by": control["rejected_by"] if control else None,
        "untrained_rejected_by": accused,
        "tests": tests,
        "status": "shown" if shown else "not shown",
    }


def _power_of(test: str, target: Any, control: Any, untrained: Any) -> dict[str, Any]:
    of_target, of_control, of_untrained = (
        (subject or {}).get(test) or {} for subject in (target, control, untrained)
    )
    applicable = of_target.get("p_value") is not None
    caught, accused = of_control.get("rejected"), of_untrained.get("rejected")
    found = {
        "applicable": applicable,
        "control_rejected": caught,
        "untrained_rejected": accused,
        "power": applicable and caught is True and accused is False,
    }
    if "smallest_multiple_detected" in of_target:
        found["smallest_multiple_detected"] = of_target["smallest_multiple_detected"]
    return found


def _broken(target: Mapping[str, Any], claim: Mapping[str, Any]) -> str | None:
    if target["rejected_by"]:
        return f"the claim is contradicted by {', '.join(target['rejected_by'])}"
    claimed, own = float(claim.get("epsilon", "inf")), float(claim.get("recomputed_epsilon", 0))
    if own > SLACK * claimed:
        return f"the plan claims epsilon {claimed:g}, and its own noise gives {own:.4g}"
    if math.isinf(claimed) and _read_out(target):
        return "planted secrets were read out"
    return None


def _read_out(target: Mapping[str, Any]) -> int:
    return int((target.get("canary_extraction") or {}).get("extracted") or 0)


def _missing(
    target: Mapping[str, Any], power: Mapping[str, Any], declared: Mapping[str, Any]
) -> str | None:
    if declared.get("tokens_checked") is False:
        return "the canaries name no vocabulary: nobody can tell whether these tokens were planted"
    silent = [test for test in TESTS if target[test].get("p_value") is None]
    if len(silent) == len(TESTS):
        return f"no claim was tested: {target[silent[0]].get('reason', 'no test applies')}"
    if _read_out(target):
        return f"planted secrets were read out ({_read_out(target)}), no more than the claim allows"
    blind = sorted(set(silent) & set(power["control_rejected_by"] or ()))
    if blind:
        return f"{', '.join(blind)} caught the control and could not be made of this model"
    if power["status"] != "shown":
        return f"power is not shown: {_no_power(power)}"
    inserted = int((target.get("canary_extraction") or {}).get("n", 0))
    if inserted < FEWEST:
        return f"{inserted} canaries were inserted: {FEWEST - inserted} more are needed"
    return next((odd for odd in oddities(target).values() if odd), None)


def oddities(target: Mapping[str, Any]) -> dict[str, str | None]:
    """Figures that refute nothing, and that no sound audit of a sound model has, by their test.

    `target` is a subject of evidence; each value says what is odd, and is None where nothing is.
    """
    return {"exposure": _exposed(target["exposure"]), "gating": _reversed(target["gating"])}


def _exposed(exposure: Mapping[str, Any]) -> str | None:
    mean, ceiling = exposure.get("mean_bits"), exposure.get("ceiling_bits")
    # By chance alone exposure is exponential, 1/ln 2 bits its mean and its deviation.
    if (
        ceiling is not None
        and mean is not None
        and (mean - SIGMAS / (math.log(2) * math.sqrt(exposure["n"])) > ceiling)
    ):
        return f"mean exposure is {mean:.2f} bits, and the claim allows {ceiling:.2f}"
    return None


def _reversed(guesses: Mapping[str, Any]) -> str | None:
    correct, made = guesses.get("correct"), guesses.get("guesses")
    if correct is not None and binom.cdf(correct, made, 0.5) < TOO_FEW:
        return f"{correct} of {made} guesses were right, fewer than coins get: a score is reversed"
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
    return f"the untrained model is rejected too, by {', '.join(untrained)}"
