"""Progress on standard error: bars on a terminal, one line a stage elsewhere.

Counts of private documents appear on a terminal alone; a log file gets names and times.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

Report = Callable[[int, int], None]
"""Called with (done, total)."""


class Progress:
    """Where a run says what it is doing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    def say(self, line: str) -> None:
        """One line with the time since the start; never private figures."""
        if not self._quiet:
            elapsed = time.monotonic() - self._started
            self._console.print(f"{elapsed:7.1f}s  {line}", markup=False)

    @contextmanager
    def bar(self, name: str) -> Iterator[Report]:
        """A bar for one piece of work."""
        if self._quiet or not self._console.is_terminal:
            yield self._plain(name)
            return
        columns = (
            TextColumn("          {task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(name, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)

    def _plain(self, name: str) -> Report:
        """Without a terminal: a percentage every half minute, and no counts."""
        last = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal last
            if total and time.monotonic() - last >= 30:
                last = time.monotonic()
                self.say(f"{name} {100 * done // total} %")

        return report
