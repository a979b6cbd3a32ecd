"""The release log: which releases there are, in an order that its signer cannot change unseen.

    LOG          one entry a line (`entry`), only ever appended to
    LOG.head     the signed checkpoint of all of them (`artifacts/notes.py`)
    LOG.next     for a moment: the next line, and the checkpoint that becomes the head with it
    LOG.lock     whoever appends holds it

A line that no head covers is refused, since nobody signed it; `appending` says what a kill leaves.

A log on one host can be rewritten by whoever has the host and the key: the head is to be copied
elsewhere (docs/log.md).
"""

import base64
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dpmlm.artifacts import VerifyKey
from dpmlm.artifacts.merkle import inclusion_proof, leaf_hash, root_of
from dpmlm.artifacts.notes import MAX_NOTE_BYTES, Checkpoint, open_checkpoint, parse_checkpoint
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release.log.entry import LogProof, read_entry

_RESTORE = "restore the log and its head from a copy; nothing is added to a log that does not match"
HEADLESS = "its signed head (LOG.head) is missing"
MAX_LOG_BYTES = 1 << 30
"""Over a million releases."""
MAX_PROOF_BYTES = 8 << 20
"""A checkpoint with every signature that a note may have, spelled in JSON, and more."""
_ATTEMPTS = 100
"""Looks at a log that others append to, until the head stays the same during one."""


@dataclass(frozen=True)
class ReleaseLog:
    """A log whose entries are those that its head was signed over."""

    path: Path
    lines: tuple[bytes, ...]
    """Each entry's canonical JSON, without its newline."""
    checkpoint: Checkpoint
    note: bytes
    """The signed head."""
    signers: tuple[str, ...]
    """Trusted keys that signed it; empty where no trusted keys were given."""
    former: tuple[str, ...] = ()
    """Trusted keys that had signed the head before, where an append took it over from them."""
    under_way: bool = False
    """Whether more was being written behind the head, or a kill left it there."""

    @cached_property
    def entries(self) -> tuple[dict[str, Any], ...]:
        """What the lines say."""
        return tuple(
            read_entry(line, f"log {self.path}, line {number}")
            for number, line in enumerate(self.lines, start=1)
        )

    def index(self, release: str) -> int | None:
        """Number, from 0, of the entry of a release; None if there is none."""
        places = (i for i, entry in enumerate(self.entries) if entry["release"] == release)
        return next(places, None)

    def prove(self, index: int) -> dict[str, Any]:
        """JSON object that shows to somebody without the log that it holds an entry."""
        proof = tuple(inclusion_proof(hashes(self.lines), index))
        return LogProof(self.entries[index], index, proof, self.note).to_json(len(self.lines))

    def head_json(self) -> dict[str, Any]:
        """JSON object of its head."""
        head = self.checkpoint
        root = base64.b64encode(head.root).decode()
        return {
            "origin": head.origin,
            "size": head.size,
            "root": root,
            "checkpoint": self.note.decode(),
        }

    def newest(self, name: str) -> int | None:
        """Number, from 0, of the last entry of a run's name."""
        places = [i for i, entry in enumerate(self.entries) if entry["name"] == name]
        return places[-1] if places else None

    def contradicts(self, noted: Checkpoint) -> str | None:
        """Why a checkpoint that was noted earlier is not the beginning of this log; else None."""
        size = len(self.lines)
        if noted.origin != self.checkpoint.origin:
            return (
                f"the noted head is of log {noted.origin}, this one is {self.checkpoint.origin}: "
                "another log stands in its place"
            )
        if noted.size > size:
            return (
                f"the log shrank: it has {entries_text(size)}, and had {noted.size:,} when its "
                "head was noted"
            )
        if root_of(hashes(self.lines[: noted.size])) == noted.root:
            return None
        if noted.size == size:
            return (
                f"the view is split: two heads of {entries_text(size)} were signed that do not "
                "agree, so somebody was shown another log"
            )
        return (
            f"the history was rewritten: the first {entries_text(noted.size)} are not those that "
            "the noted head was signed over"
        )


def read_log(path: Path, trusted: Mapping[str, VerifyKey] | None) -> ReleaseLog:
    """Read a log and hold it against its head; `trusted` keys (by id) may have signed that.

    Without `trusted` the signature is not looked at. Others may append meanwhile. Raises UserError
    if there is no log, IntegrityError if it is not what was signed.
    """
    path = Path(path)
    for _ in range(_ATTEMPTS):
        head, content, following = bytes_of(head_of(path)), bytes_of(path), bytes_of(next_of(path))
        if bytes_of(head_of(path)) == head:
            break
    else:
        raise UserError(f"log {path}", "others never stopped appending to it", "try it again")
    if not head and not content and not following:
        raise UserError(f"log {path}", "there is no such log", "check the path of the log")
    return read_as(path, content, head, following, trusted)


def entries_text(count: int) -> str:
    """A number of entries in words."""
    return "1 entry" if count == 1 else f"{count:,} entries"


def read_head(path: Path) -> bytes:
    """The bytes of a file that may be a signed head; UserError if there is none."""
    data = bytes_of(Path(path), "head", MAX_NOTE_BYTES)
    if not data:
        raise UserError(
            f"head {path}", "there is no such file, or it is empty", "name a noted LOG.head"
        )
    return data


@dataclass(frozen=True)
class Pending:
    """An append that was begun: LOG.next."""

    line: bytes
    """What it adds, without its newline."""
    note: bytes
    """The signed head with it."""
    checkpoint: Checkpoint

    @classmethod
    def read(cls, path: Path, data: bytes, trusted: Mapping[str, VerifyKey] | None) -> "Pending":
        """The append that `data`, of the LOG.next of `path`, holds; written whole or not at all."""
        line, _, note = data.partition(b"\n")
        return cls(line, note, opened(path, note, trusted)[0])

    def follows(self, lines: tuple[bytes, ...], now: Checkpoint | None, behind: bytes) -> bool:
        """Whether it adds its line to `lines` under head `now` (None: the log begins), and what
        stands behind them is what of that line was written."""
        origin, size = (now.origin, now.size) if now else (self.checkpoint.origin, 0)
        return (
            (self.checkpoint.origin, self.checkpoint.size) == (origin, size + 1)
            and covers(self.checkpoint, (*lines, self.line))
            and (self.line + b"\n").startswith(behind)
        )


def read_as(
    path: Path,
    content: bytes,
    head: bytes,
    following: bytes,
    trusted: Mapping[str, VerifyKey] | None,
) -> ReleaseLog:
    """The log that `head` covers; behind it at most what a begun append wrote."""
    if not head:
        if following:
            raise UserError(
                f"log {path}", "its first entry was never finished", "append to it again"
            )
        raise broken(path, HEADLESS)
    checkpoint, signers = opened(path, head, trusted)
    size = checkpoint.size
    *whole, _ = content.split(b"\n")
    if len(whole) < size:
        raise broken(path, f"it has {entries_text(len(whole))}, its head was signed over {size:,}")
    lines = tuple(whole[:size])
    if not covers(checkpoint, lines):
        raise broken(path, "its lines are not those that its head was signed over")
    behind = content[length_of(lines) :]
    if behind and not (
        following and Pending.read(path, following, trusted).follows(lines, checkpoint, behind)
    ):
        raise broken(path, f"nobody signed what stands behind line {size}")
    log = ReleaseLog(path, lines, checkpoint, head, signers, under_way=bool(following))
    _refuse_repeats(log)
    return log


def covers(checkpoint: Checkpoint, lines: tuple[bytes, ...]) -> bool:
    """Whether a checkpoint was taken of these lines."""
    return len(lines) == checkpoint.size and root_of(hashes(lines)) == checkpoint.root


def length_of(lines: tuple[bytes, ...]) -> int:
    """Bytes of lines with their newlines."""
    return sum(len(line) + 1 for line in lines)


def _refuse_repeats(log: ReleaseLog) -> None:
    """No append writes a release twice: it would make an old one look new."""
    seen: dict[str, int] = {}
    for number, entry in enumerate(log.entries, start=1):
        first = seen.setdefault(entry["release"], number)
        if first != number:
            raise broken(log.path, f"line {number} repeats the release of line {first}")


def opened(
    path: Path, note: bytes, trusted: Mapping[str, VerifyKey] | None
) -> tuple[Checkpoint, tuple[str, ...]]:
    try:
        if trusted is None:
            return parse_checkpoint(note)[0], ()
        return open_checkpoint(note, trusted)
    except IntegrityError as error:
        raise IntegrityError(f"log {path}, its head", error.rule, error.next_step) from None


def hashes(lines: tuple[bytes, ...]) -> list[bytes]:
    return [leaf_hash(line) for line in lines]


def head_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")


def next_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def bytes_of(path: Path, what: str = "log", most: int = MAX_LOG_BYTES) -> bytes:
    """What is in a plain file of at most `most` bytes; nothing for one that is not there."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
            raise UserError(f"{what} {path}", "it is no plain file", "name a file")
        if status.st_size > most:
            raise IntegrityError(
                f"{what} {path}", f"it has more than the {most:,} bytes of a {what}", "name another"
            )
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UserError(
            f"{what} {path}", f"it cannot be read ({error.strerror})", "check its path"
        ) from error


def broken(path: Path, why: str) -> IntegrityError:
    return IntegrityError(f"log {path}", why, _RESTORE)
