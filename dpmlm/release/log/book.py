"""The release log for people and scripts: what `dpmlm log` shows, adds and verifies."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpmlm.artifacts import VerifyKey, atomic_write, load_signing_key
from dpmlm.artifacts.notes import open_checkpoint, parse_checkpoint
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release.inventory import release_digest, take_inventory
from dpmlm.release.log.appending import append, written_proof
from dpmlm.release.log.entry import entry_of
from dpmlm.release.log.reading import ReleaseLog, entries_text, read_head, read_log
from dpmlm.release.trust import TRAINER, load_trust
from dpmlm.release.verification import verify_bundle


@dataclass(frozen=True)
class Listing:
    """Every entry of a log."""

    log: str
    """Where it lies."""
    origin: str
    """Its name."""
    size: int
    """Number of entries."""
    root: str
    """Of their Merkle tree, base64."""
    entries: list[dict[str, Any]]
    """Each with its `index`, from 0."""
    noted: dict[str, Any] | None
    """Of a noted head its `size`, null for what is no head, and the `problem`, null where the log
    goes on from it."""

    @classmethod
    def of(cls, path: Path, head: Path | None = None) -> "Listing":
        """Read a log and hold it against its head, and against another one that was noted.

        Signatures are not looked at: `LogCheck` does.
        """
        log = read_log(path, None)
        noted = None
        if head is not None:
            try:
                earlier = parse_checkpoint(read_head(head))[0]
                noted = {"size": earlier.size, "problem": log.contradicts(earlier)}
            except IntegrityError as error:
                noted = {"size": None, "problem": f"{head}: {error}"}
        entries = [{"index": index, **entry} for index, entry in enumerate(log.entries)]
        return cls(str(path), *_head_of(log), entries, noted)

    @property
    def ok(self) -> bool:
        """Whether the log goes on from the noted head, if there is one."""
        return self.noted is None or self.noted["problem"] is None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        rows = [f"{self.log}: log {self.origin}, {entries_text(self.size)}, root {self.root}"]
        for entry in self.entries:
            new = self.noted is not None and self.ok and entry["index"] >= self.noted["size"]
            rows.append(
                f"{'new ' if new else ''}entry {entry['index'] + 1}: {entry['created']} "
                f"{entry['verdict']} {entry['run_id']} {entry['release']}"
            )
        if self.noted is not None:
            rows.append(self.noted["problem"] or "it goes on from the noted head")
        return "\n".join([*rows, "signatures: `dpmlm log verify` checks them"])


@dataclass(frozen=True)
class Entered:
    """A release that a log now holds."""

    log: str
    """Where it lies."""
    index: int
    """Of the entry, from 0."""
    size: int
    """Entries of the log."""
    added: bool
    """False for a release that it held already."""
    entry: dict[str, Any]
    """What it says."""
    checkpoint: str
    """The signed head, to be copied elsewhere."""
    signer: str
    """Id of the key that signed it."""
    former_signers: list[str]
    """Trusted keys that had signed the head before, where this one took it over; else empty."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        how = "entered as" if self.added else "it holds this release already:"
        anew = (
            f"head signed anew by {self.signer}, was {', '.join(self.former_signers)}; "
            if self.former_signers
            else ""
        )
        return (
            f"{self.log}: {how} entry {self.index + 1} of {self.size}; {anew}copy the head "
            f"elsewhere: dpmlm log head {self.log}"
        )


@dataclass(frozen=True)
class LogCheck:
    """Whether a log is what was signed, and goes on from every head that was noted."""

    log: str
    """Where it lies."""
    intact: bool
    """True if there is no problem."""
    origin: str | None
    """Its name; null for a log that is not what its head was signed over."""
    size: int | None
    """Entries, likewise."""
    root: str | None
    """Of their Merkle tree, base64, likewise."""
    signers: list[str]
    """Trusted keys that signed the head."""
    heads: int
    """Noted heads that it was held against."""
    under_way: bool
    """Whether an append was under way, or was interrupted; the next one mends it."""
    problems: list[str]
    """What is wrong, a sentence each."""

    @classmethod
    def of(cls, path: Path, trusted_keys: Path, heads: Sequence[Path] = ()) -> "LogCheck":
        """Recompute a log's root, and hold it against heads noted earlier.

        Raises UserError for a file that is not there; whatever is wrong is a problem.
        """
        trusted = load_trust(trusted_keys).keys[TRAINER]
        try:
            log = read_log(path, trusted)
        except IntegrityError as error:
            return cls(str(path), False, None, None, None, [], len(heads), False, [str(error)])
        problems = [why for head in heads if (why := _against(log, head, trusted))]
        return cls(
            str(path), not problems, *_head_of(log), list(log.signers), len(heads),
            log.under_way, problems,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        if not self.intact:
            return "\n".join(["NOT INTACT", *(f"  {problem}" for problem in self.problems)])
        rows = [
            f"{self.log}: {entries_text(self.size or 0)}, root {self.root}, signed by "
            + ", ".join(self.signers)
        ]
        if self.heads:
            noted = "one noted head" if self.heads == 1 else f"{self.heads} noted heads"
            rows.append(f"it goes on from {noted}")
        else:
            rows.append(
                "note: it was held against no head noted elsewhere (--head), so whoever signs it "
                "could have written it anew"
            )
        if self.under_way:
            rows.append("note: an append is under way or was interrupted; the next one mends it")
        return "\n".join(rows)


def append_bundle(path: Path, bundle: Path, signing_key: Path, trusted_keys: Path) -> Entered:
    """Enter a bundle that verifies; one that the log holds already is not entered again.

    Either way the head is signed by this key from now on, if another had signed it.

    Raises IntegrityError for a bundle or a log that does not verify, UserError for a signing key
    that is not among the trusted ones: nobody could verify what it signs.
    """
    key, trusted = load_signing_key(signing_key), load_trust(trusted_keys).keys[TRAINER]
    if key.key_id not in trusted:
        raise UserError(
            f"signing key {key.key_id}",
            f"it is not among the trusted keys in {trusted_keys}, so nobody could verify the log",
            "put its .pub file there, or give another key",
        )
    checked = verify_bundle(bundle, trusted_keys, now=datetime.now(UTC))
    if not checked.ok:
        first = checked.findings[0]
        raise IntegrityError(
            f"bundle {bundle}, {first.file} {first.where}", first.what, first.next_step
        )
    manifest = checked.manifest
    entry = entry_of(manifest, _ledger_of(bundle), manifest["files"])
    log, index, added = append(path, entry, key, trusted)
    return Entered(
        str(path), index, len(log.lines), added, log.entries[index], log.note.decode(), key.key_id,
        list(log.former),
    )  # fmt: skip


def write_proof(path: Path, bundle: Path, to: Path) -> Path:
    """Write what shows, without the log, that it holds a bundle. Signatures are for its reader."""
    if not bundle.is_dir():
        raise UserError(f"bundle {bundle}", "there is no such folder", "name a bundle's folder")
    log = read_log(path, None)
    index = log.index(release_digest(take_inventory(bundle)))
    if index is None:
        raise UserError(
            f"bundle {bundle}",
            f"log {path} has {entries_text(len(log.lines))}, and none is about it",
            f"enter it: `dpmlm log append {path} {bundle} --signing-key KEY --trusted-keys DIR`",
        )
    with atomic_write(to) as file:
        file.write(written_proof(log, index))
    return to


def _against(log: ReleaseLog, head: Path, trusted: Mapping[str, VerifyKey]) -> str | None:
    try:
        why = log.contradicts(open_checkpoint(read_head(head), trusted)[0])
    except IntegrityError as error:
        why = str(error)
    return f"{head}: {why}" if why else None


def _head_of(log: ReleaseLog) -> tuple[str, int, str]:
    head = log.head_json()
    return head["origin"], head["size"], head["root"]


def _ledger_of(bundle: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((bundle / "ledger.json").read_bytes())
    return found
