"""`TimeLimit`: a training stops when it has taken so many hours, and can go on.

It is looked at between two steps, so that no step is given up for it. What has passed depends on
the machine, and a little on which rows were drawn, as each time does (docs/claim.md): nothing is
released at a stop, and the plan, its steps and its noise stay as they are.
"""

import sys
import time

from dpmlm.errors import UserError

HOUR = 3600.0


class TimeLimit:
    """Of one training; `hours` for all of its attempts, None without a limit."""

    def __init__(self, hours: float | None, before: float) -> None:
        """`before`: seconds of the attempts that led to the checkpoint at hand.

        Raises UserError where they are over the limit: nothing is charged for nothing.
        """
        self._hours, self._before, self._begun = hours, before, time.monotonic()
        if hours is not None and before >= HOUR * hours:
            raise UserError(
                f"training.max_hours {hours:g}",
                f"this training has taken {before / HOUR:.2g} hours already",
                "raise it (no claim depends on it) and run the same command to go on",
            )

    @property
    def spent(self) -> float:
        """Seconds of all attempts."""
        return self._before + time.monotonic() - self._begun

    @property
    def reached(self) -> bool:
        """Whether it is time to stop."""
        return self._hours is not None and self.spent >= HOUR * self._hours

    @property
    def says(self) -> str:
        """For the status file."""
        return f"training.max_hours {self._hours:g} is reached: raise it to go on"

    def tell(self) -> None:
        """On standard error, as a signal's notice is."""
        print(f"\n{self.says}", file=sys.stderr, flush=True)
