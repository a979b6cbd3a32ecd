"""The gate: a policy and the facts of a run give PASS, FAIL or INCONCLUSIVE, each rule explained.

Any rule that fails makes FAIL. Otherwise any rule that could not be decided makes INCONCLUSIVE.
Only a run for which every rule passes gets PASS: what is missing never passes, and a share that
was measured on a few passes only where its interval leaves no doubt.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from audits.statistics import clopper_pearson
from dpmlm.canonical import digest
from dpmlm.errors import UserError
from dpmlm.release.facts import Missing, complete, find, given, is_private, number, public
from dpmlm.release.policy import ReleasePolicy, Rule

SCHEMA = "dpmlm.decision/1"
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Status = Literal["pass", "fail", "inconclusive", "error"]


@dataclass(frozen=True)
class RuleResult:
    """What became of one rule."""

    id: str
    """The rule's id in the policy."""
    title: str
    """The question it answers."""
    metric: str
    """Where the observed value stands in the facts."""
    status: Status
    """pass, fail, inconclusive (missing, or not holding where the policy says so), error."""
    observed: Any
    """The value found (JSON); None if missing, or withheld as private."""
    threshold: dict[str, Any]
    """The comparison and its bound, such as {"max": 8.0}; references come with their value."""
    explanation: str
    """One sentence: what was found and what was required."""
    why: str
    """What goes wrong where the rule does not hold."""
    evidence_digest: str | None
    """Digest of the public part of the facts that the value was read from; None if private."""
    private: bool = False
    """Whether the value is computed from private text; consumers do not see it."""

    def withheld(self) -> "RuleResult":
        """The same result without its value and sentence, if these are private."""
        if not self.private:
            return self
        return RuleResult(
            **{
                **self.__dict__,
                "observed": None,
                "explanation": "Decided on private figures; the auditor's copy shows them.",
            }
        )


@dataclass(frozen=True)
class Decision:
    """The verdict on one run under one policy."""

    verdict: Verdict
    """PASS, FAIL or INCONCLUSIVE."""
    rules: tuple[RuleResult, ...]
    """One result a rule, in the policy's order."""
    policy: str
    """Name and version of the policy."""
    policy_digest: str
    """Digest of the policy file."""
    summary: str
    """Whom the policy lets open a model that passes."""
    decided: str
    """When, ISO 8601 in UTC."""

    def of(self, *statuses: Status) -> tuple[RuleResult, ...]:
        """The rules with one of these statuses."""
        return tuple(rule for rule in self.rules if rule.status in statuses)

    def public(self) -> "Decision":
        """The decision without values computed from private text."""
        rules = tuple(rule.withheld() for rule in self.rules)
        return Decision(**{**self.__dict__, "rules": rules})

    def to_json(self) -> dict[str, Any]:
        """JSON object."""
        rules = [dict(rule.__dict__) for rule in self.rules]
        return {"schema": SCHEMA, **self.__dict__, "rules": rules}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Decision":
        """Inverse of `to_json`. Raises UserError for anything else."""
        try:
            if data["schema"] != SCHEMA or data["verdict"] not in ("PASS", "FAIL", "INCONCLUSIVE"):
                raise ValueError("another schema")
            rules = tuple(RuleResult(**rule) for rule in data["rules"])
            fields = {key: value for key, value in data.items() if key != "schema"}
            return cls(**{**fields, "rules": rules})
        except (KeyError, TypeError, ValueError):
            raise UserError(
                "decision", f"it does not have the fields of {SCHEMA}", "run `dpmlm gate` again"
            ) from None


def decide(policy: ReleasePolicy, facts: Mapping[str, Any], *, now: datetime) -> Decision:
    """Apply every rule of `policy` to `facts`; `now` (with a time zone) dates the decision.

    `facts` has the parts plan (`PrivacyPlan.to_json()`), ledger (`Ledger.summary`), audit
    (evidence) and, where there are any, training and scrub.
    """
    whole = complete(facts)
    results: dict[str, RuleResult] = {}
    for rule in policy.require:
        results[rule.id] = _apply(rule, whole, policy)
    rules = tuple(results.values())
    return Decision(
        verdict=verdict_of(rules),
        rules=rules,
        policy=policy.policy,
        policy_digest=policy.digest,
        summary=policy.summary,
        decided=now.astimezone(UTC).isoformat(timespec="seconds"),
    )


def verdict_of(rules: tuple[RuleResult, ...]) -> Verdict:
    """The verdict that rule results amount to; no rules at all decide nothing."""
    statuses = {rule.status for rule in rules}
    if "fail" in statuses:
        return "FAIL"
    return "PASS" if statuses == {"pass"} else "INCONCLUSIVE"


def _apply(rule: Rule, facts: Mapping[str, Any], policy: ReleasePolicy) -> RuleResult:
    observed = find(facts, rule.metric)
    threshold, bound = _bound(rule, facts, policy)
    side = _side_condition(rule, facts)
    status: Status
    if isinstance(observed, Missing) or isinstance(bound, Missing) or isinstance(side, Missing):
        missing = next(item for item in (observed, bound, side) if isinstance(item, Missing))
        status, sentence = rule.on_missing, f"Missing: {missing.reason}."
    else:
        compare = _compare_share if rule.comparison == "min_rate" else _compare
        status, sentence = compare(rule, observed, bound)
        if status == "pass" and side is not None:
            status, sentence = "fail", side
        if status == "fail":
            status = rule.on_fail
    part = rule.metric.split(".")[0]
    private = is_private(rule.metric)
    shown = None if private else public(given(facts.get(part), part), part)
    return RuleResult(
        id=rule.id,
        title=rule.title,
        metric=rule.metric,
        status=status,
        observed=None if isinstance(observed, Missing) else observed,
        threshold=threshold,
        explanation=sentence,
        why=rule.why,
        evidence_digest=None if shown is None else digest(shown),
        private=private,
    )


def _bound(
    rule: Rule, facts: Mapping[str, Any], policy: ReleasePolicy
) -> tuple[dict[str, Any], Any]:
    """The threshold as it is recorded, and the value to compare with."""
    name = rule.comparison
    given = getattr(rule, name)
    if not name.endswith("_ref"):
        return {name: given}, given
    path = next((other.metric for other in policy.require if other.id == given), given)
    value = find(facts, path)
    return {name: given, "value": None if isinstance(value, Missing) else value}, value


def _side_condition(rule: Rule, facts: Mapping[str, Any]) -> str | Missing | None:
    """None if `at` and `unit` hold, a sentence if not, Missing if they cannot be told."""
    if rule.unit is not None:
        unit = find(facts, "plan.unit")
        if isinstance(unit, Missing):
            return unit
        if unit != rule.unit:
            return f"The promise is about one {unit}, the rule about one {rule.unit}."
    if rule.at is not None:
        delta = find(facts, "plan.delta")
        if isinstance(delta, Missing):
            return delta
        value = number(delta)
        if value is None or not value <= rule.at.delta:
            return f"The promise has delta {delta}, the rule reads it at {rule.at.delta:g}."
    return None


def _compare(rule: Rule, observed: Any, bound: Any) -> tuple[Status, str]:
    """pass, fail, or error where these values cannot be compared; and a sentence."""
    name = rule.comparison
    if name == "equals":
        # bool is an int in Python, and 1 is not an answer to a yes-or-no question.
        same = isinstance(observed, bool) is isinstance(bound, bool) and observed == bound
        verb = "as required" if same else f"required is {_words(bound)}"
        return _status(same), f"Found {_words(observed)}, {verb}."
    value, limit = number(observed), number(bound)
    if value is None or limit is None:
        odd = observed if value is None else bound
        return "error", f"Found {_words(odd)}, which is not a number that can be compared."
    most = name.startswith("max")
    holds = value <= limit if most else value >= limit
    return _status(holds), (
        f"Found {_words(observed)}, required is {'at most' if most else 'at least'} "
        f"{_words(bound)}."
    )


def _status(holds: bool) -> Status:
    return "pass" if holds else "fail"


def _compare_share(rule: Rule, observed: Any, bound: float) -> tuple[Status, str]:
    """A share against its least value: pass or fail where the 95 % interval leaves no doubt.

    The interval is computed here, from the counts.
    """
    counts = share_of(observed)
    if counts is None:
        return "error", "Found no share with the counts `found` and `of`."
    found, of = counts
    low, high = clopper_pearson(found, of)
    told = (
        f"Found {found} of {of}, 95 % interval {low:.4f} to {high:.4f}; required is at least "
        f"{_words(bound)}"
    )
    if low >= bound:
        return "pass", f"{told}."
    if high < bound:
        return "fail", f"{told}."
    least = spans_needed(bound)
    if of < least:
        more = f"with fewer than {least} even all of them found would not show it"
    else:
        more = "the interval leaves both open, and more of them would narrow it"
    return "inconclusive", f"{told}: {more}."


def share_of(observed: Any) -> tuple[int, int] | None:
    """The counts of a share that was measured; None if it is none."""
    if not isinstance(observed, Mapping):
        return None
    found, of = observed.get("found"), observed.get("of")
    if type(found) is not int or type(of) is not int or not 0 <= found <= of or of == 0:
        return None
    return found, of


def spans_needed(bound: float) -> int:
    """Least trials of which all have to succeed before the 95 % interval begins at `bound`.

    Of n out of n Clopper and Pearson's interval begins at 0.025^(1/n).
    """
    return math.ceil(math.log(0.025) / math.log(bound))


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_words(item) for item in value) or "nothing"
    return {"inf": "infinity"}.get(value, value) if isinstance(value, str) else str(value)
