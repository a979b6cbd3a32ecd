"""`Balance`: what the entries of a ledger add up to, and what is left of its cap."""

import copy
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.ancestor import Ancestor, ancestor_of
from dpmlm.privacy.filter import RenyiFilter
from dpmlm.privacy.headroom import epsilon_after
from dpmlm.privacy.plan import PrivacyPlan
from dpmlm.privacy.rules import SCOPES, SEQUENCES

_KINDS = (
    "register", "reserve", "attempt", "charge", "keep", "forgo", "commit", "spend", "select",
    "choose", "tombstones", "import", "repair",
)  # fmt: skip
HIGHEST_ORDER = 1024.0
"""Of a cap: the time that a divergence takes grows with its order."""
NEIGHBOURS = tuple(itertools.product(("document", "person"), SCOPES[:2]))
"""Unit and scope that words of a vocabulary can be bounded by."""
PROTECTED = (*NEIGHBOURS, ("sequence", SEQUENCES))
"""Unit and scope that a plan, and so a release, can be about."""
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
    forgone: int = 0
    """Those among them that nobody drew, as the training ended before its plan."""
    taken: int = 0
    """Different steps among them: all from the first on, as an attempt leaves out none."""
    kept: int = 0
    """Steps of the furthest checkpoint: what they left can have been seen."""
    kept_by: int = 0
    """The attempt that it is of."""
    origins: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of each attempt the one, and how many of its steps, that it went on from."""
    lost: bool = False
    """Whether an attempt went on from something else than it, or what followed it: then steps are
    drawn again, or other draws of them are released, whose result was there."""
    commits: list[tuple[int, int]] = field(default_factory=list)
    """Attempt and number of steps of each commit."""

    def follows(self, attempt: int, steps: int) -> bool:
        """Whether what an attempt left after so many steps is, or came out of, what was kept."""
        while attempt > self.kept_by:
            attempt, steps = self.origins[attempt]
        return attempt == self.kept_by and steps >= self.kept

    @property
    def billed(self) -> int:
        """Steps that count against the cap: those of the plan, and each one drawn again, whole."""
        return self.plan.steps + self.charged - self.taken

    @property
    def cost(self) -> float:
        """Divergence that counts against the cap."""
        more = self.billed - self.plan.steps
        return self.divergence + (self.again * more if more else 0.0)

    @property
    def committed(self) -> int:
        """Steps of the released model: all charged ones if it was committed twice."""
        if len(set(self.commits)) > 1:
            return self.charged
        return self.commits[0][1] if self.commits else 0

    @property
    def claimed(self) -> int:
        """Steps that a claim counts: the different ones that were charged, committed or not; all
        that are billed before a commit, where results may have left twice, and of correlated
        noise unless it is whole."""
        twice = self.lost or len(set(self.commits)) > 1
        part = self.plan.bands > 1 and self.taken < self.plan.steps
        return self.billed if twice or part or not self.commits else self.taken


@dataclass(frozen=True)
class Import:
    """A release that a run of the ledger continues, charged once however many runs do."""

    ancestor: Ancestor
    """With the largest epsilon and delta that were told of its weights."""
    unit: str
    scope: str
    here: bool
    """Whether its run is one of this ledger: then all of it is charged already."""
    divergence: float
    """At the cap's order, of an (epsilon, delta)-DP mechanism; 0 where it is charged already."""

    def to_json(self) -> dict[str, Any]:
        """As an entry and a summary hold it."""
        own = {"unit": self.unit, "scope": self.scope, "here": self.here}
        return {**self.ancestor.to_json(), **own}


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
        self.imports: dict[str, Import] = {}
        """Releases that runs continue, by the digest of their weights."""
        self.choices: list[dict[str, Any]] = []
        """Among runs: label, epsilon, and the number of candidates."""
        self.tombstones: dict[str, Any] | None = None
        """Lines and head of the tombstone file, as last noted."""

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
        except (UserError, LookupError, ValueError, TypeError, ArithmeticError) as error:
            raise IntegrityError(
                f"ledger {self.path}, line {entry.get('number')}",
                f"the entry makes no sense here ({error})",
                "restore the file from a copy",
            ) from error

    def divergence(self, runs: Iterable[Run] | None = None) -> float:
        """All mechanisms, releases that are continued, and `runs` (those of the ledger by default),
        at the cap's order."""
        runs = self.runs.values() if runs is None else runs
        inherited = sum(one.divergence for one in self.imports.values())
        return self.other_divergence + inherited + sum(run.cost for run in runs)

    def imported(self) -> tuple[float, float]:
        """Epsilon and delta of the releases that were charged elsewhere."""
        outside = [one.ancestor for one in self.imports.values() if not one.here]
        return sum(one.epsilon for one in outside), sum(one.delta for one in outside)

    @property
    def column(self) -> float:
        """Delta that mechanisms and continued releases spend directly."""
        return self.other_delta + self.imported()[1]

    def import_of(self, plan: PrivacyPlan) -> Import | None:
        """What has to be charged for the release that the plan continues: None where there is none,
        or where it is paid for."""
        found = ancestor_of(plan)
        if found is None:
            return None
        there = self.imports.get(found.model)
        if there is not None:
            if there.ancestor.covers(found):
                return None
            most = max(there.ancestor.epsilon, found.epsilon)
            found = replace(found, epsilon=most, delta=max(there.ancestor.delta, found.delta))
        return self.priced(found, plan.unit, plan.scope)

    def priced(self, ancestor: Ancestor, unit: str, scope: str) -> Import:
        """The charge of a release: nothing where its run was charged to this very ledger."""
        run = self.runs.get(ancestor.run_id)
        here = run is not None and run.plan.digest == ancestor.plan
        cost = 0.0 if here else self.cap.divergence_of(ancestor.epsilon)
        return Import(ancestor, unit, scope, here, cost)

    def inheriting(self, plan: PrivacyPlan) -> "Balance":
        """This balance once the release that `plan` continues is charged."""
        more = self.import_of(plan)
        if more is None:
            return self
        after = copy.copy(self)
        after.imports = {**self.imports, more.ancestor.model: more}
        return after

    @property
    def untouched(self) -> bool:
        """Whether nothing was charged yet."""
        return not self.runs and not self.others and not self.imports

    @property
    def alone(self) -> Run | None:
        """The one run, if nothing else was charged to the corpus but releases of other ledgers."""
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
            epsilon, delta = self.imported()
            own = epsilon_after(run.plan, run.billed)
            return Budget(own + epsilon, run.plan.delta + delta, total)
        delta = self.cap.delta - self.cap.column + self.column
        return Budget(total + self.cap.overhead, delta, total)

    def left(self) -> Budget:
        """What the cap still holds; see `Ledger.left`."""
        capped = math.isfinite(self.cap.epsilon)
        rdp = max(0.0, self.cap.rdp - self.divergence()) if capped else math.inf
        epsilon = self.cap.epsilon if self.untouched else rdp
        return Budget(epsilon, max(0.0, self.cap.column - self.column), rdp)

    def _register(self, entry: Mapping[str, Any]) -> None:
        epsilon, delta = read_number(entry["epsilon"]), read_number(entry["delta"])
        order = read_number(entry["order"])
        if not (epsilon > 0 and 0 < delta < 1 and 1 < order <= HIGHEST_ORDER):
            raise ValueError("no cap is like this")
        self.cap = RenyiFilter(epsilon, delta, order)
        if not self.cap.rdp > 0:
            raise ValueError("a cap leaves something to spend")
        self.corpus, self.key_id = entry["corpus"], entry.get("key_id")

    def _reserve(self, entry: Mapping[str, Any]) -> None:
        if entry["run_id"] in self.runs:
            raise ValueError("a run is reserved once")
        plan = PrivacyPlan.from_json(entry["plan"])
        if self.import_of(plan) is not None:
            raise ValueError("a release is charged before the run that continues it")
        self.runs[entry["run_id"]] = Run(
            plan,
            read_number(entry["divergence"]),
            read_number(entry["again"]),
        )

    def _attempt(self, entry: Mapping[str, Any]) -> None:
        run = self.runs[entry["run_id"]]
        if whole_number(entry["attempt"]) != run.attempts + 1:
            raise ValueError("attempts are counted")
        begun = whole_number(entry["from_step"])
        if begun > run.taken:
            raise ValueError("an attempt goes on from steps that were charged")
        presumed = run.attempts if begun > run.kept else run.kept_by  # older lines do not say it
        source = whole_number(entry.get("from_attempt", presumed))
        if source > run.attempts:
            raise ValueError("an attempt goes on from an earlier one")
        run.lost = run.lost or not run.follows(source, begun)
        if begun > run.kept:
            run.kept, run.kept_by = begun, source
        run.attempts, run.last_step = entry["attempt"], begun - 1
        run.origins[run.attempts] = source, begun

    def _charge(self, entry: Mapping[str, Any]) -> None:
        run = self.runs[entry["run_id"]]
        step = whole_number(entry["step"])
        if entry["attempt"] != run.attempts or step != run.last_step + 1 or step >= run.plan.steps:
            raise ValueError("a charge is of the latest attempt, its next step, within the plan")
        run.charged += 1
        run.last_step = step
        run.taken = max(run.taken, step + 1)

    def _keep(self, entry: Mapping[str, Any]) -> None:
        run = self._charged_run(entry)
        run.kept, run.kept_by = max(run.kept, entry["steps"]), entry["attempt"]

    def _forgo(self, entry: Mapping[str, Any]) -> None:
        run, steps = self.runs[entry["run_id"]], whole_number(entry["steps"])
        if entry["attempt"] != run.attempts or steps != run.plan.steps:
            raise ValueError("what is forgone is the end of a plan, by the latest attempt")
        run.charged += steps - run.taken
        run.forgone += steps - run.taken
        run.taken, run.last_step = steps, steps - 1

    def _commit(self, entry: Mapping[str, Any]) -> None:
        run = self._charged_run(entry)
        run.commits.append((entry["attempt"], entry["steps"]))
        run.kept, run.kept_by = max(run.kept, entry["steps"]), entry["attempt"]

    def _charged_run(self, entry: Mapping[str, Any]) -> Run:
        run = self.runs[entry["run_id"]]
        if entry["attempt"] != run.attempts or whole_number(entry["steps"]) > run.taken:
            raise ValueError("what is kept or committed was charged, by the latest attempt")
        return run

    def _spend(self, entry: Mapping[str, Any]) -> None:
        self._add(entry["divergence"], entry["delta"])

    def _select(self, entry: Mapping[str, Any]) -> None:
        if (entry["unit"], entry["scope"]) not in NEIGHBOURS:
            raise ValueError("words are bounded by document or person, of one of two corpora")
        self._add(entry["divergence"], entry["threshold_delta"])
        names = ("label", "epsilon", "delta", "words_per_unit", "unit", "scope")
        self.selections.append({name: entry[name] for name in names})

    def _import(self, entry: Mapping[str, Any]) -> None:
        if (entry["unit"], entry["scope"]) not in PROTECTED:
            raise ValueError("a release protects a unit of a corpus")
        ancestor, cost = Ancestor.from_json(entry), read_number(entry["divergence"])
        there = self.imports.get(ancestor.model)
        if there is not None and not ancestor.covers(there.ancestor):
            raise ValueError("a charge for a release is never lowered")
        if type(entry["here"]) is not bool or not 0 <= cost < math.inf:
            raise ValueError("a release costs a finite divergence")
        self.imports[ancestor.model] = Import(
            ancestor, entry["unit"], entry["scope"], entry["here"], cost
        )

    def _choose(self, entry: Mapping[str, Any]) -> None:
        if entry["label"] not in LABELS or not set(entry["runs"]) <= self.runs.keys():
            raise ValueError("a choice is labelled, and among runs of this ledger")
        if (entry["label"] == "dp") is not (read_number(entry["epsilon"]) > 0):
            raise ValueError("a choice has an epsilon if it is charged")
        if entry["label"] == "dp":
            self._add(entry["divergence"], 0.0)
        shown = {"label": entry["label"], "epsilon": entry["epsilon"]}
        self.choices.append({**shown, "candidates": len(entry["runs"])})

    def _add(self, divergence: float, delta: float) -> None:
        if not (0 <= read_number(divergence) < math.inf and 0 <= read_number(delta) < 1):
            raise ValueError("a mechanism costs a finite divergence and a delta below 1")
        self.others += 1
        self.other_divergence += divergence
        self.other_delta += delta

    def _tombstones(self, entry: Mapping[str, Any]) -> None:
        """Persons are forgotten, never unforgotten; no amount changes."""
        before = self.tombstones["lines"] if self.tombstones else 0
        if whole_number(entry["lines"]) <= before or not isinstance(entry["head"], str):
            raise ValueError("a tombstone file grows")
        self.tombstones = {"lines": entry["lines"], "head": entry["head"]}

    def _repair(self, entry: Mapping[str, Any]) -> None:
        """A mended last line changes no amount."""


def read_number(value: object) -> float:
    """Inverse of `write_number`. Raises ValueError for what it never writes."""
    if value == "inf":
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no amount")
    return float(value)


def whole_number(value: object) -> int:
    """Raises ValueError for anything but a whole number from 0 on."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} is no whole number from 0 on")
    return value


def write_number(value: float) -> float | str:
    """A number as an entry and a summary hold it: JSON knows no infinity."""
    return "inf" if math.isinf(value) else value
