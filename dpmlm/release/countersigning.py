"""Statements of others about a bundle: an auditor's test result, an approver's summary.

They come after the manifest, which therefore cannot list them: each is one file under
`attestations/`, named after role and key, and stands or falls by its own signature. Whoever signs
verifies the bundle first; whoever reads checks that key, release and predicate fit. A reader who
needs one says so (`--require`), as else a statement that somebody took away is not missed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from audits.subject import TESTS
from dpmlm.artifacts import SigningKey
from dpmlm.canonical import read_json
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release import provenance as said
from dpmlm.release.attestations import (
    MAX_BYTES,
    STATEMENTS,
    about_another,
    compared,
    shown,
    write_signed,
)
from dpmlm.release.consistency import Contents, decided_again, other_evidence
from dpmlm.release.facts import public_evidence
from dpmlm.release.inventory import (
    ATTESTATIONS,
    Finding,
    countersignatures_of,
    countersigned,
    take_record,
)
from dpmlm.release.signed import open_signed
from dpmlm.release.trust import APPROVER, AUDITOR, COUNTERSIGNERS, Trust

CLOCK_SKEW = timedelta(days=1)
_KINDS = {AUDITOR: said.TEST_RESULT, APPROVER: said.SUMMARY}
_AUDITS = frozenset(f"audit:{test}" for test in TESTS)
_EVIDENCE = re.compile(r"[0-9a-f]{64}")
_MAX_EVIDENCE_BYTES = 64 << 20


@dataclass(frozen=True)
class Countersignature:
    """A statement that verified."""

    role: str
    """auditor or approver."""
    key_id: str
    """Whose key signed it."""
    result: str
    """PASSED, WARNED or FAILED, as the statement says."""
    file: str
    """Its path in the bundle."""
    evidence: str | None = None
    """Digest of the public part of evidence that an auditor has and the bundle has not."""
    saw: tuple[tuple[str, str], ...] = ()
    """Auditors' statements that an approver rests on: file and digest."""

    def to_json(self) -> dict[str, Any]:
        """JSON object for `dpmlm verify --json`."""
        return {k: v for k, v in self.__dict__.items() if k != "saw"}

    @property
    def note(self) -> str:
        """One sentence for readers."""
        own = "" if self.evidence is None else f", on evidence of their own ({self.evidence})"
        return f"countersigned by the {self.role}'s key {self.key_id}: {self.result}{own}"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose bytes and statements were checked, for whoever judges what others say."""

    folder: Path
    manifest: Mapping[str, Any]
    """The signed fields."""
    contents: Contents


def file_of(role: str, key_id: str) -> str:
    """Where a countersignature lies."""
    return f"{ATTESTATIONS}/{role}-{key_id}.dsse.json"


def check_countersignatures(
    bundle: Bundle, trust: Trust, now: datetime
) -> tuple[list[Finding], list[Countersignature]]:
    """What is wrong with the countersignatures of a bundle, and those that hold."""
    findings: list[Finding] = []
    held: list[Countersignature] = []
    for name in countersignatures_of(bundle.folder):
        wrong, found = _check(bundle, name, trust, now)
        findings += wrong
        held += [found] if found is not None else []
    broken = {finding.file for finding in findings}
    for one in held:
        findings += _rests_on_others(bundle, one, broken)
    return findings, held


def missing(
    require: Iterable[str], held: Sequence[Countersignature], verdict: str
) -> list[Finding]:
    """A finding for each role of `require` in which nobody says anything, and for each in it whose
    FAILED stands against a PASS."""
    findings = []
    for role in dict.fromkeys(require):
        if not any(one.role == role for one in held):
            what = f"no {role} countersigned it, and one is required"
            ask = f"ask an {role} for `dpmlm release attest`, or for the file that they wrote"
            findings.append(Finding(ATTESTATIONS, role, what, ask))
        against = [one for one in _against(held, verdict) if one.role == role]
        findings += [Finding(one.file, "result", _disputed(one), _HEAR) for one in against]
    return findings


def disputes(held: Sequence[Countersignature], verdict: str) -> list[str]:
    """A warning for each who says FAILED of a PASS."""
    return [f"{_disputed(one)}; {_HEAR}" for one in _against(held, verdict)]


_HEAR = "ask them what they found before you use it"


def _against(held: Sequence[Countersignature], verdict: str) -> list[Countersignature]:
    return [one for one in held if verdict == "PASS" and one.result == "FAILED"]


def _disputed(one: Countersignature) -> str:
    return f"the {one.role}'s key {one.key_id} says FAILED, and its verdict is PASS"


def relied_on(held: Sequence[Countersignature], name: str) -> list[str]:
    """A line for each whose statement falls when the file `name` becomes another."""
    return [
        f"the {one.role}'s key {one.key_id} rests on {name}: if that becomes another, the bundle "
        f"does not verify until the {one.role} attests again"
        for one in held
        if name in dict(one.saw)
    ]


def check_evidence(
    bundle: Bundle, held: Sequence[Countersignature], evidence: Mapping[str, Any], trust: Trust
) -> tuple[list[Finding], list[str]]:
    """Whether evidence that an auditor handed over is what they signed, and gives what they say."""
    ask = "ask the auditor for the evidence that they attested with"
    digest = said.evidence_digest(public_evidence(evidence))
    ours = said.evidence_digest(bundle.contents.evidence)
    theirs = [one for one in held if one.role == AUDITOR and (one.evidence or ours) == digest]
    if not theirs:
        what = f"no auditor's statement is on this evidence ({digest})"
        return [Finding(ATTESTATIONS, said.EVIDENCE, what, ask)], []
    try:
        predicate = _auditors(bundle, evidence)
    except UserError as error:
        return [Finding(one.file, error.given, error.rule, ask) for one in theirs], []
    whole = said.statement(said.TEST_RESULT, bundle.manifest["files"], predicate)
    findings, notes = [], []
    for one in theirs:
        key = {one.key_id: trust.keys[AUDITOR][one.key_id]}
        payload, _ = open_signed(bundle.folder / one.file, key, most=MAX_BYTES)
        findings += compared(one.file, whole, payload, _ask(AUDITOR))
        notes.append(f"the evidence is what the auditor's key {one.key_id} attested ({digest})")
    return findings, [] if findings else notes


def attest(
    bundle: Bundle,
    role: str,
    key: SigningKey,
    trust: Trust,
    *,
    now: datetime,
    evidence: Mapping[str, Any] | None = None,
) -> Countersignature:
    """Write the statement of `key`'s holder about a verified bundle, in one step.

    It says what follows from the bundle: an auditor's test result, on `evidence` of their own where
    given; an approver's summary of the gate, decided again at `now`. Raises UserError where the key
    is not trusted in that role, the evidence is not about this model and plan, or a waiver that the
    verdict rests on has expired.
    """
    known = trust.role_of(key.key_id)
    if known is not None and known != role:
        raise UserError(
            f"signing key {key.key_id} as {role}",
            f"it is trusted as {known}, and nobody signs in two roles",
            f"sign with a key of the {role}'s own (`dpmlm keys new DIR --role {role}`)",
        )
    if known is None:
        raise UserError(
            f"signing key {key.key_id} as {role}",
            "nobody trusts it yet",
            f"put its .pub file into {trust.place(role)}, and into no other folder of keys",
        )
    if evidence is not None and role != AUDITOR:
        raise UserError("--evidence", f"an {role} decides on the bundle's own", "leave it out")
    if role == AUDITOR:
        predicate = _auditors(bundle, evidence)
    else:
        audited = [name for name in countersignatures_of(bundle.folder) if _role(name) == AUDITOR]
        predicate = _approvers(bundle, key.key_id, now.isoformat(), audited)
    payload = said.statement(_KINDS[role], bundle.manifest["files"], predicate)
    name = file_of(role, key.key_id)
    write_signed(bundle.folder / name, payload, key)
    told = predicate["result" if role == AUDITOR else "verificationResult"]
    return Countersignature(role, key.key_id, told, name)


def read_evidence(path: Path) -> dict[str, Any]:
    """The evidence that an auditor has in a file. Raises UserError."""
    try:
        if path.stat().st_size > _MAX_EVIDENCE_BYTES:
            raise ValueError("too large")
        evidence = read_json(path.read_bytes())
        if not isinstance(evidence, dict):
            raise ValueError("no object")
    except OSError:
        raise UserError(f"--evidence {path}", "it cannot be read", "name a file") from None
    except ValueError:
        raise UserError(
            f"--evidence {path}", "it is no evidence", "name what `dpmlm audit --out` wrote"
        ) from None
    return evidence


def _auditors(bundle: Bundle, evidence: Mapping[str, Any] | None) -> dict[str, Any]:
    contents, manifest = bundle.contents, bundle.manifest
    if evidence is not None:
        for where, what in other_evidence(evidence, contents.plan, manifest):
            ask = "audit this bundle's model, under its plan"
            raise UserError(f"--evidence, {where}", what, ask)
    looked_at = contents.evidence if evidence is None else public_evidence(evidence)
    return said.test_result(
        said.outcomes(contents.decision, looked_at),
        manifest,
        contents.decision,
        said.evidence_digest(looked_at),
    )


def _approvers(bundle: Bundle, key_id: str, when: str, audited: Sequence[str]) -> dict[str, Any]:
    seen = {name: _record(bundle.folder, name) for name in audited}
    manifest = {**bundle.manifest, "files": {**bundle.manifest["files"], **seen}}
    rests_on = (*STATEMENTS, *audited)
    decision = decided_again(bundle.contents, datetime.fromisoformat(when))
    return said.summary(APPROVER, key_id, manifest, decision, rests_on, when)


def _check(
    bundle: Bundle, name: str, trust: Trust, now: datetime
) -> tuple[list[Finding], Countersignature | None]:
    role, key_id = _role(name), name.rpartition("-")[2].partition(".")[0]
    if key_id not in trust.keys[role]:
        return [_untrusted(name, role, key_id, trust)], None
    try:
        key = {key_id: trust.keys[role][key_id]}
        payload, _ = open_signed(bundle.folder / name, key, most=MAX_BYTES)
    except IntegrityError as error:
        return [Finding(name, error.given, error.rule, _ask(role))], None
    if wrong := about_another(name, payload, _KINDS[role], bundle.manifest):
        return wrong, None
    try:
        says = payload["predicate"]
        if role == AUDITOR:
            expected, own = _expected_result(bundle, says)
            found = Countersignature(role, key_id, says["result"], name, evidence=own)
        else:
            expected, saw = _expected_summary(bundle, says, key_id, now)
            found = Countersignature(role, key_id, says["verificationResult"], name, saw=saw)
    except UserError as error:
        told = f"{error.given}: {error.rule}"
        return [Finding(name, "predicate.timeVerified", told, _ask(role))], None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        told = f"it has not the form of its kind ({shown(error)})"
        return [Finding(name, "predicate", told, _ask(role))], None
    whole = said.statement(_KINDS[role], bundle.manifest["files"], expected)
    wrong = compared(name, whole, payload, _ask(role))
    return wrong, None if wrong else found


def _expected_result(bundle: Bundle, says: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """An auditor's test result, and the digest of evidence that the bundle has not.

    The rules are the decision's. Audits on the bundle's evidence are read again from it; of others
    only names and lists can be checked, and that the result follows from them.
    """
    contents = bundle.contents
    theirs, ours = says.get(said.EVIDENCE), said.evidence_digest(contents.evidence)
    tests = said.outcomes(contents.decision, contents.evidence)
    named = None if theirs is None else f"sha256:{theirs['digest']['sha256']}"
    own = None
    if theirs is not None and named != ours:
        if not _EVIDENCE.fullmatch(theirs["digest"]["sha256"]):
            raise ValueError("a digest of evidence is 64 hexadecimal digits")
        own = named
        told = [test for kind in said.LISTS for test in says[kind] if test.startswith("audit:")]
        if not set(told) <= _AUDITS or len(told) != len(set(told)):
            raise ValueError("its audits are not those that there are")
        tests = {
            kind: [
                *(test for test in tests[kind] if not test.startswith("audit:")),
                *(test for test in says[kind] if test.startswith("audit:")),
            ]
            for kind in said.LISTS
        }
    return said.test_result(tests, bundle.manifest, contents.decision, named or ours), own


def _expected_summary(
    bundle: Bundle, says: Mapping[str, Any], key_id: str, now: datetime
) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """An approver's summary as the gate decides at the time that it says, which lies after the
    bundle and before now, and the auditors' statements that it rests on.

    What it rests on beside the trainer's statements is looked at by `_rests_on_others`.
    """
    when = datetime.fromisoformat(says["timeVerified"])
    created = datetime.fromisoformat(str(bundle.manifest["created"]))
    if when > now + CLOCK_SKEW:
        raise ValueError(f"{when.isoformat()} has not come yet")
    if when < created - CLOCK_SKEW:
        raise ValueError(f"{when.isoformat()} is before the bundle was made")
    expected = _approvers(bundle, key_id, when.astimezone(UTC).isoformat(), [])
    others = says["inputAttestations"][len(STATEMENTS) :]
    saw = tuple((one["uri"], f"sha256:{one['digest']['sha256']}") for one in others)
    if not all(countersigned(name) and _role(name) == AUDITOR for name, _ in saw):
        raise ValueError("it rests on what is no auditor's statement")
    rests_on = [{"uri": name, "digest": said.digest_set(digest)} for name, digest in saw]
    return {**expected, "inputAttestations": [*expected["inputAttestations"], *rests_on]}, saw


def _rests_on_others(bundle: Bundle, one: Countersignature, broken: set[str]) -> list[Finding]:
    """Auditors' statements that an approver saw, and that are gone or others by now."""
    findings = []
    there = countersignatures_of(bundle.folder)
    for name, digest in one.saw:
        if name in broken:
            continue
        if name not in there:
            what = f"the approver saw {name}, and it is gone"
        elif _record(bundle.folder, name)["digest"] != digest:
            what = f"the approver saw another {name}"
        else:
            continue
        ask = "get that file from the auditor, or ask the approver to attest again"
        findings.append(Finding(one.file, "predicate.inputAttestations", what, ask))
    return findings


def _record(folder: Path, name: str) -> dict[str, Any]:
    with open(folder / name, "rb") as file:
        return take_record(file, name)


def _untrusted(name: str, role: str, key_id: str, trust: Trust) -> Finding:
    place, known = trust.place(role), trust.role_of(key_id)
    if known is not None:
        what = f"key {key_id} is trusted as {known}, and signs nothing as {role}"
        return Finding(name, "signatures", what, f"ask an {role} with a key of their own")
    what = f"key {key_id} is not trusted as {role}: its .pub file does not lie in {place}"
    ask = f"put the {role}'s .pub file into {place} if you know them, or take the file away"
    return Finding(name, "signatures", what, ask)


def _role(name: str) -> str:
    return next(role for role in COUNTERSIGNERS if name.startswith(f"{ATTESTATIONS}/{role}-"))


def _ask(role: str) -> str:
    return f"ask the {role} for the file as it was, or take it away and trust it with nothing"
