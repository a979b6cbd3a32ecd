"""`Balance`: what the entries of a ledger add up to."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.filter import RenyiFilter
from dpmlm.privacy.plan import PrivacyPlan

_KINDS = ("register", "reserve", "attempt", "charge", "commit", "spend", "repair")


@dataclass
class Run:
    """One reservation and what was charged to it."""

    plan: PrivacyPlan
    """As reserved."""
    divergence: float
    """Of one step, at the ledger's order."""
    attempts: int = 0
    """Number of the latest attempt."""
    last_step: int = -1
    """Last step that the latest attempt charged."""
    charged: int = 0
    """Charges of all attempts."""
    steps: set[int] = field(default_factory=set)
    """Different steps among them."""
    commits: list[tuple[int, int]] = field(default_factory=list)
    """Attempt and number of steps of each commit."""

    @property
    def billed(self) -> int:
        """Steps that count against the cap."""
        return max(self.plan.steps, self.charged)

    @property
    def committed(self) -> int:
        """Steps whose result may have left the run: all charged ones if it was committed twice."""
        if len(set(self.commits)) > 1:
            return self.charged
        return self.commits[0][1] if self.commits else 0


class Balance:
    """The cap, the runs and the other mechanisms of one ledger."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cap: RenyiFilter
        self.corpus = ""
        self.key_id: str | None = None
        self.runs: dict[str, Run] = {}
        self.other_divergence = 0.0
        self.other_delta = 0.0
        self.others = 0

    def apply(self, entry: dict[str, Any]) -> None:
        """Take in one entry. Raises IntegrityError when it makes no sense where it stands."""
        try:
            if (entry["kind"] == "register") is not (entry["number"] == 1):
                raise ValueError("a ledger is registered once, on its first line")
            if entry["kind"] != "register" and entry.get("key_id") != self.key_id:
                raise ValueError("every entry has the signer of the first")
            if entry["kind"] not in _KINDS:
                raise ValueError(f"kind {entry['kind']!r} is unknown")
            getattr(self, f"_{entry['kind']}")(entry)
        except (UserError, KeyError, ValueError, TypeError) as error:
            raise IntegrityError(
                f"ledger {self.path}, line {entry.get('number')}",
                f"the entry makes no sense here ({error})",
                "restore the file from a copy",
            ) from error

    def divergence(self, runs: Iterable[Run]) -> float:
        """All runs and mechanisms together, at the cap's order."""
        return self.other_divergence + sum(run.divergence * run.billed for run in runs)

    def _register(self, entry: Mapping[str, Any]) -> None:
        self.cap = RenyiFilter(_number(entry["epsilon"]), entry["delta"], entry["order"])
        self.corpus, self.key_id = entry["corpus"], entry.get("key_id")

    def _reserve(self, entry: Mapping[str, Any]) -> None:
        if entry["run_id"] in self.runs:
            raise ValueError("a run is reserved once")
        self.runs[entry["run_id"]] = Run(
            PrivacyPlan.from_json(entry["plan"]), _number(entry["divergence"])
        )

    def _attempt(self, entry: Mapping[str, Any]) -> None:
        run = self.runs[entry["run_id"]]
        run.attempts, run.last_step = entry["attempt"], -1

    def _charge(self, entry: Mapping[str, Any]) -> None:
        run = self.runs[entry["run_id"]]
        if entry["attempt"] != run.attempts or entry["step"] <= run.last_step:
            raise ValueError("a charge belongs to the latest attempt and goes up")
        run.charged += 1
        run.last_step = entry["step"]
        run.steps.add(entry["step"])

    def _commit(self, entry: Mapping[str, Any]) -> None:
        self.runs[entry["run_id"]].commits.append((entry["attempt"], entry["steps"]))

    def _spend(self, entry: Mapping[str, Any]) -> None:
        self.others += 1
        self.other_divergence += entry["divergence"]
        self.other_delta += entry["delta"]

    def _repair(self, entry: Mapping[str, Any]) -> None:
        """A mended last line changes no amount."""


def _number(value: float | str) -> float:
    return math.inf if value == "inf" else float(value)
