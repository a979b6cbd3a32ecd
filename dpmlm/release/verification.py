"""Verifying a bundle offline, with the signers' public keys and no decryption key.

In order: the signature, then every file against the signed digests, then the gate decided again
from the policy and the facts in the bundle, then what the signer and others state about it. A
finding names the file and where in it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SigningKey
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release.asked import other_policy, told_policy
from dpmlm.release.attestations import misstated
from dpmlm.release.consistency import TOLD, Contents, contradictions, read_contents, unchecked
from dpmlm.release.continued import check_continued
from dpmlm.release.countersigning import (
    CLOCK_SKEW,
    Bundle,
    Countersignature,
    attest,
    check_countersignatures,
    check_evidence,
    disputes,
    file_of,
    missing,
    read_evidence,
    relied_on,
)
from dpmlm.release.gate import Decision
from dpmlm.release.inventory import GET_ORIGINAL, MANIFEST, Finding, compare, release_digest
from dpmlm.release.ledger_check import check_included
from dpmlm.release.log.check import check_logged
from dpmlm.release.outside import Outside
from dpmlm.release.policy import load_policy
from dpmlm.release.provenance import STATEMENT, digest_set, is_digest
from dpmlm.release.signed import open_signed
from dpmlm.release.trust import APPROVER, TRAINER, Trust, load_trust
from dpmlm.release.waivers import read_waiver

SCHEMA = "dpmlm.bundle/2"
"""Of the signed manifest; bundles of schema 1 have no run id and no statements."""
PREDICATE_TYPE = f"urn:{SCHEMA.replace('/', ':')}"
_ALONE = Outside()


@dataclass(frozen=True)
class Verification:
    """What verifying a bundle found."""

    ok: bool
    """True only if there is no finding; it does not mean that the verdict is PASS."""
    findings: tuple[Finding, ...]
    """Everything that is wrong, the manifest first."""
    notes: tuple[str, ...] = ()
    """What could not be checked, and is taken from the signer; who else vouches for it; what else a
    reader should know."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """The signed manifest; empty unless a trusted key signed it."""
    signers: tuple[str, ...] = ()
    """Key ids of the trusted signers."""
    countersigned: tuple[Countersignature, ...] = ()
    """Statements of auditors and approvers that hold."""
    contents: Contents | None = field(default=None, repr=False)
    """The public files, parsed; None where they could not be, or were not looked at."""
    warnings: tuple[str, ...] = ()
    """What a reader has to know before they use the model; it stands in no note."""

    @property
    def verdict(self) -> str | None:
        """PASS, FAIL or INCONCLUSIVE as signed; None unless the bundle verifies."""
        return str(self.manifest["verdict"]) if self.ok else None

    @property
    def policy(self) -> str | None:
        """What the policy that it was judged by calls itself; its digest stands in the manifest."""
        return self.contents.policy.policy if self.contents is not None else None

    @property
    def release(self) -> str | None:
        """Digest of the release, whoever can open it."""
        return release_digest(self.manifest["files"]) if self.manifest else None

    def insist(self, bundle: Path) -> None:
        """Raises IntegrityError, with the first finding, unless the bundle verifies."""
        if not self.ok:
            first = self.findings[0]
            more = f" (and {len(self.findings) - 1} more)" if len(self.findings) > 1 else ""
            raise IntegrityError(
                f"bundle {bundle}, {first.file} {first.where}", first.what + more, first.next_step
            )

    def to_json(self) -> dict[str, Any]:
        """JSON object for `dpmlm verify --json`."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "signers": list(self.signers),
            "countersigned": [one.to_json() for one in self.countersigned],
            "release": self.release,
            "run_id": self.manifest.get("run_id"),
            "created": self.manifest.get("created"),
            "policy": self.policy,
            "policy_digest": self.manifest.get("policy_digest"),
            "model_digest": self.manifest.get("model_digest"),
            "plan_digest": self.manifest.get("plan_digest"),
            "findings": [dict(finding.__dict__) for finding in self.findings],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


def verify_bundle(
    folder: Path,
    trusted_keys: Path,
    *,
    now: datetime,
    require: Sequence[str] = (),
    outside: Outside = _ALONE,
) -> Verification:
    """Check signature, files, decision, statements and log proof of a bundle; `now` has a time
    zone.

    `require` are roles (auditor, approver) without whose statement it does not verify; `outside`
    is what else it is held against.

    Raises UserError if `folder` is no folder, `trusted_keys` holds no key or one key in two roles,
    or a file of `outside` is not there. Whatever is wrong with the bundle itself is a finding,
    never an exception.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"bundle {folder}", "there is no such folder", "name the folder of a bundle"
        )
    trust = load_trust(Path(trusted_keys))
    asked = None if outside.policy is None else load_policy(outside.policy)
    theirs = None if outside.evidence is None else read_evidence(outside.evidence)
    try:
        manifest, signers = _open_manifest(folder / MANIFEST, trust)
    except IntegrityError as error:
        given, rule, next_step = error.args
        return Verification(False, (Finding(MANIFEST, given, rule, next_step),))
    findings = compare(folder, manifest["files"])
    warned: list[str] = []
    notes: list[str] = []
    held: list[Countersignature] = []
    contents = None
    if not findings:
        contents, findings = read_contents(folder)
    if contents is not None:
        findings = contradictions(contents, manifest)
        wrong, waived = _waived(contents.decision, trust, signers, now)
        warned, noted = told_policy(contents.policy)
        warned, notes = [*waived, *warned], [*unchecked(contents), *noted, *TOLD]
        findings += wrong
        # What is stated follows from the rest: where that contradicts itself, nothing does.
        if not findings:
            bundle = Bundle(folder, manifest, contents)
            findings, held = _stated(bundle, trust, signers, now)
            if theirs is not None:
                wrong, noted = check_evidence(bundle, held, theirs, trust)
                findings, notes = findings + wrong, notes + noted
        if not findings:
            findings = missing(require, held, manifest["verdict"])
            warned += disputes(held, manifest["verdict"])
            notes += [one.note for one in held]
        try:
            earlier = _earlier(outside, trusted_keys, now)
        except IntegrityError as error:
            findings.append(Finding(f"bundle {outside.continues}", *error.args))
        else:
            wrong, noted = check_continued(contents, earlier)
            findings, notes = findings + wrong, notes + noted
        findings += [] if asked is None else other_policy(contents.policy, asked)
        signing = trust.keys[TRAINER]
        wrong, noted = check_logged(folder, manifest, contents.ledger, signing, outside)
        findings, notes = findings + wrong, notes + noted
        wrong, noted = check_included(contents.ledger, outside.ledger, signing)
        findings, notes = findings + wrong, notes + noted
    findings += _from_the_future(manifest, now)
    return Verification(
        not findings,
        tuple(findings),
        tuple(notes),
        manifest,
        signers,
        tuple(held),
        contents,
        tuple(warned),
    )


def _earlier(
    outside: Outside, trusted_keys: Path, now: datetime
) -> tuple[Mapping[str, Any], Contents] | None:
    """The release that is continued, where the reader named its bundle.

    Raises IntegrityError if that one does not verify.
    """
    if outside.continues is None:
        return None
    checked = verify_bundle(outside.continues, trusted_keys, now=now)
    checked.insist(outside.continues)
    if checked.contents is None:
        raise ValueError("a bundle without findings was parsed")
    return checked.manifest, checked.contents


def attest_bundle(
    folder: Path,
    role: str,
    key: SigningKey,
    *,
    trusted_keys: Path,
    now: datetime,
    evidence: Path | None = None,
    policy: Path | str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Countersignature:
    """Countersign a bundle as auditor or approver, once it verifies; see `countersigning.attest`.

    An earlier statement of the same key is replaced, whatever is wrong with it. With `policy` only
    what was judged by that one is signed. `tell` gets what the signer should know, a line each,
    before anything is written.

    Raises IntegrityError if anything else does not verify, and UserError as `attest` does.
    """
    checked = verify_bundle(folder, trusted_keys, now=now, outside=Outside(policy=policy))
    former = file_of(role, key.key_id)
    wrong = tuple(finding for finding in checked.findings if finding.file != former)
    replace(checked, ok=not wrong, findings=wrong).insist(folder)
    if checked.contents is None:
        raise ValueError("a bundle without findings of its own was parsed")
    bundle = Bundle(folder, checked.manifest, checked.contents)
    own = None if evidence is None else read_evidence(evidence)
    for line in (*checked.warnings, *relied_on(checked.countersigned, former)):
        tell(line)
    return attest(bundle, role, key, load_trust(trusted_keys), now=now, evidence=own)


def _stated(
    bundle: Bundle, trust: Trust, signers: tuple[str, ...], now: datetime
) -> tuple[list[Finding], list[Countersignature]]:
    """What is wrong with the signer's statements and those of others, and the others' that hold."""
    keys = {key_id: trust.keys[TRAINER][key_id] for key_id in signers}
    findings = misstated(bundle.folder, bundle.manifest, bundle.contents, keys)
    wrong, held = check_countersignatures(bundle, trust, now)
    return findings + wrong, held


def _waived(
    decision: Decision, trust: Trust, signers: tuple[str, ...], now: datetime
) -> tuple[list[Finding], list[str]]:
    """Waivers that no trusted approver signed; and all others, as readers should know of them."""
    findings, warned = [], []
    others = sorted({*trust.keys[TRAINER], *signers})
    for envelope in decision.waivers:
        try:
            waiver = read_waiver(envelope, name="a waiver")
            waiver.signed_by(trust.keys[APPROVER], others)
        except UserError as error:
            ask = f"put the .pub files of approvers whom you trust into {trust.place(APPROVER)}"
            what = f"{error.given}: {error.rule}"
            findings.append(Finding("decision.json", "waivers", what, ask))
            continue
        since = " It has expired since." if waiver.expires < now else ""
        warned.append(f"rule {waiver.rule} does not hold. {waiver.sentence.rstrip('.')}.{since}")
    return findings, warned


def _open_manifest(path: Path, trust: Trust) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The signed fields of a manifest, and who signed it."""
    if not path.exists():
        raise IntegrityError(
            "whole file", "there is no signed manifest, so nothing vouches for it", GET_ORIGINAL
        )
    payload, signers = open_signed(path, trust.keys[TRAINER])
    if odd := _odd_part(payload):
        raise IntegrityError(
            "payload",
            f"it is signed, but no manifest of {SCHEMA}: its {odd} is not of the form",
            "name the folder of a bundle; one of an earlier version is made again by `dpmlm run`",
        )
    return payload["predicate"], signers


def _odd_part(payload: Mapping[str, Any]) -> str | None:
    """The first part of a manifest's statement that has another form than `bundle.py` gives it."""
    predicate, subject = payload.get("predicate"), payload.get("subject")
    if not isinstance(predicate, Mapping) or predicate.get("schema") != SCHEMA:
        return "schema"
    if payload.get("_type") != STATEMENT or payload.get("predicateType") != PREDICATE_TYPE:
        return "type"
    files = predicate.get("files")
    if not isinstance(files, Mapping) or not all(map(_is_record, files.values())):
        return "files"
    if subject != [
        {"name": name, "digest": digest_set(record["digest"])}
        for name, record in sorted(files.items())
    ]:
        return "subject"
    for name in ("model_digest", "tokenizer_digest", "plan_digest", "policy_digest"):
        if not is_digest(predicate.get(name)):
            return name
    for name in ("verdict", "run_id", "created"):
        if not isinstance(predicate.get(name), str):
            return name
    listed = predicate.get("recipients")
    if not isinstance(listed, Mapping) or not all(
        isinstance(listed.get(kind), list) and all(isinstance(one, str) for one in listed[kind])
        for kind in ("keep", "consumers")
    ):
        return "recipients"
    return None


def _is_record(record: Any) -> bool:
    return (
        isinstance(record, Mapping)
        and record.keys() == {"digest", "size", "blocks"}
        and is_digest(record["digest"])
        and type(record["size"]) is int
        and isinstance(record["blocks"], str)
    )


def _from_the_future(manifest: Mapping[str, Any], now: datetime) -> list[Finding]:
    try:
        early = datetime.fromisoformat(str(manifest.get("created"))) > now + CLOCK_SKEW
    except (ValueError, TypeError):
        early = True
    if not early:
        return []
    what = f"it is dated {manifest.get('created')}, which has not come yet"
    return [Finding(MANIFEST, "created", what, "check this machine's clock, then ask the signer")]
