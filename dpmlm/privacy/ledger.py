"""`Ledger`: what was spent on one corpus, and what may still be.

One ledger belongs to one source corpus and all that is derived from it. Its cap is fixed when the
corpus is registered (`filter.py`); the file is a `Journal`. The order of a run:

    reserve -> begin_attempt -> (charge a step -> draw its sample -> add its noise)* -> commit

`reserve` charges the whole plan, so a crash leaves it charged. `charge` is on the disk before it
returns. A step that is drawn again after a crash is charged again; once the charges exceed the
plan they are charged on top of it, and refused over the cap.

What is admitted: everything whose divergences fit the filter, or else **one** plan alone whose own
epsilon, at all its charged steps, fits the cap (PLD is tighter than RDP; with a single plan fixed
beforehand nothing is adaptive). The second door closes for good with the second entry.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.accountants import (
    AccountantFailure,
    describe,
    renyi_divergence,
)
from dpmlm.privacy.balance import Balance, Run
from dpmlm.privacy.filter import RenyiFilter
from dpmlm.privacy.headroom import fitting_epsilon, pld_epsilon, steps_within
from dpmlm.privacy.journal import Journal, Signer, Verifier, check_signature, create
from dpmlm.privacy.plan import PrivacyPlan


@dataclass(frozen=True)
class Budget:
    """An amount of privacy budget; book-keeping, see `Ledger.summary` for the claim."""

    epsilon: float
    """At `delta`; `inf` where nothing is promised."""
    delta: float
    """Of `spent`: the delta of `epsilon`. Of `left`: what selection by a threshold may spend."""
    rdp: float
    """Renyi divergence at the ledger's order."""


class Ledger:
    """The budget of one corpus; several processes may use one file at a time.

    Without a promise: a run with epsilon `inf` is recorded only on a ledger that was registered
    with epsilon `inf`, and refused on one with a finite cap, because after it no sum over the
    corpus could stay finite and every later claim under that cap would be false. On a ledger
    without a cap several runs together carry no claim, since no filter was fixed beforehand; one
    private run alone still does.

    Locally the ledger binds the honest user: whoever may write the file can also replace it. Lines
    cut off its end are found only against a copy of `head`.
    """

    def __init__(self, path: Path, signer: Signer | None = None) -> None:
        self._state = Balance(path)
        self._journal = Journal(path, self._state.apply, signer)
        self._lone_limits: dict[str, int] = {}

    @classmethod
    def register(
        cls,
        path: str | Path,
        *,
        epsilon: float,
        delta: float,
        corpus: str,
        signer: Signer | None = None,
    ) -> "Ledger":
        """A new ledger of `corpus` (a public name) with its cap; signed throughout if `signer`.

        The Renyi order of the cap is chosen here, once, from the cap alone. Raises UserError for
        an existing file, epsilon not above 0 or too small for its delta, delta outside (0, 1).
        """
        if not epsilon > 0 or not 0 < delta < 1:
            raise UserError(
                f"ledger cap epsilon {epsilon}, delta {delta}",
                "epsilon must be above 0 and delta between 0 and 1",
                "choose another cap",
            )
        cap = RenyiFilter.of(epsilon, delta)
        if cap.rdp <= 0:
            raise UserError(
                f"ledger cap epsilon {epsilon:g}, delta {delta:g}",
                "it leaves nothing to spend at any Renyi order",
                "raise epsilon",
            )
        fields = {
            "corpus": corpus, "epsilon": _text(epsilon), "delta": delta, "order": cap.order,
            "time": _now(),
        }  # fmt: skip
        create(Path(path), "register", fields, signer)
        return cls.open(path, signer)

    @classmethod
    def open(cls, path: str | Path, signer: Signer | None = None) -> "Ledger":
        """Read a ledger; linear in its length. Raises IntegrityError naming a broken line."""
        path = Path(path)
        if not path.is_file():
            raise UserError(
                f"ledger {path}",
                "there is no such file",
                "register the corpus first, or correct the path",
            )
        ledger = cls(path, signer)
        ledger._journal.refresh()
        if not ledger._journal.length:
            raise IntegrityError(
                f"ledger {path}, line 1", "it was never registered", "restore it from a copy"
            )
        return ledger

    def reserve(self, run_id: str, plan: PrivacyPlan) -> None:
        """Charge the whole plan to the run; the same plan again is a resume and charges nothing.

        Raises UserError for another plan under the same run, a run without privacy under a finite
        cap, a delta above the ledger's, and a budget larger than what is left.
        """
        with self._journal.exclusive():
            state = self._state
            known = state.runs.get(run_id)
            if known is not None:
                if known.plan.digest == plan.digest:
                    return
                raise UserError(
                    f"run {run_id!r} with plan {plan.digest[:19]}",
                    f"the plan is fixed: this run was reserved with {known.plan.digest[:19]}",
                    "restore the run's settings, or start a new run under another name",
                )
            run = self._affordable(plan)
            self._write(
                "reserve",
                run_id=run_id, plan=plan.to_json(), divergence=_text(run.divergence),
            )  # fmt: skip

    def refuse_unaffordable(self, plan: PrivacyPlan) -> None:
        """Raise the UserError that `reserve` of a new run would raise now; charges nothing."""
        self._journal.refresh()
        self._affordable(plan)

    def begin_attempt(self, run_id: str) -> int:
        """Number of a new attempt at the run, from 1; earlier attempts may charge no more."""
        with self._journal.exclusive():
            attempt = self._run(run_id).attempts + 1
            self._write("attempt", run_id=run_id, attempt=attempt)
            return attempt

    def charge(self, run_id: str, attempt: int, step: int) -> None:
        """Charge one step, on the disk before this returns; only then is its sample drawn.

        `step` is at least 0 and goes up within an attempt (ValueError). Raises UserError for an
        attempt that a later one replaced, a step beyond the plan, and a repeated step over the cap.
        """
        with self._journal.exclusive():
            run = self._latest(run_id, attempt)
            if step <= run.last_step:
                raise ValueError(f"step {step} after step {run.last_step} in one attempt")
            if step not in run.steps and len(run.steps) >= run.plan.steps:
                raise UserError(
                    f"step {step} of run {run_id!r}",
                    f"its plan has {run.plan.steps} steps",
                    "start another run for more training",
                )
            if run.charged >= run.plan.steps:
                self._check_repeat(run_id, run)
            self._write("charge", run_id=run_id, attempt=attempt, step=step)

    def commit(self, run_id: str, steps: int, attempt: int) -> None:
        """Record that the first `steps` steps survive in the model; again is no change.

        Raises UserError when fewer distinct steps were charged.
        """
        with self._journal.exclusive():
            run = self._latest(run_id, attempt)
            if (attempt, steps) in run.commits:
                return
            if not 0 <= steps <= len(run.steps):
                raise UserError(
                    f"commit of {steps} steps of run {run_id!r}",
                    f"{len(run.steps)} different steps were charged",
                    "commit what was charged",
                )
            self._write("commit", run_id=run_id, attempt=attempt, steps=steps)

    def spend(self, label: str, *, epsilon: float, delta: float = 0.0) -> None:
        """Charge an (epsilon, delta)-DP mechanism that is not a run: a vocabulary, a metric.

        Its divergence is min(epsilon, order * epsilon^2 / 2); its delta goes to the ledger's
        column. Raises UserError over what is left.
        """
        if not 0 < epsilon < math.inf or not 0 <= delta < 1:
            raise UserError(
                f"mechanism {label!r} of epsilon {epsilon}, delta {delta}",
                "epsilon must be finite and above 0, delta in [0, 1)",
                "charge what the mechanism proves",
            )
        with self._journal.exclusive():
            state = self._state
            divergence = state.cap.divergence_of(epsilon)
            total = state.divergence(state.runs.values()) + divergence
            if total > state.cap.rdp or state.other_delta + delta > state.cap.column:
                left = self._left()
                raise UserError(
                    f"mechanism {label!r} costs {divergence:.4g} of the ledger's divergence and "
                    f"{delta:g} of its delta",
                    f"{left.rdp:.4g} and {left.delta:.4g} are left",
                    "spend less, or ask whoever registered the corpus",
                )
            self._write("spend", label=label, epsilon=epsilon, delta=delta, divergence=divergence)

    @property
    def cap(self) -> tuple[float, float]:
        """Epsilon and delta with which the corpus was registered."""
        return self._state.cap.epsilon, self._state.cap.delta

    @property
    def order(self) -> float:
        """Renyi order of the cap, fixed at registration."""
        return self._state.cap.order

    @property
    def corpus(self) -> str:
        """Name under which the corpus was registered."""
        return self._state.corpus

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Every entry, read again from the file and its chain checked."""
        return list(self._journal.entries())

    @property
    def run_ids(self) -> list[str]:
        """Runs with a reservation, in the order of their reservations."""
        self._journal.refresh()
        return list(self._state.runs)

    @property
    def head(self) -> dict[str, Any]:
        """Number and hash of the last entry: copy it elsewhere, then a cut file is found."""
        self._journal.refresh()
        return {"number": self._journal.length, "hash": self._journal.head}

    def spent(self) -> Budget:
        """What the entries add up to.

        One private plan alone: its epsilon at all charged steps, never below PLD's. Otherwise the
        sum of divergences converted at the ledger's order.
        """
        self._journal.refresh()
        state = self._state
        runs = list(state.runs.values())
        total = state.divergence(runs)
        if any(not run.plan.private for run in runs):
            return Budget(math.inf, state.cap.delta, math.inf)
        if not runs and not state.others:
            return Budget(0.0, 0.0, 0.0)
        if self._alone(runs):
            plan, billed = runs[0].plan, runs[0].billed
            return Budget(
                max(plan.epsilon_spent(billed), pld_epsilon(plan, billed)), plan.delta, total
            )
        converted = total + state.cap.overhead
        return Budget(converted, state.cap.delta - state.cap.column + state.other_delta, total)

    def left(self) -> Budget:
        """What may still be spent: the whole cap before the first entry, then divergence.

        Divergence left and epsilon left are one number after the first entry, since they differ
        by a constant in the sum.
        """
        self._journal.refresh()
        return self._left()

    def charged_steps(self, run_id: str) -> int:
        """Steps charged in all attempts, repeated ones counted each time."""
        self._journal.refresh()
        return self._run(run_id).charged

    def committed_steps(self, run_id: str) -> int:
        """Steps that survive in the released model; all charged ones if committed twice."""
        self._journal.refresh()
        return self._run(run_id).committed

    def verify(
        self,
        *,
        trusted: Mapping[str, Verifier] | None = None,
        head: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the whole file again and check everything that can be checked.

        The chain, the sense of each entry and the recorded divergences; with `trusted` (key id to
        public key) every signature; with an earlier `head` that its entry still stands. Raises
        IntegrityError naming the line.
        """
        fresh = Balance(self._journal.path)
        seen = False
        for entry in self._journal.entries():
            fresh.apply(entry)
            if trusted is not None:
                check_signature(self._journal.path, entry, trusted)
            seen = seen or (head is not None and entry["hash"] == head["hash"])
            if entry["kind"] == "reserve":
                self._check_divergence(entry, fresh)
        if head is not None and not seen:
            raise IntegrityError(
                f"ledger {self._journal.path}, line {head['number']}",
                "the entry that was noted as its head is gone: the file was cut or rewritten",
                "restore the file from a copy",
            )

    def summary(self, run_id: str) -> dict[str, Any]:
        """What a statement and a gate need to know of the run, after `verify`.

        `epsilon` at `delta` is the claim. While the lineage holds this one plan alone it is the
        plan's figure at its committed steps (at the whole plan before a commit). Otherwise it is
        the cap: a filter proves its budget, not the sum spent so far.
        """
        self.verify()
        self._journal.refresh()
        state, run = self._state, self._run(run_id)
        runs, cap = list(state.runs.values()), state.cap
        alone = self._alone(runs)
        lineage = self.spent()
        if alone or math.isinf(lineage.epsilon):
            claim = (run.plan.epsilon_spent(run.committed or run.billed), run.plan.delta)
            claim = claim if alone else (math.inf, run.plan.delta)
            accountant = describe(run.plan.accountant)
        else:
            claim = (cap.epsilon, cap.delta)
            accountant = f"Renyi filter of order {cap.order:g}, {describe('rdp')}"
        return {
            "run_id": run_id,
            "corpus": state.corpus,
            "plan_digest": run.plan.digest,
            "unit": run.plan.unit,
            "epsilon": _text(claim[0]),
            "delta": claim[1],
            "basis": "plan" if alone else "filter",
            "accountant": accountant,
            "reserved_steps": run.plan.steps,
            "charged_steps": run.charged,
            "committed_steps": run.committed,
            "attempts": run.attempts,
            "cap": {"epsilon": _text(cap.epsilon), "delta": cap.delta, "order": cap.order},
            "lineage": {
                "runs": len(runs),
                "mechanisms": state.others,
                "epsilon": _text(lineage.epsilon),
                "delta": lineage.delta,
            },
            "head": {"number": self._journal.length, "hash": self._journal.head},
            "key_id": state.key_id,
            "intact": True,
        }

    def _write(self, kind: str, **fields: Any) -> None:
        signer = self._journal.signer
        if (signer.key_id if signer else None) != self._state.key_id:
            raise UserError(
                f"ledger {self._journal.path} with signer {signer.key_id if signer else None}",
                f"it was registered with signer {self._state.key_id}, which signs every entry",
                "give the signing key that registered it",
            )
        self._journal.append(kind, {**fields, "time": _now()})

    def _run(self, run_id: str) -> Run:
        run = self._state.runs.get(run_id)
        if run is None:
            raise UserError(
                f"run {run_id!r}",
                f"ledger {self._journal.path} has no reservation for it",
                "reserve the run's plan first",
            )
        return run

    def _latest(self, run_id: str, attempt: int) -> Run:
        run = self._run(run_id)
        if attempt != run.attempts:
            raise UserError(
                f"attempt {attempt} of run {run_id!r}",
                f"attempt {run.attempts} is the latest: another process took the run over",
                "end one of the two processes, then resume",
            )
        return run

    def _affordable(self, plan: PrivacyPlan) -> Run:
        self._check_plan(plan)
        run = Run(plan, self._step_divergence(plan))
        if not self._admits([*self._state.runs.values(), run]):
            raise self._over_cap(run)
        return run

    def _check_plan(self, plan: PrivacyPlan) -> None:
        cap = self._state.cap
        if not plan.private and math.isfinite(cap.epsilon):
            raise UserError(
                f"a run with epsilon inf on ledger {self._journal.path}",
                f"its cap is epsilon {cap.epsilon:g}, which no claim survives after such a run",
                "use another corpus, or register this one with epsilon inf",
            )
        if plan.private and plan.delta > cap.delta:
            raise UserError(
                f"plan with delta {plan.delta:g}",
                f"the ledger's cap has delta {cap.delta:g}",
                "lower privacy.delta",
            )

    def _step_divergence(self, plan: PrivacyPlan) -> float:
        if not plan.private:
            return math.inf
        try:
            return renyi_divergence(plan.mechanism(1), self._state.cap.order)
        except AccountantFailure:
            return math.inf  # only the door for one plan alone stays open

    def _alone(self, runs: list[Run]) -> bool:
        return len(runs) == 1 and not self._state.others

    def _admits(self, runs: list[Run]) -> bool:
        state = self._state
        if math.isinf(state.cap.epsilon) or state.divergence(runs) <= state.cap.rdp:
            return True
        if not self._alone(runs):
            return False
        run = runs[0]
        if run.billed == run.plan.steps:
            return pld_epsilon(run.plan, run.billed) <= state.cap.epsilon
        if run.plan.digest not in self._lone_limits:
            self._lone_limits[run.plan.digest] = steps_within(run.plan, state.cap.epsilon)
        return run.billed <= self._lone_limits[run.plan.digest]

    def _check_repeat(self, run_id: str, run: Run) -> None:
        if math.isinf(self._state.cap.epsilon):
            return
        others = [other for name, other in self._state.runs.items() if name != run_id]
        if not self._admits([*others, replace(run, charged=run.charged + 1)]):
            raise UserError(
                f"step {run.charged + 1} charged to run {run_id!r} of {run.plan.steps} planned",
                "steps drawn again after a crash are charged again, and no budget is left "
                f"under the cap of epsilon {self._state.cap.epsilon:g}",
                "commit the steps of the last checkpoint, or ask whoever registered the corpus",
            )

    def _left(self) -> Budget:
        state = self._state
        spent = state.divergence(state.runs.values())
        rdp = max(0.0, state.cap.rdp - spent) if math.isfinite(state.cap.epsilon) else math.inf
        untouched = not state.runs and not state.others
        return Budget(
            state.cap.epsilon if untouched else rdp, state.cap.column - state.other_delta, rdp
        )

    def _over_cap(self, run: Run) -> UserError:
        left = self._left()
        if not self._state.runs and not self._state.others:
            advice = f"set privacy.epsilon to {self._state.cap.epsilon:g} or less"
        else:
            fits = fitting_epsilon(run.plan, left.rdp, self._state.cap.order)
            advice = (
                f"lower privacy.epsilon to {fits:.2g} at these steps and batch"
                if fits
                else "nothing fits any more: ask whoever registered the corpus"
            )
        return UserError(
            f"a plan of epsilon {run.plan.epsilon:g} "
            f"({run.divergence * run.billed:.4g} of the ledger's divergence at order "
            f"{self._state.cap.order:g})",
            f"epsilon {left.epsilon:.4g} (divergence {left.rdp:.4g}) is left of the cap "
            f"{self._state.cap.epsilon:g} on {self._journal.path}",
            advice,
        )

    def _check_divergence(self, entry: Mapping[str, Any], state: Balance) -> None:
        run = state.runs[entry["run_id"]]
        expected = self._step_divergence(run.plan)
        if not math.isclose(run.divergence, expected, rel_tol=1e-6):
            raise IntegrityError(
                f"ledger {self._journal.path}, line {entry['number']}",
                "the recorded divergence is not that of the plan",
                "restore the file from a copy",
            )


def _text(value: float) -> float | str:
    return "inf" if math.isinf(value) else value


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
