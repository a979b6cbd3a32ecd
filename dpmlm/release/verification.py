"""Verifying a bundle offline, with the signers' public keys and no decryption key.

In order: the signature, then every file against the signed digests, then the gate decided again
from the policy and the facts in the bundle. A finding names the file and where in it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dpmlm.artifacts import canonical_json, load_trusted_keys
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release.consistency import contradictions, read_contents, unchecked
from dpmlm.release.gate import Decision
from dpmlm.release.inventory import GET_ORIGINAL, MANIFEST, PAYLOAD_TYPE, Finding, compare
from dpmlm.release.waivers import read_waiver

SCHEMA = "dpmlm.bundle/1"
APPROVERS = "approver"
"""Folder of the trusted keys that may sign waivers, and nothing else."""
_CLOCK_SKEW = timedelta(days=1)
_MAX_MANIFEST_BYTES = 256 << 20


@dataclass(frozen=True)
class Verification:
    """What verifying a bundle found."""

    ok: bool
    """True only if there is no finding; it does not mean that the verdict is PASS."""
    findings: tuple[Finding, ...]
    """Everything that is wrong, the manifest first."""
    notes: tuple[str, ...] = ()
    """What could not be checked without private figures and is taken from the signer."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """The signed manifest; empty unless a trusted key signed it."""
    signers: tuple[str, ...] = ()
    """Key ids of the trusted signers."""

    @property
    def verdict(self) -> str | None:
        """PASS, FAIL or INCONCLUSIVE as signed; None unless the bundle verifies."""
        return str(self.manifest["verdict"]) if self.ok else None

    def to_json(self) -> dict[str, Any]:
        """JSON object for `dpmlm verify --json`."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "signers": list(self.signers),
            "created": self.manifest.get("created"),
            "model_digest": self.manifest.get("model_digest"),
            "plan_digest": self.manifest.get("plan_digest"),
            "findings": [dict(finding.__dict__) for finding in self.findings],
            "notes": list(self.notes),
        }


def verify_bundle(folder: Path, trusted_keys: Path, *, now: datetime) -> Verification:
    """Check signature, files and decision of a bundle; `now` has a time zone.

    Raises UserError if `folder` is no folder or `trusted_keys` holds no key. Whatever is wrong
    with the bundle itself is a finding, never an exception.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"bundle {folder}", "there is no such folder", "name the folder of a bundle"
        )
    trusted = load_trusted_keys(Path(trusted_keys))
    try:
        payload, signers = _open_manifest(folder / MANIFEST, trusted)
    except IntegrityError as error:
        given, rule, next_step = error.args
        return Verification(False, (Finding(MANIFEST, given, rule, next_step),))
    manifest = payload["predicate"]
    findings = compare(folder, manifest["files"])
    notes: list[str] = []
    if not findings:
        contents, findings = read_contents(folder)
        if contents is not None:
            findings = contradictions(contents, manifest)
            notes = unchecked(contents)
            wrong, noted = _waived(contents.decision, Path(trusted_keys), {*trusted, *signers}, now)
            findings, notes = findings + wrong, notes + noted
    findings += _from_the_future(manifest, now)
    return Verification(not findings, tuple(findings), tuple(notes), manifest, signers)


def _waived(
    decision: Decision, trusted_keys: Path, others: set[str], now: datetime
) -> tuple[list[Finding], list[str]]:
    """Waivers that no trusted approver signed; and all others, as readers should know of them."""
    findings, notes = [], []
    folder = trusted_keys / APPROVERS
    approvers = load_trusted_keys(folder) if folder.is_dir() and decision.waivers else {}
    for envelope in decision.waivers:
        try:
            waiver = read_waiver(envelope, name="a waiver")
            waiver.signed_by(approvers, sorted(others))
        except UserError as error:
            ask = f"put the .pub files of approvers whom you trust into {folder}"
            what = f"{error.given}: {error.rule}"
            findings.append(Finding("decision.json", "waivers", what, ask))
            continue
        since = " It has expired since." if waiver.expires < now else ""
        notes.append(f"rule {waiver.rule} does not hold. {waiver.sentence}.{since}")
    return findings, notes


def _open_manifest(
    path: Path, trusted: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    from dpmlm.artifacts import open_envelope

    if path.is_symlink() or not path.is_file():
        raise IntegrityError(
            "whole file", "there is no signed manifest, so nothing vouches for it", GET_ORIGINAL
        )
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise IntegrityError("whole file", "it is too large to be a manifest", GET_ORIGINAL)
    data = path.read_bytes()
    try:
        envelope = json.loads(data)
        spelled_so = canonical_json(envelope) == data
    except (ValueError, RecursionError):
        raise IntegrityError("whole file", "it is not JSON", GET_ORIGINAL) from None
    if not spelled_so or not isinstance(envelope, dict):
        raise IntegrityError("whole file", "it is not spelled as it was signed", GET_ORIGINAL)
    payload = open_envelope(envelope, trusted, payload_type=PAYLOAD_TYPE)
    if not _is_manifest(payload):
        raise IntegrityError(
            "payload", f"it is signed, but no manifest of {SCHEMA}", "name the folder of a bundle"
        )
    return payload, tuple(entry["keyid"] for entry in envelope["signatures"])


def _is_manifest(payload: Mapping[str, Any]) -> bool:
    predicate = payload.get("predicate")
    if not isinstance(predicate, Mapping) or predicate.get("schema") != SCHEMA:
        return False
    files, subject = predicate.get("files"), payload.get("subject")
    if not isinstance(files, Mapping) or not isinstance(subject, list):
        return False
    try:
        named = {entry["name"]: "sha256:" + entry["digest"]["sha256"] for entry in subject}
        listed = {name: record["digest"] for name, record in files.items()}
        whole = all({"digest", "size", "blocks"} <= set(record) for record in files.values())
    except (TypeError, KeyError):
        return False
    return whole and named == listed and isinstance(predicate.get("verdict"), str)


def _from_the_future(manifest: Mapping[str, Any], now: datetime) -> list[Finding]:
    try:
        early = datetime.fromisoformat(str(manifest.get("created"))) > now + _CLOCK_SKEW
    except (ValueError, TypeError):
        early = True
    if not early:
        return []
    what = f"it is dated {manifest.get('created')}, which has not come yet"
    return [Finding(MANIFEST, "created", what, "check this machine's clock, then ask the signer")]
