"""The log of exports: which bundle was written in clear, when, with whose key, and to where.

`exports.jsonl`, a line an export, chained by hash (`privacy.journal`), lies where it outlives the
bundle: beside the workspace, beside a registry's journal, else beside the bundle. A line is on the
disk before any weight is, so a failed export may have one too. A changed or missing line is found
from the file alone; lines cut off its end against a head noted elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpmlm.errors import IntegrityError, UserError, visible
from dpmlm.privacy.journal import GENESIS, AlreadyThere, Journal, create
from dpmlm.release.inventory import MANIFEST
from dpmlm.release.registry.history import JOURNAL

NAME = "exports.jsonl"
RECORD = "dpmlm-export.json"
"""Says in an exported folder which bundle it came from, when, and whose key opened it."""
_KIND = "export"
_REPAIR = "repair"
_WHAT = "export log"


@dataclass(frozen=True)
class Export:
    """One line of the log."""

    number: int
    """Of the line."""
    time: str
    """When, UTC."""
    release: str
    """`release_digest` of the bundle, by which log and registry name it."""
    bundle_manifest: str
    """Digest of the signed manifest of the bundle."""
    opened_by: str
    """Key id of the identity that opened it."""
    target: str
    """Name of the folder that was written, without the path to it."""


@dataclass(frozen=True)
class ExportLog:
    """A log whose chain holds."""

    path: Path
    """The file; it may be absent, and then nothing was logged."""
    exports: tuple[Export, ...]
    """Oldest first."""
    head: str
    """Number and hash of the last line, NUMBER:sha256:HASH: note it elsewhere."""

    def to_json(self) -> dict[str, Any]:
        """JSON object: the fields of `dpmlm.exports/1`."""
        exports = [dict(export.__dict__) for export in self.exports]
        return {"log": str(self.path), "head": self.head, "exports": exports}

    def text(self) -> str:
        """Lines for a terminal."""
        if not self.exports:
            return f"no export is logged in {self.path}"
        lines = [
            visible(f"{export.time}  {export.release}  by {export.opened_by}  to {export.target}")
            for export in self.exports
        ]
        return "\n".join([*lines, f"chain intact, head {self.head}"])


def log_of(bundle: Path) -> Path:
    """Where a bundle's exports are logged unless somebody names another file."""
    folder = bundle.resolve().parent
    in_workspace = (folder / "run.json").is_file()
    in_registry = (folder.parent / JOURNAL).is_file()
    return (folder.parent if in_workspace or in_registry else folder) / NAME


def log_export(path: Path, *, release: str, manifest: str, opened_by: str, target: str) -> None:
    """Append a line and wait until it is on the disk.

    Raises UserError where it cannot be written, IntegrityError where the log is broken.
    """
    fields = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "release": release,
        "bundle_manifest": manifest,
        "opened_by": opened_by,
        # A name may hold bytes that are no text.
        "target": target.encode(errors="backslashreplace").decode(),
    }
    _refuse_no_file(path)
    if not path.exists():
        try:
            return create(path, _KIND, fields, None, _WHAT)
        except AlreadyThere:  # another export began it just now
            pass

    def check(entry: dict[str, Any]) -> None:
        _check(path, entry)

    # Each line is looked at before one is added: a ledger takes none of ours.
    journal = Journal(path, check, None, _WHAT)
    with journal.exclusive():
        if not journal.length:
            raise _emptied(path)
        journal.append(_KIND, fields)


def exports_of(bundle: Path, *, log: Path | None = None, head: str | None = None) -> ExportLog:
    """The log of a bundle's exports, or the one that is named, checked as `read_exports` does.

    Raises UserError for a folder that is no bundle, and for a named log that is not there.
    """
    if log is not None:
        if not log.exists() and head is None:
            raise UserError(f"--log {log}", "there is no such file", "name the log of exports")
    elif not (bundle / MANIFEST).is_file():
        raise UserError(
            f"bundle {bundle}",
            "it is no bundle: it has no signed manifest",
            f"name the folder of a bundle; where it is gone, name its {NAME} with --log",
        )
    return read_exports(log_of(bundle) if log is None else log, head=head)


def read_exports(path: Path, *, head: str | None = None) -> ExportLog:
    """Check the log line by line and return it; `head` is one that was noted earlier.

    Raises IntegrityError with the line where the chain is broken, and where the noted line is not
    the one that stands there; UserError for what is no log of exports.
    """
    _refuse_no_file(path)
    entries: list[dict[str, Any]] = []
    try:
        if path.exists():
            entries = list(Journal(path, lambda entry: None, None, _WHAT).entries())
            if not entries:
                raise _emptied(path)
    except OSError as error:
        raise UserError(
            f"{_WHAT} {path}",
            f"it cannot be read ({error.strerror})",
            "mend its permissions, or name another file with --log",
        ) from error
    hashes = {f"{entry['number']}:{entry['hash']}" for entry in entries} | {f"0:{GENESIS}"}
    if head is not None and head not in hashes:
        raise IntegrityError(
            f"{_WHAT} {path}",
            f"the noted line {head} is not in it: lines were taken away, or others put there",
            "restore the log from a copy, and ask who could write it",
        )
    last = f"{entries[-1]['number']}:{entries[-1]['hash']}" if entries else f"0:{GENESIS}"
    exports = (_check(path, entry) for entry in entries)
    return ExportLog(path, tuple(one for one in exports if one is not None), last)


def _check(path: Path, entry: Mapping[str, Any]) -> Export | None:
    """The export that a line is about, None for a mended line; UserError for another kind."""
    try:
        if entry["kind"] == _REPAIR:
            return None
        if entry["kind"] != _KIND:
            raise KeyError(entry["kind"])
        return Export(**{name: entry[name] for name in Export.__dataclass_fields__})
    except KeyError:
        raise UserError(
            f"{_WHAT} {path}, line {entry['number']}",
            "it is the line of another kind of file",
            f"name the {NAME} that `dpmlm release export` wrote",
        ) from None


def _emptied(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{_WHAT} {path}, line 1",
        "it is empty, and a log begins with a line: its lines were taken away",
        "restore it from a copy, or move it away and keep it",
    )


def _refuse_no_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise UserError(f"{_WHAT} {path}", "it is no plain file", "name another one with --log")
