"""Files that appear whole or not at all.

The bytes go to a temporary file in the same folder, reach the disk, and take the final name in one
rename; then the folder entry reaches the disk too. Whatever fails on the way (a full disk, a kill)
the file that had the name before still has it, with its old bytes. Whole folders take their names
in the same way: `place_folder` where nothing has the name, `replace_folder` where another has it.

A writer holds a lock on its temporary file. One that nobody holds was left by a killed process:
the next write of the same name takes it away, and so does `sweep_temporaries`. Where the file
system has no locks nothing is taken away.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dpmlm.errors import UserError

_TEMPORARY = ".tmp"
_BUFFER_BYTES = 1 << 20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
"""What kernels, file systems (NFS) and sandboxes say that do not know the exchange."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def atomic_write(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a binary file whose content becomes `path` when the block ends without an exception.

    `mode` are the permission bits before the umask. The temporary file is removed on every error.
    Raises UserError if the folder cannot be written or the disk is full; the old file stays.
    """
    path = Path(path)
    try:
        temporary, handle = _open_temporary(path, mode)
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


class HashedFile:
    """A file that is being written, and the number and digest of the bytes that were."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self._file, self._sha256 = file, hashlib.sha256()

    @property
    def digest(self) -> str:
        """`sha256:` and the hex digest."""
        return "sha256:" + self._sha256.hexdigest()

    def write(self, data: Any, /) -> int:
        """Write bytes, all or some of them; returns how many."""
        taken = self._file.write(data)
        self._sha256.update(data[:taken])
        self.size += taken
        return taken


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries (renames, removals) to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def place_folder(draft: Path, target: Path) -> None:
    """Give a whole new folder its name, which nothing else has, and bring that to the disk.

    Everything in `draft` is on the disk already. Raises OSError where something has the name.
    """
    os.rename(draft, target)
    sync_folder(target.parent)


def replace_folder(draft: Path, target: Path) -> None:
    """Put a whole new folder where another is, if there is one, and take that one away.

    Linux exchanges the two in one step: whoever looks finds one of them. Where the kernel or the
    file system cannot, nothing has the name for a moment, and the former folder waits beside it
    for `settle_folder`. Both lie in the same folder; everything in `draft` is on the disk already.
    """
    if not os.path.lexists(target):
        place_folder(draft, target)
        return
    former = draft
    try:
        _exchange(draft, target)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:
            raise
        former = _former(target)
        _move_aside(target, former, draft)
    sync_folder(target.parent)
    _take_away(former)


def settle_folder(target: Path) -> None:
    """What a killed `replace_folder` left: the former folder gets its name back, or goes."""
    former = _former(target)
    if os.path.lexists(former) and not os.path.lexists(target):
        place_folder(former, target)
    _take_away(former)


def _former(target: Path) -> Path:
    return target.with_name(f"{target.name}.former")


def _move_aside(target: Path, former: Path, draft: Path) -> None:
    os.rename(target, former)
    try:
        os.rename(draft, target)
    except OSError:
        os.rename(former, target)
        raise


def _exchange(one: Path, other: Path) -> None:
    """Let two names change places in one step. Raises OSError, ENOSYS where nobody can."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def _take_away(path: Path) -> None:
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def sweep_temporaries(folder: Path) -> None:
    """Remove temporary files that killed processes left in `folder`; those in use stay."""
    for leftover in folder.glob(f".*{_TEMPORARY}"):
        _remove_abandoned(leftover)


def _open_temporary(path: Path, mode: int) -> tuple[Path, int]:
    """A new file beside `path`, locked by this process."""
    usual = path.with_name(f".{path.name}{_TEMPORARY}")
    _remove_abandoned(usual)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        temporary = usual
        try:
            handle = os.open(temporary, flags, mode)
        except FileExistsError:  # another writer of this name is at work
            temporary = usual.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY}")
            handle = os.open(temporary, flags, mode)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return temporary, handle
        os.close(handle)  # somebody swept it before it was locked


def _remove_abandoned(temporary: Path) -> None:
    """Remove a temporary file unless a writer holds it, or it cannot be said whether one does."""
    with contextlib.suppress(OSError):
        handle = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(temporary)
        finally:
            os.close(handle)


def _not_written(path: Path, error: OSError) -> UserError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return UserError(
        str(path),
        f"could not be written ({reason})",
        "make room or choose another folder and repeat; what was there before is untouched",
    )
