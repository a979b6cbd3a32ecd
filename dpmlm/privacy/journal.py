"""`Journal`: an append-only file of JSON lines, chained by hash, durable before it answers.

One line is the canonical JSON of an object that holds its number, what happened, the hash of the
line before, and its own hash over all of that; a signed journal adds a signature of everything but
the hash. So a changed byte anywhere is found from the file alone, with its line. Lines cut off at
the end are not: for that, copy the head elsewhere and hand it to `Ledger.verify`.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from dpmlm.canonical import canonical_json, digest
from dpmlm.errors import IntegrityError, UserError

GENESIS = "sha256:" + "0" * 64
LOCK_SECONDS = 60.0
_SIGNING = b"dpmlm.privacy.journal/1\0"
_sync = getattr(os, "fdatasync", os.fsync)


class Signer(Protocol):
    """A signing key: Ed25519 in `dpmlm.artifacts`."""

    @property
    def key_id(self) -> str: ...

    def sign(self, data: bytes, /) -> bytes: ...


class Verifier(Protocol):
    """The public half of a signing key."""

    def verify(self, signature: bytes, data: bytes, /) -> bool: ...


class Journal:
    """Reads new lines as others append them, and appends under a file lock.

    `apply` is called once for each entry, in order, and may raise to refuse a file. `what` the file
    is stands in messages.
    """

    def __init__(
        self,
        path: Path,
        apply: Callable[[dict[str, Any]], None],
        signer: Signer | None,
        what: str = "ledger",
        *,
        shared: bool = False,
    ) -> None:
        """`shared` journals are written under several keys, any of which may mend a torn line."""
        self.path = path
        self.name = f"{what} {path}"
        self.signer = signer
        self.head = GENESIS
        self.length = 0
        self._apply = apply
        self._offset = 0
        self._key_id: str | None = None
        self._shared = shared
        self._lock = FileLock(f"{path}.lock", timeout=LOCK_SECONDS)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the file alone, with every line of others read and a torn last line mended."""
        try:
            self._lock.acquire(poll_interval=0.005)
        except Timeout:
            raise UserError(
                self.name,
                f"another process held its lock for {LOCK_SECONDS:.0f} seconds",
                "wait for it, or end it",
            ) from None
        except OSError as error:
            raise _cannot_write(self.name, error) from error
        try:
            tail = self._read_new()
            if tail:
                self._mend(tail)
            yield
        finally:
            self._lock.release()

    def refresh(self) -> None:
        """Read what others appended; takes the lock when the last line is not whole."""
        if self._read_new():
            with self.exclusive():
                pass

    def append(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Write one entry and wait until it is on the disk; only inside `exclusive`.

        Raises UserError when the disk does not take it, and what `apply` raises where it refuses
        the entry: later readers would refuse the file. The file is then as it was.
        """
        body = {"kind": kind, "number": self.length + 1, "previous": self.head, **fields}
        if self.signer is not None:
            body["key_id"] = self.signer.key_id
            body["signature"] = self.signer.sign(_SIGNING + canonical_json(body)).hex()
        body["hash"] = digest(body)
        line = canonical_json(body) + b"\n"
        self._write(line)
        try:
            self._take(body)
        except Exception:
            self._offset -= len(line)
            with self.path.open("r+b") as file:
                file.truncate(self._offset)
                os.fsync(file.fileno())
            raise

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every entry, read again from the first byte and checked."""
        head = GENESIS
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                entry = _parse(self.name, line, number, head)
                head = entry["hash"]
                yield entry

    def _read_new(self) -> bytes:
        """Apply the whole lines that are new; returns what follows the last newline."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    raise IntegrityError(
                        f"{self.name}, line {self.length}",
                        "the file became shorter than it was",
                        "restore the whole file",
                    )
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        return line
                    self._take(_parse(self.name, line, self.length + 1, self.head))
                    self._offset += len(line)
        except OSError as error:
            raise UserError(
                self.name, f"it cannot be read ({error.strerror})", "check its path"
            ) from error
        return b""

    def _take(self, entry: dict[str, Any]) -> None:
        self._apply(entry)
        self.head, self.length = entry["hash"], entry["number"]
        self._key_id = entry.get("key_id")

    def _write(self, line: bytes) -> None:
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            raise _cannot_write(self.name, error) from error
        try:
            written = os.write(handle, line)
            if written != len(line):
                raise OSError(28, "No space left on device")
            _sync(handle)
        except OSError as error:
            os.ftruncate(handle, self._offset)
            raise _cannot_write(self.name, error) from error
        finally:
            os.close(handle)
        self._offset += len(line)

    def _mend(self, tail: bytes) -> None:
        """Complete or remove an incomplete last line, and record that.

        A line is torn by a power cut before its writer was answered, so nothing was drawn for it.
        Of a signed file that is for somebody with its key: who only reads leaves it as it is.
        """
        ours = self.signer.key_id if self.signer else None
        if self._key_id != ours and not (self._shared and ours):
            return
        if not self.length:
            # A ledger appears with its first line whole, so this file never was one.
            raise _broken(self.name, 1, "the line is incomplete")
        text = tail.rstrip(b"\0")
        if not _is_torn(text):
            raise _broken(self.name, self.length + 1, "the last line does not end where it should")
        whole = _complete(text)
        with self.path.open("r+b") as file:
            file.truncate(self._offset + (len(text) if whole else 0))
            if whole:
                file.seek(0, os.SEEK_END)
                file.write(b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._read_new()
        self.append("repair", {"bytes": len(tail), "kept": whole})


class AlreadyThere(UserError):
    """Another file has the name of a journal that was to be made."""


def create(
    path: Path,
    kind: str,
    fields: Mapping[str, Any],
    signer: Signer | None,
    what: str = "ledger",
) -> None:
    """A new file with one entry, whole or not at all.

    Raises AlreadyThere when it exists, UserError when it cannot be made durable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    draft.write_bytes(b"")
    try:
        Journal(draft, lambda entry: None, signer, what).append(kind, fields)
        os.link(draft, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except FileExistsError:
        raise AlreadyThere(
            f"{what} {path}", "it is already registered", "open it, or choose another path"
        ) from None
    except OSError as error:
        raise _cannot_write(f"{what} {path}", error) from error
    finally:
        draft.unlink(missing_ok=True)


def check_signature(name: str, entry: Mapping[str, Any], trusted: Mapping[str, Verifier]) -> None:
    """Raises IntegrityError, naming the journal, unless a trusted key signed the entry."""
    body = {key: value for key, value in entry.items() if key not in ("hash", "signature")}
    key = trusted.get(str(entry.get("key_id")))
    if key is None:
        raise _broken(name, entry["number"], f"signer {entry.get('key_id')} is not trusted")
    try:
        signature = bytes.fromhex(str(entry.get("signature")))
    except ValueError:
        signature = b""
    if not key.verify(signature, _SIGNING + canonical_json(body)):
        raise _broken(name, entry["number"], "its signature does not verify")


def _parse(name: str, line: bytes, number: int, head: str) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise _broken(name, number, "the line is incomplete")
    try:
        entry = json.loads(line)
        hash_of_body = digest({key: value for key, value in entry.items() if key != "hash"})
        canonical = canonical_json(entry) + b"\n" == line
    except (ValueError, AttributeError, RecursionError):
        raise _broken(name, number, "it is not a JSON object") from None
    if not canonical:
        raise _broken(name, number, "it is not spelled canonically")
    if entry.get("hash") != hash_of_body:
        raise _broken(name, number, "its content does not match its hash")
    if entry.get("previous") != head or entry.get("number") != number:
        raise _broken(name, number, "it does not follow the line before")
    return entry


def _complete(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_torn(text: bytes) -> bool:
    """Whether `text` could be the beginning of a line: nothing follows its object."""
    try:
        _, end = json.JSONDecoder().raw_decode(text.decode())
    except RecursionError:
        return False
    except ValueError:
        return text == b"" or text.startswith(b"{")
    return end == len(text.decode())


def _broken(name: str, number: int, why: str) -> IntegrityError:
    return IntegrityError(
        f"{name}, line {number}",
        f"the chain is broken: {why}",
        "restore the file from a copy; nothing is added to a broken chain",
    )


def _cannot_write(name: str, error: OSError) -> UserError:
    return UserError(
        name,
        f"it cannot be written ({error.strerror})",
        "free space or mend its permissions, then run again",
    )
