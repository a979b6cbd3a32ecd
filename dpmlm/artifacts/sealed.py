"""One sealed file, NAME, and who can open it beside it, NAME.recipients."""

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from dpmlm.artifacts.atomic import atomic_write
from dpmlm.artifacts.chunks import KEY_BYTES, SealedReader, SealedWriter
from dpmlm.artifacts.identities import Identity, Recipient
from dpmlm.artifacts.recipients import WrappedKey
from dpmlm.errors import UserError

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

    Writes `target` and `target` + ".recipients". Both are complete on the disk before either takes
    its name, so a full disk leaves an earlier pair as it was; a kill between the two renames
    leaves a pair that does not open. Raises UserError for recipients that cannot be used.
    """
    target = Path(target)
    input_key = secrets.token_bytes(KEY_BYTES)
    wrapped = WrappedKey.wrap(input_key, recipients, label=_LABEL, context=context)
    with atomic_write(target) as payload, atomic_write(_beside(target)) as listing:
        writer = SealedWriter(payload, input_key, context=context)
        _copy(source, writer)
        writer.finish()
        payload.flush()
        os.fsync(payload.fileno())
        listing.write(wrapped.to_bytes())


def open_sealed(path: Path, identities: Sequence[Identity], *, context: bytes) -> SealedReader:
    """A seekable plaintext reader of what `seal` wrote.

    Raises UserError if a file is missing or no identity is a recipient, IntegrityError (with file
    and place) if bytes were changed or the context is another one.
    """
    path = Path(path)
    beside = _beside(path)
    wrapped = WrappedKey.parse(read_whole(beside), name=str(beside))
    input_key = wrapped.unwrap(identities, context=context, name=str(beside))
    return open_reader(path, input_key, context=context)


def open_reader(path: Path, input_key: bytes, *, context: bytes) -> SealedReader:
    """Open one encrypted file under a known input key; the file is closed again on an error."""
    try:
        raw = open(path, "rb", buffering=0)  # noqa: SIM115  (the reader closes it)
    except OSError as error:
        raise missing(path, error) from error
    try:
        return SealedReader(raw, input_key, context=context, name=str(path))
    except BaseException:
        raw.close()
        raise


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


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".recipients")
