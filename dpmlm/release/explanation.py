"""A decision rule by rule: what was found, where, what is required and why, and what would pass."""

from dataclasses import dataclass
from typing import Any

from audits.statistics import clopper_pearson
from dpmlm.release.gate import Decision, RuleResult, in_words, share_of, spans_needed
from dpmlm.release.policy import ReleasePolicy, Rule

SCHEMA = "dpmlm.explanation/1"
_FILES = {
    "plan": "plan.json",
    "ledger": "ledger.json",
    "audit": "evidence.json",
    "training": "training.json",
}
_WAYS = {
    "plan": "A plan is fixed once it is reserved, so this takes another run, charged beside this.",
    "ledger": "What a ledger counted is never taken back, so this takes a run that spends less.",
    "audit": "The same model gives the same answers: this takes a run with more planted secrets "
    "where their number or the power of the tests is short, and another model elsewhere.",
    "scrub": "This takes other marked documents (scrub.gold), or a run that scrubs otherwise.",
    "training": "This takes another run.",
}


@dataclass(frozen=True)
class Explanation:
    """One rule, as it was decided."""

    result: RuleResult
    """What became of it."""
    required: str
    """The comparison and its bound in words."""
    file: str | None
    """File of a bundle that holds the value; None if it is private and in no bundle."""
    to_pass: str | None
    """What would make it pass; None where it does."""

    def to_json(self) -> dict[str, Any]:
        """JSON object: an entry of `rules` in `dpmlm.explanation/1`."""
        told = self.result
        return {
            "id": told.id,
            "title": told.title,
            "status": told.status,
            "observed": told.observed,
            "threshold": told.threshold,
            "required": self.required,
            "explanation": told.explanation,
            "why": told.why,
            "evidence": {
                "path": told.metric,
                "file": self.file,
                "digest": told.evidence_digest,
            },
            "to_pass": self.to_pass,
            "waiver": told.waiver,
            "private": told.private,
        }

    def text(self) -> str:
        """A block of lines for a terminal."""
        told = self.result
        where = self.file or "private, in no bundle"
        lines = [
            f"{told.id}: {told.status}",
            f"  asks      {told.title}",
            f"  says      {told.explanation}",
            f"  required  {self.required}",
            f"  why       {told.why}",
            f"  evidence  {told.metric} ({where}) {told.evidence_digest or ''}".rstrip(),
        ]
        lines += [f"  to pass   {self.to_pass}"] if self.to_pass else []
        return "\n".join([*lines, *([f"  waiver    {told.waiver}"] if told.waiver else [])])


def explain(
    policy: ReleasePolicy, decision: Decision, rule: str | None = None
) -> tuple[Explanation, ...]:
    """Explain every rule of a decision made under `policy`, or the one whose id is `rule`.

    Raises UserError for a rule that the policy has not, naming the nearest.
    """
    pairs = list(zip(policy.require, decision.rules, strict=True))
    if rule is not None:
        ids = [one.id for one, _ in pairs]
        pairs = [pairs[ids.index(policy.known(rule).id)]]
    return tuple(_explained(one, result) for one, result in pairs)


def _explained(rule: Rule, result: RuleResult) -> Explanation:
    part = rule.metric.split(".")[0]
    required = _required(rule, result)
    to_pass = None
    if result.status != "pass":
        to_pass = f"{_needed(rule, result, required)} {_WAYS.get(part, '')}".rstrip()
    return Explanation(result, required, None if result.private else _FILES.get(part), to_pass)


def _required(rule: Rule, result: RuleResult) -> str:
    """The bound in words, with what it refers to and the side conditions."""
    name = rule.comparison
    given = result.threshold[name]
    if name == "equals":
        words = in_words(given)
    elif name == "min_rate":
        words = f"a share whose 95 % interval begins at {in_words(given)} or above"
    else:
        words = f"at {'most' if name.startswith('max') else 'least'} "
        if name.endswith("_ref"):
            value = result.threshold["value"]
            words += f"{given} ({'missing' if value is None else in_words(value)})"
        else:
            words += in_words(given)
    if rule.unit is not None:
        words += f", of a promise about one {rule.unit}"
    if rule.at is not None:
        words += f", at delta {rule.at.delta:g} or less"
    return words


def _needed(rule: Rule, result: RuleResult, required: str) -> str:
    """What the value would have to be; of a share, how many of as many."""
    if result.observed is None:
        return f"{rule.metric} has to be there, and be {required}."
    counts = share_of(result.observed) if rule.comparison == "min_rate" else None
    if counts is None:
        return f"{rule.metric} has to be {required}."
    _, of = counts
    bound = result.threshold["min_rate"]
    if of < spans_needed(bound):
        return f"{rule.metric} has to count at least {spans_needed(bound)}, all of them found."
    return f"{rule.metric} has to be {least_found(of, bound)} or more of {of}."


def least_found(of: int, bound: float) -> int:
    """Least number found out of `of` whose 95 % interval begins at `bound` or above.

    `of` is at least `spans_needed(bound)`. The interval's lower end grows with what is found, so
    bisection finds it.
    """
    low, high = 0, of
    while low < high:
        middle = (low + high) // 2
        if clopper_pearson(middle, of)[0] >= bound:
            high = middle
        else:
            low = middle + 1
    return high
