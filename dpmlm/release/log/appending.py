"""Adding a release to the log, whole or not at all.

An append leaves its line and the next head, signed, in LOG.next; then it writes the line, then the
head. So a kill at any moment leaves a log that its head covers, and an append that the next one
finishes: a head that was signed is never taken back, as two that disagree would be a split view.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dpmlm.artifacts import SigningKey, VerifyKey, atomic_write, canonical_json
from dpmlm.artifacts.atomic import sync_folder
from dpmlm.artifacts.merkle import root_of
from dpmlm.artifacts.notes import Checkpoint
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release.inventory import ATTESTATIONS, take_inventory
from dpmlm.release.log.entry import LogProof, entry_of, read_entry
from dpmlm.release.log.reading import (
    MAX_PROOF_BYTES,
    Pending,
    ReleaseLog,
    broken,
    bytes_of,
    entries_text,
    hashes,
    head_of,
    length_of,
    next_of,
    read_as,
    read_log,
)

LOCK_SECONDS = 60.0
PROOF_FILE = f"{ATTESTATIONS}/log.json"
"""Where a bundle keeps the proof that a log holds it."""


def log_release(
    bundle: Path,
    manifest: Mapping[str, Any],
    ledger: Mapping[str, Any],
    log: Path,
    key: SigningKey,
) -> None:
    """Enter a bundle that is about to be signed, and leave the log's proof in it.

    Its `manifest` is not signed yet, so that it can cover the proof. An entry whose bundle never
    came, after a kill in between, harms nobody: the next attempt makes another release.
    """
    entry = entry_of(manifest, ledger, take_inventory(bundle))
    entered, index, _ = append(log, entry, key, {key.key_id: key.verify_key})
    (bundle / ATTESTATIONS).mkdir(exist_ok=True)
    _put(bundle / PROOF_FILE, written_proof(entered, index))


def written_proof(log: ReleaseLog, index: int) -> bytes:
    """A proof as it stands in its file."""
    text = json.dumps(log.prove(index), indent=2, sort_keys=True, ensure_ascii=False)
    return (text + "\n").encode()


def append(
    path: Path, entry: Mapping[str, Any], key: SigningKey, trusted: Mapping[str, VerifyKey]
) -> tuple[ReleaseLog, int, bool]:
    """Add an entry and sign the new head, on the disk before this returns.

    Returns the log, the entry's number from 0, and whether it is new. A release that the log holds
    already is not added again; only the head is signed, if another of the `trusted` keys had.
    Without a file a new log begins. Raises IntegrityError for a log that does not match its head,
    UserError for one that cannot be written.
    """
    path, line = Path(path), _line(entry)
    with _locked(path):
        log = _recovered(path, trusted)
        lines = log.lines if log else ()
        origin = log.checkpoint.origin if log else f"dpmlm-log/{secrets.token_hex(8)}"
        known = log.index(str(entry["release"])) if log else None
        if log and known is not None and key.key_id in log.signers:
            return log, known, False
        if known is None:
            lines = (*lines, line)
        checkpoint = Checkpoint(origin, len(lines), root_of(hashes(lines)))
        note = checkpoint.sign([key])
        if known is None:
            _put(next_of(path), line + b"\n" + note)
            _finish(path, lines, note)
        else:
            _put(head_of(path), note)
        index = len(lines) - 1 if known is None else known
        former = log.signers if log and key.key_id not in log.signers else ()
        entered = ReleaseLog(path, lines, checkpoint, note, (key.key_id,), former)
        return entered, index, known is None


def _line(entry: Mapping[str, Any]) -> bytes:
    try:
        line = canonical_json(entry)
        read_entry(line, "log entry")
    except (ValueError, IntegrityError):
        raise UserError(
            f"release {entry.get('release')}",
            "what a log says of a release is printable ASCII: its run has another name",
            "leave release.log out, or rename the run",
        ) from None
    return line


def check_log(path: Path, trusted: Mapping[str, VerifyKey], earlier: Path | None = None) -> None:
    """Raise the UserError that `append` would raise now; a log that is not there yet is fine.

    Not so where `earlier`, a bundle, holds a proof of a log: this one has to go on from that head,
    or a second head of its size would be signed.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UserError(f"log {path}", "it is no file", "name a file (release.log)")
    if bytes_of(head_of(path)) or (bytes_of(path) and not bytes_of(next_of(path))):
        read_log(path, trusted)
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise UserError(
            f"log {path}", "it cannot be written", "mend its permissions, or name another file"
        )
    if earlier is not None:
        _refuse_put_back(path, trusted, earlier)


def _refuse_put_back(path: Path, trusted: Mapping[str, VerifyKey], earlier: Path) -> None:
    """A log that is gone, or older than a bundle's proof, is not what the bundle was entered in."""
    try:
        # Whoever signed it: a log may have been handed over to another key since.
        data = bytes_of(earlier / PROOF_FILE, "proof", MAX_PROOF_BYTES)
        noted = LogProof.read(data, None)[1]
    except IntegrityError:
        return  # no proof, or a damaged bundle: it is made again
    if bytes_of(path) or bytes_of(head_of(path)):
        why = read_log(path, trusted).contradicts(noted)
    else:
        why = f"it is missing, though it had {entries_text(noted.size)}"
    if why:
        raise UserError(
            f"log {path} beside {earlier / PROOF_FILE}",
            why,
            "restore the log and its head from a copy; to begin another log on purpose, move "
            f"{earlier} away first",
        )


def _recovered(path: Path, trusted: Mapping[str, VerifyKey]) -> ReleaseLog | None:
    """The log, an append that was killed in it finished; None for one yet to begin."""
    content, head, following = bytes_of(path), bytes_of(head_of(path)), bytes_of(next_of(path))
    if following:
        pending = Pending.read(path, following, trusted)
        log = read_as(path, content, head, following, trusted) if head else None
        if log is None or log.checkpoint != pending.checkpoint:
            lines, now = (log.lines, log.checkpoint) if log else ((), None)
            if not pending.follows(lines, now, content[length_of(lines) :]):
                raise broken(path, "the append in LOG.next does not go on from its head")
            _finish(path, (*lines, pending.line), pending.note)
        else:  # its head is in its place already
            _remove(next_of(path))
        content, head = bytes_of(path), bytes_of(head_of(path))
    return read_as(path, content, head, b"", trusted) if content or head else None


def _finish(path: Path, lines: tuple[bytes, ...], note: bytes) -> None:
    """Write the last of `lines`, or what is missing of it, then its head."""
    _write(path, lines[-1] + b"\n", length_of(lines[:-1]))
    _put(head_of(path), note)
    _remove(next_of(path))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the log alone."""
    lock = FileLock(f"{path}.lock", timeout=LOCK_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(poll_interval=0.01)
    except Timeout:
        raise UserError(
            f"log {path}",
            f"another process held its lock for {LOCK_SECONDS:.0f} seconds",
            "wait for that run, or end it",
        ) from None
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _put(path: Path, data: bytes) -> None:
    with atomic_write(path) as file:
        file.write(data)


def _write(path: Path, line: bytes, size: int) -> None:
    """Put a line behind the first `size` bytes and wait for the disk; on an error they are all."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        os.ftruncate(handle, size)  # of a line that was torn
        if os.write(handle, line) != len(line):
            raise OSError(28, os.strerror(28))
        os.fsync(handle)
    except OSError as error:
        os.ftruncate(handle, size)
        raise cannot_write(path, error) from error
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"log {path}",
        f"it cannot be written ({error.strerror})",
        "free space or mend its permissions, then run again",
    )
