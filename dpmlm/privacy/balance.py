"""`Balance`: what the entries of a ledger add up to, and what is left of its cap."""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.filter import RenyiFilter
from dpmlm.privacy.headroom import epsilon_after
from dpmlm.privacy.plan import PrivacyPlan

_KINDS = (
    "register", "reserve", "attempt", "charge", "commit", "spend", "select", "choose", "repair",
)  # fmt: skip
LABELS = ("public", "dp", "private")
"""What a choice among runs looked at: nothing private, noisy figures, or exact ones."""


@dataclass(frozen=True)
class Budget:
    """An amount of privacy budget; book-keeping, see `Ledger.summary` for the claim."""

    epsilon: float
    """At `delta`; `inf` where nothing is promised."""
    delta: float
    """Of `spent`: the delta of `epsilon`. Of `left`: what selection by a threshold may spend."""
    rdp: float
    """Renyi divergence at the ledger's order."""


@dataclass
class Run:
    """One reservation and what was charged to it."""

    plan: PrivacyPlan
    """As reserved."""
    divergence: float
    """Of the whole plan, at the ledger's order."""
    again: float
    """Of a step that is drawn again: the largest of the plan's."""
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
        """Steps that count against the cap.

        With bands every step that is drawn again counts whole, beside the plan: attempts that end
        at one step draw one group each time, where the plan counts a step in b.
        """
        if self.plan.bands > 1:
            return self.plan.steps + self.charged - len(self.steps)
        return max(self.plan.steps, self.charged)

    @property
    def cost(self) -> float:
        """Divergence that counts against the cap."""
        more = self.billed - self.plan.steps
        return self.divergence + (self.again * more if more else 0.0)

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
        self.selections: list[dict[str, Any]] = []
        self.choices: list[dict[str, Any]] = []
        """Among runs: label, epsilon, and the number of candidates."""

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

    def divergence(self, runs: Iterable[Run] | None = None) -> float:
        """All mechanisms and `runs` (those of the ledger by default), at the cap's order."""
        runs = self.runs.values() if runs is None else runs
        return self.other_divergence + sum(run.cost for run in runs)

    @property
    def untouched(self) -> bool:
        """Whether nothing was charged yet."""
        return not self.runs and not self.others

    @property
    def alone(self) -> Run | None:
        """The one run, if nothing else was charged to the corpus."""
        return next(iter(self.runs.values())) if len(self.runs) == 1 and not self.others else None

    def beside(self, divergence: float, delta: float) -> "Balance":
        """This balance as it is after one more mechanism."""
        after = copy.copy(self)
        after.others = self.others + 1
        after.other_divergence = self.other_divergence + divergence
        after.other_delta = self.other_delta + delta
        return after

    def spent(self) -> Budget:
        """What all entries cost; `Ledger.spent` says how it is counted."""
        total = self.divergence()
        if any(not run.plan.private for run in self.runs.values()):
            return Budget(math.inf, self.cap.delta, math.inf)
        if self.untouched:
            return Budget(0.0, 0.0, 0.0)
        if run := self.alone:
            return Budget(epsilon_after(run.plan, run.billed), run.plan.delta, total)
        delta = self.cap.delta - self.cap.column + self.other_delta
        return Budget(total + self.cap.overhead, delta, total)

    def left(self) -> Budget:
        """What the cap still holds; see `Ledger.left`."""
        capped = math.isfinite(self.cap.epsilon)
        rdp = max(0.0, self.cap.rdp - self.divergence()) if capped else math.inf
        epsilon = self.cap.epsilon if self.untouched else rdp
        return Budget(epsilon, self.cap.column - self.other_delta, rdp)

    def _register(self, entry: Mapping[str, Any]) -> None:
        self.cap = RenyiFilter(read_number(entry["epsilon"]), entry["delta"], entry["order"])
        self.corpus, self.key_id = entry["corpus"], entry.get("key_id")

    def _reserve(self, entry: Mapping[str, Any]) -> None:
        if entry["run_id"] in self.runs:
            raise ValueError("a run is reserved once")
        self.runs[entry["run_id"]] = Run(
            PrivacyPlan.from_json(entry["plan"]),
            read_number(entry["divergence"]),
            read_number(entry["again"]),
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

    def _select(self, entry: Mapping[str, Any]) -> None:
        self.others += 1
        self.other_divergence += entry["divergence"]
        self.other_delta += entry["threshold_delta"]
        names = ("label", "epsilon", "delta", "words_per_unit")
        self.selections.append({name: entry[name] for name in names})

    def _choose(self, entry: Mapping[str, Any]) -> None:
        if entry["label"] not in LABELS or not set(entry["runs"]) <= self.runs.keys():
            raise ValueError("a choice is labelled, and among runs of this ledger")
        if (entry["label"] == "dp") is not (entry["epsilon"] > 0):
            raise ValueError("a choice has an epsilon if it is charged")
        if entry["label"] == "dp":
            self.others += 1
            self.other_divergence += entry["divergence"]
        shown = {"label": entry["label"], "epsilon": entry["epsilon"]}
        self.choices.append({**shown, "candidates": len(entry["runs"])})

    def _repair(self, entry: Mapping[str, Any]) -> None:
        """A mended last line changes no amount."""


def read_number(value: float | str) -> float:
    """Inverse of `write_number`."""
    return math.inf if value == "inf" else float(value)


def write_number(value: float) -> float | str:
    """A number as an entry and a summary hold it: JSON knows no infinity."""
    return "inf" if math.isinf(value) else value
