"""One sealed file, NAME, and who can open it beside it, NAME.recipients.

The recipients' list says in clear, as its label, which payload it is about (its salt). A new list
waits as NAME.recipients.next until its payload has taken the name: whatever is killed in between,
the payload that stands there has its own list, and the next `seal` tidies up. Lists of earlier
versions have the label `file` alone.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from dpmlm.artifacts.atomic import atomic_write, sync_folder
from dpmlm.artifacts.chunks import KEY_BYTES, SALT_BYTES, SealedReader, SealedWriter
from dpmlm.artifacts.identities import Identity, Recipient
from dpmlm.artifacts.recipients import WrappedKey
from dpmlm.errors import IntegrityError, UserError

_LABEL = "file"
_COPY_BYTES = 1 << 20


def seal(
    source: bytes | Path | BinaryIO,
    target: Path,
    recipients: Sequence[Recipient],
    *,
    context: bytes,
) -> None:
    """Encrypt `source` to `target` for `recipients`; `context` must be given again to open it.

    Writes `target` and `target` + ".recipients". A full disk or a kill at any moment leaves the
    earlier pair or the new one. Raises UserError for recipients that cannot be used.
    """
    target = Path(target)
    input_key = secrets.token_bytes(KEY_BYTES)
    _settle(target)
    try:
        with atomic_write(target) as payload:
            writer = SealedWriter(payload, input_key, context=context)
            wrapped = WrappedKey.wrap(
                input_key, recipients, label=_label(writer.salt), context=context
            )
            _copy(source, writer)
            writer.finish()
            payload.flush()
            os.fsync(payload.fileno())
            with atomic_write(_next(target)) as listing:
                listing.write(wrapped.to_bytes())
    finally:
        _settle(target)


def open_sealed(path: Path, identities: Sequence[Identity], *, context: bytes) -> SealedReader:
    """A seekable plaintext reader of what `seal` wrote.

    Raises UserError if a file is missing or no identity is a recipient, IntegrityError (with file
    and place) if bytes were changed or the context is another one.
    """
    path = Path(path)
    try:
        return _open_pair(path, identities, context)
    except IntegrityError:
        # Where another process replaced the pair meanwhile, the second look finds the new one.
        return _open_pair(path, identities, context)


def _open_pair(path: Path, identities: Sequence[Identity], context: bytes) -> SealedReader:
    raw = _open(path)
    try:
        place, wrapped = _listing(path, raw.read(SALT_BYTES))
        input_key = wrapped.unwrap(identities, context=context, name=str(place))
        return SealedReader(raw, input_key, context=context, name=str(path))
    except BaseException:
        raw.close()
        raise


def is_sealed(path: Path) -> bool:
    """Whether `path` is a file that `seal` wrote, judging by the list beside it."""
    return path.is_file() and (recipients_beside(path).is_file() or _next(path).is_file())


def listing_of(path: Path) -> tuple[Path, WrappedKey]:
    """The recipients' list of the payload at `path`, and where it is now."""
    with _open(path) as raw:
        return _listing(path, raw.read(SALT_BYTES))


def _listing(path: Path, salt: bytes) -> tuple[Path, WrappedKey]:
    """The recipients' list of the payload with this salt, and where it is."""
    found = []
    for place in (recipients_beside(path), _next(path)):
        if place.exists():
            wrapped = WrappedKey.parse(read_whole(place), name=str(place))
            if wrapped.label == _label(salt):
                return place, wrapped
            found.append((place, wrapped))
    if not found or found[0][0] != recipients_beside(path):
        read_whole(recipients_beside(path))  # says that it is missing
    return found[0]  # an earlier version's, or not this payload's: then it does not open


def _settle(target: Path) -> None:
    """Put a list that waits for its payload in its place, or take it away if that never came."""
    waiting = _next(target)
    if not waiting.exists():
        return
    with contextlib.suppress(IntegrityError, FileNotFoundError):
        if settle_listing(target):
            return
    waiting.unlink(missing_ok=True)
    sync_folder(target.parent)


def settle_listing(path: Path) -> bool:
    """Put the list that waits for the payload at `path` in its place; any other goes on waiting.

    Returns whether one was put there.
    """
    waiting = _next(path)
    if not waiting.exists():
        return False
    wrapped = WrappedKey.parse(read_whole(waiting), name=str(waiting))
    with open(path, "rb") as payload:
        if wrapped.label != _label(payload.read(SALT_BYTES)):
            return False
    os.replace(waiting, recipients_beside(path))
    sync_folder(path.parent)
    return True


def _label(salt: bytes) -> str:
    return f"{_LABEL} {salt.hex()}"


def open_reader(path: Path, input_key: bytes, *, context: bytes) -> SealedReader:
    """Open one encrypted file under a known input key; the file is closed again on an error."""
    raw = _open(path)
    try:
        return SealedReader(raw, input_key, context=context, name=str(path))
    except BaseException:
        raw.close()
        raise


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise missing(path, error) from error


def read_whole(path: Path) -> bytes:
    """The bytes of a small file; UserError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise missing(path, error) from error


def missing(path: Path, error: OSError) -> UserError:
    """What a caller is told when a sealed file cannot be opened at all."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return UserError(
        str(path), f"it cannot be read ({reason})", "check the path, or restore it from a copy"
    )


def _copy(source: bytes | Path | BinaryIO, writer: SealedWriter) -> None:
    if isinstance(source, bytes | bytearray | memoryview):
        writer.write(source)
    elif isinstance(source, Path):
        with open(source, "rb") as file:
            shutil.copyfileobj(file, writer, _COPY_BYTES)
    else:
        shutil.copyfileobj(source, writer, _COPY_BYTES)


def recipients_beside(path: Path) -> Path:
    """Where the recipients' list of a sealed file has its place."""
    return path.with_name(path.name + ".recipients")


def _next(path: Path) -> Path:
    return path.with_name(path.name + ".recipients.next")
