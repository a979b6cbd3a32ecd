"""Facts: what the gate looks at, how a dotted path finds one, and which are private.

Facts are one JSON object with the parts `plan`, `ledger`, `audit`, `training` and `scrub`. Numbers
that JSON cannot spell are the strings "inf", "-inf" and "nan".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audits.recheck import contradictions
from audits.verdict import oddities
from dpmlm.errors import UserError
from dpmlm.privacy.accountants import AccountantFailure, epsilon_of
from dpmlm.privacy.noise import NOISE_SOURCES
from dpmlm.privacy.plan import PrivacyPlan

PRIVATE_PATHS = (
    "audit.verbatim",
    "audit.membership",
    "audit.identifiers",
    "audit.gradients",
    "audit.survival",
    "audit.seconds",
    "scrub",
    "dedup",
    "corpus",
    "evaluation",
)
"""Parts computed from private text: for the auditor, never in a bundle."""

_DERIVED = {
    "plan": ("private", "cryptographic_noise", "whole_texts", "accounted_epsilon"),
    "audit": ("odd",),
}
_NOTHING = "none"


@dataclass(frozen=True)
class Missing:
    """A path that leads nowhere, and why."""

    reason: str
    """In plain words."""


def is_private(metric: str) -> bool:
    """Whether a dotted path leads into a private part of the facts."""
    return any(metric == part or metric.startswith(part + ".") for part in PRIVATE_PATHS)


def find(facts: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or Missing; null and parts marked not applicable are missing.

    A whole number picks one of a list, from 0. What is labelled private is found by paths that
    `is_private` knows alone: through any other it would be shown to consumers.
    """
    value: Any = facts
    walked: list[str] = []
    for name in path.split("."):
        if isinstance(value, Mapping) and value.get("applicable") is False:
            reason = value.get("reason") or "no reason given"
            return Missing(f"{'.'.join(walked)} does not apply: {reason}")
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, Mapping) and name in value:
            value = value[name]
        else:
            return Missing(f"there is no {'.'.join([*walked, name])} in the evidence")
        walked.append(name)
        if _labelled_private(value) and not is_private(path):
            return Missing(f"{'.'.join(walked)} is private, and no rule may look there")
    if value is None:
        return Missing(f"{path} was not measured")
    return value


def number(value: Any) -> float | None:
    """A fact as a number ("inf" and "-inf" are numbers); None if it is none, or not a number."""
    if isinstance(value, str) and value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def spelled(value: Any) -> Any:
    """`value` as plain JSON; floats that JSON cannot spell become "inf", "-inf" and "nan"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(item) for item in value]
    return value


def complete(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts, spelled, with what follows from the plan computed here rather than believed.

    Adds `plan.private`, `plan.cryptographic_noise`, `plan.whole_texts` (whether the unit is a
    document or a person, not a part of one) and `plan.accounted_epsilon` (from noise, sampling rate
    and steps, by PLD, or by RDP where the noise is discrete). A plan that is not sound in itself
    gets none of them, so that rules that need them find them missing. Evidence gets `audit.odd`:
    of each test that can have figures that no sound audit has, what is odd about them, or "none".
    """
    whole = {str(part): spelled(value) for part, value in facts.items()}
    plan = whole.get("plan")
    if isinstance(plan, dict):
        as_given = given(plan, "plan")
        whole["plan"] = {**as_given, **_derived(as_given)}
        if whole.get("audit") and contradictions(whole["audit"], as_given):
            # Conclusions that do not follow from their own figures are no evidence.
            whole["audit"] = {"applicable": False, "reason": "it contradicts itself or the plan"}
    if isinstance(whole.get("audit"), dict):
        as_given = given(whole["audit"], "audit")
        whole["audit"] = {**as_given, **_odd(as_given)}
    return whole


def _odd(evidence: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = oddities(evidence["subjects"]["target"])
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError):
        return {}
    return {"odd": {test: odd or _NOTHING for test, odd in found.items()}}


def given(part: Any, name: str) -> Any:
    """A part of completed facts without what `complete` added to it."""
    if name not in _DERIVED or not isinstance(part, Mapping):
        return part
    return {key: value for key, value in part.items() if key not in _DERIVED[name]}


def public(part: Any, path: str) -> Any:
    """The part of the facts at `path` without what is private or labelled so; None if all is."""
    if is_private(path) or _labelled_private(part):
        return None
    if isinstance(part, list):
        return [public(one, path) for one in part if not _labelled_private(one)]
    if not isinstance(part, Mapping):
        return part
    kept = {}
    for key, value in part.items():
        shown = public(value, f"{path}.{key}")
        if shown is not None or value is None:
            kept[str(key)] = shown
    return kept


def _labelled_private(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("label") == "private"


def public_evidence(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Evidence for consumers: without verbatim extraction and all else labelled private."""
    shown: dict[str, Any] = public(spelled(evidence), "audit")
    return shown


def _derived(fields: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plan = PrivacyPlan.from_json(fields)
        second = plan.second_accountant
        accounted = epsilon_of(second, plan.composition(), plan.delta) if plan.private else math.inf
    except (UserError, AccountantFailure, TypeError, KeyError, ValueError):
        return {}
    return {
        "private": plan.private,
        "cryptographic_noise": plan.noise_source in NOISE_SOURCES.values(),
        "whole_texts": plan.unit != "sequence",
        "accounted_epsilon": spelled(accounted),
    }
