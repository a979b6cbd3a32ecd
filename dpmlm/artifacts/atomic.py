"""Files that appear whole or not at all.

The bytes go to a temporary file in the same folder, reach the disk, and take the final name in one
rename; then the folder entry reaches the disk too. Whatever fails on the way (a full disk, a kill)
the file that had the name before still has it, with its old bytes.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dpmlm.errors import UserError

_TEMPORARY = ".tmp"
_BUFFER_BYTES = 1 << 20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def atomic_write(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a binary file whose content becomes `path` when the block ends without an exception.

    `mode` are the permission bits before the umask. The temporary file is removed on every error.
    Raises UserError if the folder cannot be written or the disk is full; the old file stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        with os.fdopen(handle, "wb", _BUFFER_BYTES) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise _not_written(path, error) from error
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries (renames, removals) to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_temporaries(folder: Path) -> None:
    """Remove temporary files that a killed process left in `folder`; no writer may be at work."""
    for leftover in folder.glob(f".*{_TEMPORARY}"):
        leftover.unlink(missing_ok=True)


def _not_written(path: Path, error: OSError) -> UserError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return UserError(
        str(path),
        f"could not be written ({reason})",
        "make room or choose another folder and repeat; what was there before is untouched",
    )
