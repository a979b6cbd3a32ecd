"""SIGINT and SIGTERM as a request to stop at the next safe place."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_NOTICE = "\n{}: stopping after this step; run the same command to resume\n"


class Interrupted(SystemExit):
    """The process was asked to stop and did, resumably; exit status is 128 + signal.

    A `SystemExit` and no `KeyboardInterrupt`: command line libraries answer the latter with a
    status of their own.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


class StopRequest:
    """Set by a signal, looked at between steps."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a `StopRequest`; a second signal stops at once.

    Outside the main thread, where Python allows no handlers, the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(signum: int, frame: FrameType | None) -> None:
        if request:
            raise Interrupted(signum)
        request.signum = signum
        # No print: a handler may run in the middle of another write to the same buffer.
        with suppress(OSError):
            os.write(2, _NOTICE.format(signal.Signals(signum).name).encode())

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
