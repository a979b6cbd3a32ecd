"""Is a bundle in the release log, and is it the newest of its run?

The bundle's own proof is checked always. Whether a later release superseded it only the log can
tell; whether the log shown is the one that others were shown, only a head noted elsewhere.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmlm.artifacts import VerifyKey
from dpmlm.artifacts.notes import Checkpoint, open_checkpoint
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release.inventory import Finding
from dpmlm.release.log.appending import PROOF_FILE
from dpmlm.release.log.entry import LogProof, differences, entry_of
from dpmlm.release.log.reading import (
    MAX_PROOF_BYTES,
    ReleaseLog,
    bytes_of,
    entries_text,
    read_head,
    read_log,
)
from dpmlm.release.outside import Outside

_ASK = "ask the signer: the log and the bundle are both theirs"
_KEEP = "keep both, and show them to whoever relies on this log"


def check_logged(
    bundle: Path,
    manifest: Mapping[str, Any],
    ledger: Mapping[str, Any],
    trusted: Mapping[str, VerifyKey],
    outside: Outside,
) -> tuple[list[Finding], list[str]]:
    """Findings and notes on the release log of a bundle whose files are those that were signed.

    `ledger` is its ledger.json; `trusted` keys (by id) may have signed the log's heads. Raises
    UserError for a file of `outside` that is not there.
    """
    entry = entry_of(manifest, ledger, manifest["files"])
    findings: list[Finding] = []
    heads: dict[str, Checkpoint] = {}
    for name, path in _proofs(bundle, manifest, outside):
        try:
            proof, checkpoint = LogProof.read(_read(path), trusted)
        except IntegrityError as error:
            findings.append(Finding(name, error.given, error.rule, error.next_step))
            continue
        heads[name] = checkpoint
        wrong = differences(proof.entry, entry)
        findings += [Finding(name, "entry", what, _ASK) for what in wrong]
    noted = None
    if outside.head is not None:
        try:
            noted, _ = open_checkpoint(read_head(outside.head), trusted)
        except IntegrityError as error:
            findings.append(Finding(str(outside.head), "noted head", error.rule, error.next_step))
    if outside.log is not None:
        seen = {**heads, **({str(outside.head): noted} if noted else {})}
        found, notes = _against_log(entry, outside.log, seen, trusted)
    else:
        found, notes = _without_log(heads, noted, outside)
    return findings + found, notes


def _proofs(bundle: Path, manifest: Mapping[str, Any], outside: Outside) -> list[tuple[str, Path]]:
    own = [(PROOF_FILE, bundle / PROOF_FILE)] if PROOF_FILE in manifest["files"] else []
    return own + ([(str(outside.proof), outside.proof)] if outside.proof else [])


def _read(path: Path) -> bytes:
    data = bytes_of(path, "proof", MAX_PROOF_BYTES)
    if not data and not path.exists():
        raise UserError(
            f"proof {path}", "there is no such file", "name what `dpmlm log prove` wrote"
        )
    return data


def _against_log(
    entry: Mapping[str, Any],
    path: Path,
    heads: Mapping[str, Checkpoint],
    trusted: Mapping[str, VerifyKey],
) -> tuple[list[Finding], list[str]]:
    """Hold the release and every head that was seen against the whole log."""
    try:
        log = read_log(path, trusted)
        index = log.index(entry["release"])
    except IntegrityError as error:
        return [Finding(str(path), error.given, error.rule, error.next_step)], []
    findings = []
    for name, head in heads.items():
        if why := log.contradicts(head):
            findings.append(Finding(str(path), f"beside {name}", why, _KEEP))
    if index is None:
        what = f"it has {entries_text(len(log.lines))}, and none is about this bundle"
        findings.append(Finding(str(path), entry["release"], what, _ASK))
        return findings, []
    wrong = differences(log.entries[index], entry)
    findings += [Finding(str(path), f"entry {index + 1}", what, _ASK) for what in wrong]
    findings += _superseded(log, index)
    place = f"entry {index + 1} of {len(log.lines)} of log {log.checkpoint.origin}"
    return findings, [f"it is {place}, signed by {', '.join(log.signers)}"]


def _superseded(log: ReleaseLog, index: int) -> list[Finding]:
    entry = log.entries[index]
    newest = log.newest(entry["name"])
    if newest is None or newest <= index:
        return []
    later = log.entries[newest]
    what = (
        f"this is an older release of run {entry['name']}: entry {newest + 1} of "
        f"{later['created']} superseded it"
    )
    ask = f"get release {later['release']}, verdict {later['verdict']}"
    return [Finding(str(log.path), f"entry {index + 1}", what, ask)]


def _without_log(
    heads: Mapping[str, Checkpoint], noted: Checkpoint | None, outside: Outside
) -> tuple[list[Finding], list[str]]:
    """What a noted head says of the bundle's own, and what is left unchecked."""
    findings, notes = [], []
    for name, head in heads.items():
        place = f"log {head.origin} as of its {entries_text(head.size)}"
        notes.append(
            f"{name} proves that it is in {place}; whether a later release superseded it was not "
            "checked: give the log with --log"
        )
        if noted is None:
            continue
        if why := _disagree(head, noted):
            findings.append(Finding(name, f"beside {outside.head}", why, _KEEP))
        elif head.size != noted.size:
            notes.append(
                f"the noted head is of {entries_text(noted.size)}: whether one log holds both can "
                "only be checked with the log, --log"
            )
    if not heads:
        notes.append(
            "it holds no proof of a release log: an older release, whole and signed, looks like "
            "this one; give a log that holds it with --log, or its proof with --proof"
        )
        if noted is not None:
            notes.append("the noted head was compared with nothing")
    return findings, notes


def _disagree(one: Checkpoint, noted: Checkpoint) -> str | None:
    """Why two heads cannot be of one log; None where they may be."""
    if one.origin != noted.origin:
        return f"it is in log {one.origin}, the noted head is of log {noted.origin}"
    if one.size == noted.size and one.root != noted.root:
        return (
            f"the view is split: two heads of {entries_text(one.size)} were signed that do not "
            "agree, so somebody was shown another log"
        )
    return None
