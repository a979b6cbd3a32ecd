"""Do the parts of a bundle agree with each other? The gate is decided again from what is in it.

A signature says who wrote a bundle, not that it makes sense: a signer who writes PASS over
evidence that fails is found here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audits.recheck import contradictions as audit_contradictions
from dpmlm.artifacts.recipients import WrappedKey
from dpmlm.canonical import read_json
from dpmlm.errors import UserError
from dpmlm.privacy.accountants import AccountantFailure
from dpmlm.privacy.ancestor import ancestor_of, ancestor_sentence
from dpmlm.privacy.details import details, epsilon_by_accountant
from dpmlm.privacy.plan import PrivacyPlan
from dpmlm.privacy.statement import rounded_up, standard_exclusions, vocabulary_of
from dpmlm.privacy.summary import claim_of
from dpmlm.release import mlbom
from dpmlm.release.facts import find, number, public, spelled
from dpmlm.release.gate import Decision, RuleResult, decide, not_covered, verdict_of
from dpmlm.release.inventory import GET_ORIGINAL, RECIPIENTS, Finding
from dpmlm.release.policy import ReleasePolicy, parse_policy
from dpmlm.release.waivers import Waiver, read_waiver

SIGNER_ERRED = "ask the signer: the signature is theirs, so the contradiction is too"


@dataclass(frozen=True)
class Contents:
    """The public files of a bundle, parsed."""

    plan: PrivacyPlan
    """What was promised."""
    statement: Mapping[str, Any]
    """The claim sentence and its fields."""
    evidence: Mapping[str, Any]
    """Public part of the audits' evidence; empty if there was none."""
    ledger: Mapping[str, Any]
    """Summary of what was spent."""
    training: Mapping[str, Any]
    """Public facts of the training."""
    decision: Decision
    """The gate's decision, private values withheld."""
    policy: ReleasePolicy
    """The policy that it was decided under."""
    recipients: frozenset[str]
    """Key ids that the model's key is wrapped for."""
    bill: Mapping[str, Any]
    """The bill of materials."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Package URLs of the libraries in its bill of materials, sorted."""
        return tuple(sorted(one["purl"] for one in self.bill["components"] if "purl" in one))

    @property
    def facts(self) -> dict[str, Any]:
        """What the gate can be decided on again."""
        return {
            "plan": self.plan.to_json(),
            "ledger": self.ledger,
            "audit": self.evidence,
            "training": self.training,
        }


def read_contents(folder: Path) -> tuple[Contents | None, list[Finding]]:
    """Parse a bundle's public files; what cannot be parsed is a finding and gives None."""
    findings: list[Finding] = []

    def read(name: str, build: Any, *, raw: bool = False) -> Any:
        try:
            data = (folder / name).read_bytes()
            return build(data if raw else read_json(data))
        except (
            OSError,
            ValueError,
            TypeError,
            AttributeError,
            KeyError,
            ArithmeticError,
            RecursionError,
            UserError,
        ) as error:
            rule = error.args[1] if isinstance(error, UserError) else "it cannot be read"
            findings.append(Finding(name, "whole file", str(rule), GET_ORIGINAL))
            return None

    contents = Contents(
        plan=read("plan.json", PrivacyPlan.from_json),
        statement=read("statement.json", dict),
        evidence=read("evidence.json", dict),
        ledger=read("ledger.json", dict),
        training=read("training.json", dict),
        decision=read("decision.json", Decision.from_json),
        policy=read("policy.yaml", lambda data: parse_policy(data, name="policy.yaml"), raw=True),
        recipients=read(RECIPIENTS, _openers, raw=True),
        bill=read(mlbom.NAME, _bill),
    )
    return (None if findings else contents), findings


def _openers(data: bytes) -> frozenset[str]:
    """Key ids of a recipients file; UserError unless it has the form of one, and one entry a key.

    Whether an entry opens only its recipient can tell.
    """
    wrapped = WrappedKey.parse(data, name=RECIPIENTS)
    if len(set(wrapped.key_ids)) < len(wrapped.key_ids):
        raise UserError(RECIPIENTS, "a key has two entries", GET_ORIGINAL)
    return frozenset(wrapped.key_ids)


def _bill(value: Any) -> dict[str, Any]:
    """A bill of materials whose libraries can be listed. Raises TypeError or KeyError."""
    if not all(isinstance(one.get("purl", ""), str) for one in value["components"]):
        raise TypeError("not text")
    return dict(value)


def contradictions(contents: Contents, manifest: Mapping[str, Any]) -> list[Finding]:
    """Findings where plan, evidence, decision, policy, manifest and recipients do not agree."""
    return [
        *_other_subjects(contents, manifest),
        *_concludes_otherwise(contents),
        *_claims_otherwise(contents),
        *_decided_otherwise(contents, manifest),
        *_wrong_recipients(contents, manifest),
        *(
            Finding(mlbom.NAME, place, "the rest of the bundle says otherwise", SIGNER_ERRED)
            for place in mlbom.disagreements(
                contents.bill, manifest, contents.statement, contents.decision
            )
        ),
    ]


def decided_again(contents: Contents, now: datetime) -> Decision:
    """What the policy and the facts of a bundle come to at `now`; private rules as recorded.

    Raises UserError for a waiver that is not in force then.
    """
    recorded = contents.decision
    waivers = [read_waiver(envelope, name="a waiver") for envelope in recorded.waivers]
    for waiver in waivers:
        waiver.check(contents.policy, contents.training.get("model_digest"), now)
    known = [one for one in waivers if not contents.policy.known(one.rule).private]
    again = decide(contents.policy, contents.facts, now=now, waivers=known)
    private = {rule.id: rule for rule in recorded.rules if rule.private}
    rules = tuple(private.get(rule.id, rule) for rule in again.rules)
    return replace(again, rules=rules, verdict=verdict_of(rules), waivers=recorded.waivers)


TOLD = (
    "report.html and MODEL_CARD.md are the signer's words, held against nothing: take figures "
    "from statement.json, ledger.json, evidence.json and decision.json, which were",
    "that the sealed model and tokenizer have the signed model_digest and tokenizer_digest is "
    "checked by whoever opens them",
)
"""What nobody without a key can check, of any bundle."""


def unchecked(contents: Contents) -> list[str]:
    """What a reader without the private figures has to take from the signer."""
    return [
        f"rule {rule.id} was decided on private figures; its result ({rule.status}) is the signer's"
        for rule in contents.decision.rules
        if rule.private
    ]


def _other_subjects(contents: Contents, manifest: Mapping[str, Any]) -> list[Finding]:
    """Evidence about another plan or another model is no evidence about this one."""
    findings = []
    expected = (
        *(("evidence.json", contents.evidence, *row) for row in _subjects(contents.plan, manifest)),
        ("ledger.json", contents.ledger, "plan_digest", contents.plan.digest),
        ("ledger.json", contents.ledger, "run_id", manifest.get("run_id")),
        ("manifest.dsse.json", manifest, "plan_digest", contents.plan.digest),
        ("manifest.dsse.json", manifest, "policy_digest", contents.policy.digest),
    )
    for file, part, path, value in expected:
        if part and not same(find(part, path), value):
            findings.append(Finding(file, path, _another(path), SIGNER_ERRED))
    return findings


def _subjects(plan: PrivacyPlan, manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Paths in evidence that say what it is about, and what has to stand there."""
    return [
        ("claim.plan_digest", plan.digest),
        ("claim.epsilon", spelled(plan.epsilon)),
        ("subjects.target.model_digest", manifest.get("model_digest")),
    ]


def _another(path: str) -> str:
    return f"it is about another {path.split('.')[-1].split('_')[0]} than this bundle's"


def other_evidence(
    evidence: Mapping[str, Any], plan: PrivacyPlan, manifest: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Places in evidence that are about another plan or model, or follow from nothing in it."""
    about = [(p, _another(p)) for p, value in _subjects(plan, manifest)
             if not same(find(evidence, p), value)]  # fmt: skip
    return about or audit_contradictions(evidence, plan.to_json())


def _concludes_otherwise(contents: Contents) -> list[Finding]:
    """What the audits rejected, and their power, must follow from their own figures."""
    if not contents.evidence:
        return []
    plan = contents.plan.to_json()
    return [
        Finding("evidence.json", path, what, SIGNER_ERRED)
        for path, what in audit_contradictions(contents.evidence, plan)
    ]


def _claims_otherwise(contents: Contents) -> list[Finding]:
    """The statement may round epsilon up in its fourth place, and nothing else."""
    claim, plan, ledger = contents.statement, contents.plan, contents.ledger
    ancestor = ancestor_of(plan)
    claimed, spent = number(claim.get("epsilon")), number(ledger.get("epsilon"))
    findings = []
    if claimed is None or spent is None or not (claimed == spent or 0 <= claimed - spent < 2e-4):
        what = f"it claims {claim.get('epsilon')}, the ledger counts {ledger.get('epsilon')}"
        findings.append(Finding("statement.json", "epsilon", what, SIGNER_ERRED))
    for name, value in (
        ("delta", ledger.get("delta")),
        ("unit", plan.unit),
        ("scope", plan.scope),
        ("plan_digest", plan.digest),
        ("vocabulary", vocabulary_of(plan)),
        ("continues", ancestor.to_json() if ancestor else None),
        ("choices", ledger.get("choices")),
        ("details", details(plan)),
        *(
            (name, ledger.get(name))
            for name in ("committed_steps", "charged_steps", "lineage", "cap")
        ),
    ):
        if not same(claim.get(name), value):
            what = f"it claims {claim.get(name)}, plan and ledger say {value}"
            if isinstance(value, Mapping):
                what = f"its {name} are not those of plan and ledger"
            findings.append(Finding("statement.json", name, what, SIGNER_ERRED))
    findings += _unfounded(claim, plan, not_covered(contents.decision.rules))
    findings += _accounted_otherwise(plan, ledger)
    if not findings and claimed is not None:
        shown = "inf" if math.isinf(claimed) else f"{claimed:.4f}"
        clause = (
            f"one {plan.unit}, the probability",
            f"factor e^{shown}, plus {rounded_up(claim['delta'], 6)}. "
            f"{ancestor_sentence(ancestor, ledger)}".rstrip(),
        )
        if not all(part in str(claim.get("sentence")) for part in clause):
            what = "its sentence does not say what its fields say"
            findings.append(Finding("statement.json", "sentence", what, SIGNER_ERRED))
    return findings


def _unfounded(claim: Mapping[str, Any], plan: PrivacyPlan, verdict: list[str]) -> list[Finding]:
    """What the statement leaves out that is not covered (`verdict`: of the verdict, where its
    rules look at private figures), and figures beside its claim."""
    excluded = claim.get("not_covered")
    told = excluded if isinstance(excluded, list) else []
    missing = [part for part in [*standard_exclusions(plan), *verdict] if part not in told]
    if any(str(part) not in str(claim.get("sentence")) for part in told):
        missing.append("what its sentence leaves out")
    findings = [
        Finding("statement.json", "not_covered", f"it leaves out: {part}", SIGNER_ERRED)
        for part in missing
    ]
    shown, again = claim.get("epsilon_by_accountant"), epsilon_by_accountant(plan)
    if not isinstance(shown, Mapping) or not all(
        _close(shown.get(name), value) for name, value in again.items()
    ):
        what = "they are not those that the accountants give for its plan"
        findings.append(Finding("statement.json", "epsilon_by_accountant", what, SIGNER_ERRED))
    return findings


def _close(told: Any, counted: float | str | None) -> bool:
    """Another version of an accountant may round otherwise in the fourth digit, or fail."""
    if told is None or counted is None or isinstance(counted, str):
        return told is None or counted is None or told == counted
    given = number(told)
    return given is not None and math.isclose(given, counted, rel_tol=1e-3)


def _accounted_otherwise(plan: PrivacyPlan, ledger: Mapping[str, Any]) -> list[Finding]:
    """Epsilon of the ledger, computed again: the plan's at its steps, or several runs' cap."""
    counted = number(ledger.get("epsilon"))
    try:
        expected, delta = claim_of(plan, ledger)
    except (
        AccountantFailure,
        ArithmeticError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        UserError,
    ):
        return [
            Finding("ledger.json", "whole file", "no claim follows from its steps", SIGNER_ERRED)
        ]
    # Another version of an accountant may round its grid otherwise, in the fourth digit.
    close = counted is not None and (
        counted == expected or math.isclose(counted, expected, rel_tol=1e-3)
    )
    if close and same(ledger.get("delta"), delta):
        return []
    what = (
        f"it counts epsilon {ledger.get('epsilon')} at delta {ledger.get('delta')}, its plan and "
        f"steps give {expected:.4f} at {delta:g}"
    )
    return [Finding("ledger.json", "epsilon", what, SIGNER_ERRED)]


def _decided_otherwise(contents: Contents, manifest: Mapping[str, Any]) -> list[Finding]:
    recorded = contents.decision
    waivers, findings = _waivers(contents)
    # What private figures decide is the signer's to say, so it is not found broken here.
    known = [one for one in waivers if not contents.policy.known(one.rule).private]
    try:
        now = datetime.fromisoformat(recorded.decided) if known else datetime.now(UTC)
        again = decide(contents.policy, contents.facts, now=now, waivers=known)
    except UserError as error:
        return [_wrong("waivers", f"{error.given}: {error.rule}")]
    if (recorded.policy, recorded.policy_digest) != (again.policy, again.policy_digest):
        findings.append(_wrong("policy", "it was made under another policy than policy.yaml"))
    if [rule.id for rule in recorded.rules] != [rule.id for rule in again.rules]:
        findings.append(_wrong("rules", "they are not the rules of policy.yaml"))
        return findings
    merged: list[RuleResult] = []
    for ours, theirs in zip(again.rules, recorded.rules, strict=True):
        merged.append(theirs if ours.private else ours)
        findings += _rule_differs(ours, theirs)
    verdict = verdict_of(tuple(merged))
    if recorded.verdict != verdict:
        what = f"it says {recorded.verdict}, the policy and the facts give {verdict}"
        findings.append(_wrong("verdict", what))
    if manifest.get("verdict") != recorded.verdict:
        what = f"the signed manifest says {manifest.get('verdict')}, this file {recorded.verdict}"
        findings.append(_wrong("verdict", what))
    return findings


def _waivers(contents: Contents) -> tuple[list[Waiver], list[Finding]]:
    """The waivers of a decision, each about this policy and model and in force when it was made;
    whether an approver signed them is for a reader to check, who knows the approvers."""
    recorded = contents.decision
    found: list[Waiver] = []
    if not recorded.waivers and not recorded.of("waived"):
        return [], []
    try:
        now = datetime.fromisoformat(recorded.decided)
        for envelope in recorded.waivers:
            waiver = read_waiver(envelope, name="a waiver")
            waiver.check(contents.policy, contents.training.get("model_digest"), now)
            found.append(waiver)
    except UserError as error:
        return [], [_wrong("waivers", f"{error.given}: {error.rule}")]
    except (TypeError, ValueError):
        return [], [_wrong("decided", "it is no time with a zone")]
    told = {rule.id: rule.waiver for rule in recorded.rules if rule.status == "waived"}
    if told != {waiver.rule: waiver.sentence for waiver in found} or len(told) < len(found):
        return [], [_wrong("waivers", "they are not those of the rules that are waived")]
    return found, []


def _rule_differs(ours: RuleResult, theirs: RuleResult) -> list[Finding]:
    if ours.private != theirs.private:
        return [_wrong(f"rule {ours.id}", "its private mark is wrong")]
    names = ["title", "metric", "threshold", "why"]
    if not ours.private:
        names += ["status", "observed", "evidence_digest", "waiver"]
    return [
        _wrong(
            f"rule {ours.id}, {name}",
            f"it says {getattr(theirs, name)}, policy and facts give {getattr(ours, name)}",
        )
        for name in names
        if not same(getattr(ours, name), getattr(theirs, name))
    ]


def _wrong_recipients(contents: Contents, manifest: Mapping[str, Any]) -> list[Finding]:
    """The recipients are those listed, and consumers are among them only on PASS."""
    listed = manifest.get("recipients")
    if not isinstance(listed, Mapping):
        return [Finding("manifest.dsse.json", "recipients", "they are not listed", SIGNER_ERRED)]
    keep, consumers = frozenset(listed.get("keep", ())), frozenset(listed.get("consumers", ()))
    findings = []
    if contents.decision.verdict != "PASS" and consumers:
        what = f"consumers can open a model whose verdict is {contents.decision.verdict}"
        findings.append(Finding("manifest.dsse.json", "recipients", what, SIGNER_ERRED))
    if contents.recipients != keep | consumers:
        odd = ", ".join(sorted(contents.recipients ^ (keep | consumers)))
        what = f"keys {odd} are not those that the manifest lists"
        findings.append(Finding(RECIPIENTS, "recipients", what, SIGNER_ERRED))
    return findings


def _wrong(where: str, what: str) -> Finding:
    return Finding("decision.json", where, what, SIGNER_ERRED)


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values; numbers to a millionth, as the last digits differ by machine."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) or isinstance(other, float):
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (one, other))
        return numbers and math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)
    return type(one) is type(other) and bool(one == other)


def withheld(part: Mapping[str, Any], path: str) -> list[str]:
    """Paths under `path` that consumers must not see; empty for a part that may be released."""
    shown = public(part, path)
    return sorted(_paths(part, path) - _paths(shown or {}, path))


def _paths(part: Any, path: str) -> set[str]:
    if not isinstance(part, Mapping):
        return {path}
    inner = (_paths(value, f"{path}.{key}") for key, value in part.items())
    return {path}.union(*inner)
