"""SIGINT and SIGTERM as a request to stop at the next safe place."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

REPEAT_SECONDS = 60.0
"""For so long a SIGTERM after the first signal is a copy of it: Slurm signals every process of a
step, and torchrun passes its own signal on to each of them as well."""

_NOTICE = "\n{}: stopping after the rows in hand; run the same command to resume\n"


class Interrupted(SystemExit):
    """The process was asked to stop and did, resumably; exit status is 128 + signal.

    A `SystemExit` and no `KeyboardInterrupt`: command line libraries answer the latter with a
    status of their own.
    """

    def __init__(self, signum: int, why: str = "a signal") -> None:
        super().__init__(128 + signum)
        self.signum, self.why = signum, why


class StopRequest:
    """Set by a signal; looked at before each physical batch and after each step."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a `StopRequest`.

    A second SIGINT stops at once, without a checkpoint, and so does a SIGTERM that comes
    `REPEAT_SECONDS` after the first signal; one that comes sooner is no second request.
    Outside the main thread, where Python allows no handlers, the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    asked = 0.0

    def note(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if request:
            if signum == signal.SIGTERM and time.monotonic() - asked < REPEAT_SECONDS:
                return
            raise Interrupted(signum)
        request.signum, asked = signum, time.monotonic()
        # No print: a handler may run in the middle of another write to the same buffer.
        with suppress(OSError):
            os.write(2, _NOTICE.format(signal.Signals(signum).name).encode())

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
