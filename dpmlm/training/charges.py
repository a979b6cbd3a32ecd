"""Who is charged for a step: the ledger of a private corpus, or nobody for public text."""

from typing import Protocol

from dpmlm.privacy import Ledger, PrivacyPlan


class Charges(Protocol):
    """Called in this order: `begin` once an attempt (`take_over` where its training was finished
    before), `charge` before each draw, `keep` after each checkpoint, `forgo` where a training ends
    early, `commit` once."""

    def begin(self, from_step: int, from_attempt: int) -> int:
        """Open an attempt that goes on from so many steps of an earlier one, and return its number.
        Without a checkpoint both are 0."""
        ...

    def take_over(self, attempt: int, steps: int) -> int:
        """The attempt that commits what `attempt` finished and could not: that one, or a new one
        where another was begun since."""
        ...

    def charge(self, attempt: int, step: int) -> None:
        """Record, durably, that a step is about to be drawn."""
        ...

    def keep(self, attempt: int, steps: int) -> None:
        """Record, durably, that a result of the first `steps` steps can be seen."""
        ...

    def forgo(self, attempt: int) -> None:
        """Charge what is left of the plan, which nobody draws any more."""
        ...

    def commit(self, attempt: int, steps: int) -> None:
        """Record that `steps` steps are in the finished model."""
        ...


class LedgerCharges:
    """Charges one reserved run of a ledger."""

    def __init__(self, ledger: Ledger, run_id: str, plan: PrivacyPlan) -> None:
        self._ledger, self._run_id, self._plan = ledger, run_id, plan

    def begin(self, from_step: int, from_attempt: int) -> int:
        self._ledger.reserve(self._run_id, self._plan)
        return self._ledger.begin_attempt(self._run_id, from_step, from_attempt)

    def take_over(self, attempt: int, steps: int) -> int:
        return self._ledger.take_over(self._run_id, attempt, steps)

    def charge(self, attempt: int, step: int) -> None:
        self._ledger.charge(self._run_id, attempt, step)

    def keep(self, attempt: int, steps: int) -> None:
        self._ledger.keep(self._run_id, attempt, steps)

    def forgo(self, attempt: int) -> None:
        self._ledger.forgo(self._run_id, attempt)

    def commit(self, attempt: int, steps: int) -> None:
        self._ledger.commit(self._run_id, steps, attempt)


class PublicText:
    """No ledger: for the control, which sees declared public text and canaries alone."""

    def begin(self, from_step: int, from_attempt: int) -> int:
        return 1

    def take_over(self, attempt: int, steps: int) -> int:
        return attempt

    def charge(self, attempt: int, step: int) -> None:
        return None

    def keep(self, attempt: int, steps: int) -> None:
        return None

    def forgo(self, attempt: int) -> None:
        return None

    def commit(self, attempt: int, steps: int) -> None:
        return None
