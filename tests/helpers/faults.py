"""Makes the n-th call that changes a disk fail, or makes it the last thing a process does.

`Faults(n, "kill")` ends the work before the n-th call: from then on nothing reaches the disk, as
after SIGKILL, though the same process goes on to look at what is left. "torn" is a kill in the
middle of a write. "EIO" and "ENOSPC" let that one call fail and the next ones work. What files
opened with `os.fdopen` write is counted call by call.
"""

import errno
import io
import os
from typing import Any
from unittest import mock

from dpmlm.artifacts import atomic
from dpmlm.privacy import journal

CALLS = (
    "open", "write", "fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "ftruncate",
)  # fmt: skip
MODES = ("kill", "torn", "EIO", "ENOSPC")


class Killed(BaseException):
    """The process would be gone here."""


class Faults:
    """Use as a context manager around the work; `calls` names what was counted so far."""

    def __init__(self, nth: int = 0, mode: str = "kill", *, real: bool = False) -> None:
        """`real` sends this process SIGKILL: for a child that was forked for it."""
        self.nth, self.mode, self.real = nth, mode, real
        self.calls: list[str] = []
        self.dead = False
        self._true = {name: getattr(os, name) for name in (*CALLS, "fdopen")}
        self._true["exchange"] = atomic._exchange
        self._patches = [
            *(mock.patch.object(os, name, self._watched(name)) for name in CALLS),
            mock.patch.object(os, "fdopen", self._fdopen),
            mock.patch.object(atomic, "_exchange", self._watched("exchange")),
            mock.patch.object(journal, "_sync", lambda handle: os.fsync(handle)),
        ]

    def __enter__(self) -> "Faults":
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        for patch in self._patches:
            patch.stop()

    @property
    def reached(self) -> bool:
        return len(self.calls) >= self.nth

    def _watched(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            changes = name != "open" or arguments[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
            if changes:
                self._count(name, arguments)
            if name == "fsync":  # nobody cuts the power here, and waiting is slow
                return None
            return self._true[name](*arguments, **named)

        return call

    def _count(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.dead:
            raise Killed
        self.calls.append(name)
        if len(self.calls) != self.nth:
            return
        if self.mode in ("EIO", "ENOSPC"):
            number = getattr(errno, self.mode)
            raise OSError(number, os.strerror(number))
        if self.mode == "torn" and name == "write":
            self._true["write"](arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
        if self.real:
            os.kill(os.getpid(), 9)
        self.dead = True
        raise Killed

    def _fdopen(self, handle: int, mode: str, buffering: int = -1) -> Any:
        if mode != "wb":
            return self._true["fdopen"](handle, mode, buffering)
        return io.BufferedWriter(_Watched(handle, self), buffering)


class _Watched(io.RawIOBase):
    """A file whose every write goes through `os.write`."""

    def __init__(self, handle: int, faults: Faults) -> None:
        super().__init__()
        self._handle, self._faults = handle, faults

    def fileno(self) -> int:
        return self._handle

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._faults.dead:  # what is still in a buffer goes with its process
            return len(data)
        return os.write(self._handle, data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._handle)
