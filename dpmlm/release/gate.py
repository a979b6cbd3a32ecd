"""The gate: a policy and the facts of a run give PASS, FAIL or INCONCLUSIVE, each rule explained.

Any rule that fails makes FAIL. Otherwise any rule that could not be decided makes INCONCLUSIVE.
Only a run for which every rule passes, or does not hold and was waived for this model, gets PASS:
what is missing never passes and cannot be waived, and a share that was measured on a few passes
only where its interval leaves no doubt.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from audits.statistics import clopper_pearson
from dpmlm.canonical import digest
from dpmlm.errors import UserError
from dpmlm.release.facts import Missing, complete, find, given, is_private, number, public
from dpmlm.release.policy import ReleasePolicy, Rule
from dpmlm.release.waivers import Waiver

SCHEMA = "dpmlm.decision/1"
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Status = Literal["pass", "fail", "inconclusive", "error", "waived"]
_TEXTS = ("policy", "policy_digest", "summary", "decided")


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
    """pass, fail, inconclusive (missing, or not holding where the policy says so), error,
    waived (does not hold, and an approver excused it for this model)."""
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
    waiver: str | None = None
    """Who excused it, until when and why; None unless it is waived."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RuleResult":
        """A result as a decision's file has it. Raises TypeError or ValueError for another form."""
        found = cls(**data)
        texts = (found.id, found.title, found.metric, found.explanation, found.why)
        perhaps = (found.evidence_digest, found.waiver)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("not text")
        if not all(text is None or isinstance(text, str) for text in perhaps):
            raise TypeError("not text")
        if not isinstance(found.threshold, dict) or not isinstance(found.private, bool):
            raise TypeError("another form")
        if found.status not in get_args(Status):
            raise ValueError("no status")
        return found

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
    waivers: tuple[Mapping[str, Any], ...] = ()
    """The envelopes of the waivers, one for each rule that is waived."""

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
        waivers = [dict(waiver) for waiver in self.waivers]
        return {"schema": SCHEMA, **self.__dict__, "rules": rules, "waivers": waivers}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Decision":
        """Inverse of `to_json`. Raises UserError for anything else."""
        try:
            if data["schema"] != SCHEMA or data["verdict"] not in ("PASS", "FAIL", "INCONCLUSIVE"):
                raise ValueError("another schema")
            rules = tuple(RuleResult.from_json(rule) for rule in data["rules"])
            if not all(isinstance(data[name], str) for name in _TEXTS):
                raise TypeError("not text")
            fields = {key: value for key, value in data.items() if key != "schema"}
            waivers = tuple(dict(waiver) for waiver in fields.get("waivers", ()))
            return cls(**{**fields, "rules": rules, "waivers": waivers})
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(
                "decision", f"it does not have the fields of {SCHEMA}", "run `dpmlm gate` again"
            ) from None


def decide(
    policy: ReleasePolicy,
    facts: Mapping[str, Any],
    *,
    now: datetime,
    waivers: Sequence[Waiver] = (),
) -> Decision:
    """Apply every rule of `policy` to `facts`; `now` (with a time zone) dates the decision.

    `facts` has the parts plan (`PrivacyPlan.to_json()`), ledger (`Ledger.summary`), audit
    (evidence) and, where there are any, training and scrub. Signatures of `waivers` are checked by
    the caller. Raises UserError for a waiver that is about another policy or model, not in force,
    or of a rule that is not there, or that is not found to be broken.
    """
    whole = complete(facts)
    excused = _fitting(waivers, policy, whole, now)
    results: dict[str, RuleResult] = {}
    for rule in policy.require:
        results[rule.id] = _apply(rule, whole, policy, excused.get(rule.id))
    rules = tuple(results.values())
    for waiver in waivers:
        if results[waiver.rule].status != "waived":
            raise UserError(
                f"waiver of {waiver.rule} by key {waiver.approver}",
                "only a rule that was measured and does not hold is waived, and this one is: "
                f"{results[waiver.rule].status}. {results[waiver.rule].explanation}",
                "take the waiver away",
            )
    return Decision(
        verdict=verdict_of(rules),
        rules=rules,
        policy=policy.policy,
        policy_digest=policy.digest,
        summary=policy.summary,
        decided=now.astimezone(UTC).isoformat(timespec="seconds"),
        waivers=tuple(waiver.envelope for waiver in waivers),
    )


def _fitting(
    waivers: Sequence[Waiver], policy: ReleasePolicy, facts: Mapping[str, Any], now: datetime
) -> dict[str, Waiver]:
    """The waivers by rule, each of which is about this policy, this model and this time."""
    found: dict[str, Waiver] = {}
    for waiver in waivers:
        waiver.check(policy, (facts.get("training") or {}).get("model_digest"), now)
        if waiver.rule in found:
            raise UserError(f"waivers of {waiver.rule}", "there are two", "take one away")
        found[waiver.rule] = waiver
    return found


def not_covered(rules: Iterable[Rule | RuleResult]) -> list[str]:
    """What the statement adds to its exclusions: a verdict that depends on private figures.

    Such a verdict is an output that the claim does not bound; the rules that make it so are named.
    """
    private = [rule.id for rule in rules if is_private(rule.metric)]
    if not private:
        return []
    return [f"the verdict, as rules of its policy look at private figures ({', '.join(private)})"]


def verdict_of(rules: tuple[RuleResult, ...]) -> Verdict:
    """The verdict that rule results amount to; no rules at all decide nothing."""
    statuses = {rule.status for rule in rules}
    if "fail" in statuses:
        return "FAIL"
    return "PASS" if statuses and statuses <= {"pass", "waived"} else "INCONCLUSIVE"


def _apply(
    rule: Rule, facts: Mapping[str, Any], policy: ReleasePolicy, waiver: Waiver | None
) -> RuleResult:
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
        if status == "pass":
            sentence += _silent(rule.metric, facts)
        if status == "fail":
            status = rule.on_fail
        if status == "fail" and waiver is not None:
            status = "waived"
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
        waiver=waiver.sentence if waiver is not None and status == "waived" else None,
    )


def _silent(metric: str, facts: Mapping[str, Any]) -> str:
    """What to add where a test without power found nothing in the model; empty for all else."""
    found = re.fullmatch(r"audit\.subjects\.target\.([a-z_]+)\.rejected", metric)
    if found is None or find(facts, f"audit.power.tests.{found[1]}.power") is True:
        return ""
    return f" The test was not shown to notice a leak ({found[1]}): its silence says nothing."


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
        verb = "as required" if same else f"required is {in_words(bound)}"
        return _status(same), f"Found {in_words(observed)}, {verb}."
    value, limit = number(observed), number(bound)
    if value is None or limit is None:
        odd = observed if value is None else bound
        return "error", f"Found {in_words(odd)}, which is not a number that can be compared."
    most = name.startswith("max")
    holds = value <= limit if most else value >= limit
    return _status(holds), (
        f"Found {in_words(observed)}, required is {'at most' if most else 'at least'} "
        f"{in_words(bound)}."
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
        f"{in_words(bound)}"
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


def in_words(value: Any) -> str:
    """A value as the sentences of a decision spell it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(in_words(item) for item in value) or "nothing"
    return {"inf": "infinity"}.get(value, value) if isinstance(value, str) else str(value)
