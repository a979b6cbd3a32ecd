"""`Ledger`: what was spent on one corpus, and what may still be.

One ledger belongs to one source corpus and all that is derived from it. Its cap is fixed when the
corpus is registered (`filter.py`); the file is a `Journal`; `admission.py` says what the cap
admits, `ledger_reading.py` what the entries come to, and `summary.py` what may be claimed. The
order of a run:

    reserve -> begin_attempt -> (charge a step -> draw its sample -> add its noise)* -> commit

`reserve` charges the whole plan, so a crash leaves it charged. `charge` is on the disk before it
returns. A step that is drawn again after a crash is charged again; once the charges exceed the
plan they are charged on top of it, and refused over the cap.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.admission import (
    admit_mechanism,
    admit_plan,
    admit_plans,
    admit_selection,
    check_repeat,
)
from dpmlm.privacy.balance import LABELS, Budget, Run, whole_number, write_number
from dpmlm.privacy.filter import RenyiFilter
from dpmlm.privacy.headroom import fitting_epsilon
from dpmlm.privacy.journal import Signer, create
from dpmlm.privacy.ledger_reading import LedgerReading
from dpmlm.privacy.plan import PrivacyPlan
from dpmlm.privacy.selection import PartitionSelection


class Ledger(LedgerReading):
    """The budget of one corpus; several processes may use one file at a time.

    Without a promise: a run with epsilon `inf` is recorded only on a ledger that was registered
    with epsilon `inf`, and refused on one with a finite cap, because after it no sum over the
    corpus could stay finite and every later claim under that cap would be false. On a ledger
    without a cap several runs together carry no claim, since no filter was fixed beforehand; one
    private run alone still does.

    Locally the ledger binds the honest user: whoever may write the file can also replace it. Lines
    cut off its end are found only against a copy of `head`.
    """

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
        if not corpus.isprintable() or not 0 < len(corpus) <= 200:
            raise UserError(
                f"corpus name {corpus!r:.60}", "it is a line of printable text", "choose another"
            )
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
            "corpus": corpus, "epsilon": write_number(epsilon), "delta": delta, "order": cap.order,
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
                "it is no file" if path.exists() else "there is no such file",
                "register the corpus first, or correct the path",
            )
        ledger = cls(path, signer)
        ledger._journal.refresh()
        if not ledger._journal.length:
            raise IntegrityError(
                f"ledger {path}, line 1", "it was never registered", "restore it from a copy"
            )
        return ledger

    def sign_with(self, signer: Signer) -> "Ledger":
        """Sign what is written from here on, if the ledger was registered signed; returns itself.

        A ledger that was registered without a signer stays unsigned. Raises UserError for another
        key than the one that registered it.
        """
        if self._state.key_id is not None:
            self._refuse_signer(signer)
            self._journal.signer = signer
        return self

    def reserve(self, run_id: str, plan: PrivacyPlan) -> None:
        """Charge the whole plan to the run; the same plan again is a resume and charges nothing.

        A release that the plan continues is charged first, in an entry of its own: once, however
        many runs continue it, and with no amount where its run was charged to this ledger.

        Raises UserError for another plan under the same run, a run without privacy under a finite
        cap, a delta above the ledger's, and a budget larger than what is left.
        """
        with self._journal.exclusive():
            known = self._state.runs.get(run_id)
            if known is not None:
                if known.plan.digest == plan.digest:
                    return
                raise UserError(
                    f"run {run_id!r} with plan {plan.digest[:19]}",
                    f"the plan is fixed: this run was reserved with {known.plan.digest[:19]}",
                    "restore the run's settings, or start a new run under another name",
                )
            run = admit_plan(self._state, plan)
            costs = {name: write_number(getattr(run, name)) for name in ("divergence", "again")}
            inherited = self._state.import_of(plan)
            if inherited is not None:  # both are admitted; a kill in between leaves it charged
                price = write_number(inherited.divergence)
                self._write("import", **inherited.to_json(), divergence=price)
            self._write("reserve", run_id=run_id, plan=plan.to_json(), **costs)

    def refuse_unaffordable(
        self, plan: PrivacyPlan, *, beside: PartitionSelection | None = None
    ) -> None:
        """Raise the UserError that `reserve` of a new run would raise now; charges nothing.

        With `beside`, the one that `spend_selection`, or `reserve` after it, would raise.
        """
        self._journal.refresh()
        if beside is None:
            admit_plan(self._state, plan)
            return
        neighbours = plan.unit, plan.scope
        divergence = admit_selection(self._state, "vocabulary", beside, neighbours)
        try:
            admit_plan(self._state.beside(divergence, beside.threshold_delta), plan)
        except UserError as error:
            raise UserError(
                f"{error.given} beside a vocabulary of epsilon {beside.epsilon:g}, "
                f"delta {beside.delta:g} ({divergence:.4g} of it)",
                f"{error.rule}, the vocabulary taken off",
                error.next_step,
            ) from None

    def affordable(
        self, plans: Sequence[PrivacyPlan], *, beside: PartitionSelection | None = None
    ) -> tuple[int, Budget]:
        """How many new runs of `plans`, in their order, `reserve` would admit now, and what would
        be spent after them; charges nothing. With `beside`, after `spend_selection` of that.
        """
        self._journal.refresh()
        state = self._state
        if beside is not None:
            neighbours = plans[0].unit, plans[0].scope
            divergence = admit_selection(state, "vocabulary", beside, neighbours)
            state = state.beside(divergence, beside.threshold_delta)
        count, after = admit_plans(state, plans)
        return count, after.spent()

    def fitting_epsilon(self, plan: PrivacyPlan, count: int) -> float | None:
        """A privacy.epsilon at which `count` new runs like `plan` would be admitted; None if none.

        Found with the noise that each run's share of what is left pays for.
        """
        return fitting_epsilon(plan, self.left().rdp / count, self.order)

    def begin_attempt(
        self, run_id: str, from_step: int = 0, from_attempt: int | None = None
    ) -> int:
        """Number of a new attempt at the run, from 1; earlier attempts may charge no more.

        It goes on from a checkpoint of `from_step` steps, which attempt `from_attempt` wrote (0:
        there is none; None: of the latest that was kept). If one was kept before (`keep`) that
        this one neither is nor came out of, that is lost: then the claim counts every billed step.
        Raises UserError for a checkpoint of steps or of an attempt that are not in the ledger.
        """
        with self._journal.exclusive():
            run = self._run(run_id)
            self._refuse_newer(run_id, run, from_step, 0 if from_attempt is None else from_attempt)
            attempt = run.attempts + 1
            source = {} if from_attempt is None else {"from_attempt": from_attempt}
            self._write("attempt", run_id=run_id, attempt=attempt, from_step=from_step, **source)
            return attempt

    def take_over(self, run_id: str, attempt: int, steps: int) -> int:
        """The attempt that may commit the training that `attempt` finished after so many steps.

        That one itself; or, where another was begun since, a new one that draws nothing, begun once
        however often this is asked. Raises UserError as `begin_attempt` does.
        """
        with self._journal.exclusive():
            run = self._run(run_id)
            self._refuse_newer(run_id, run, steps, attempt)
            if run.attempts == attempt or run.origins.get(run.attempts) == (attempt, steps):
                return run.attempts
            new, source = run.attempts + 1, {"from_step": steps, "from_attempt": attempt}
            self._write("attempt", run_id=run_id, attempt=new, **source)
            return new

    def charge(self, run_id: str, attempt: int, step: int) -> None:
        """Charge one step, on the disk before this returns; only then is its sample drawn.

        `step` is the attempt's next: its `from_step`, then one after the other (ValueError). Raises
        UserError for an attempt that a later one replaced, a step beyond the plan, and a repeated
        step over the cap.
        """
        with self._journal.exclusive():
            run = self._latest(run_id, attempt)
            if whole_number(step) != run.last_step + 1:
                raise ValueError(f"step {step} after step {run.last_step} in one attempt")
            if step >= run.plan.steps:
                raise UserError(
                    f"step {step} of run {run_id!r}",
                    f"its plan has {run.plan.steps} steps",
                    "start another run for more training",
                )
            if step < run.taken:
                check_repeat(self._state, run_id)
            self._write("charge", run_id=run_id, attempt=attempt, step=step)

    def keep(self, run_id: str, attempt: int, steps: int) -> None:
        """Record that a result of the first `steps` steps is there to be seen: a checkpoint, the
        figures beside it, or that training diverged. Raises UserError as `commit` does."""
        with self._journal.exclusive():
            run = self._latest(run_id, attempt)
            self._refuse_uncharged(run_id, run, steps)
            if steps > run.kept:
                self._write("keep", run_id=run_id, attempt=attempt, steps=steps)

    def forgo(self, run_id: str, attempt: int) -> None:
        """Charge the rest of the plan, which nobody draws: a training ended early, and when it does
        depends on what it released.

        Steps that an earlier attempt charged are not charged again; the attempt charges no more.
        """
        with self._journal.exclusive():
            run = self._latest(run_id, attempt)
            if run.taken < run.plan.steps:
                self._write("forgo", run_id=run_id, attempt=attempt, steps=run.plan.steps)

    def commit(self, run_id: str, steps: int, attempt: int) -> None:
        """Record that the first `steps` steps survive in the model; again is no change.

        Raises UserError when fewer distinct steps were charged, and for a part of a plan with
        correlated noise.
        """
        with self._journal.exclusive():
            run = self._latest(run_id, attempt)
            if (attempt, steps) in run.commits:
                return
            if run.plan.bands > 1 and steps != run.plan.steps:
                raise UserError(
                    f"commit of {steps} of the {run.plan.steps} steps of run {run_id!r}",
                    "a plan with correlated noise is accounted for as a whole",
                    "commit it when all of its steps are taken",
                )
            self._refuse_uncharged(run_id, run, steps)
            self._write("commit", run_id=run_id, attempt=attempt, steps=steps)

    def spend(self, label: str, *, epsilon: float, delta: float = 0.0) -> None:
        """Charge an (epsilon, delta)-DP mechanism that is not a run: a vocabulary, a metric.

        Its divergence is min(epsilon, order * epsilon^2 / 2); its delta goes to the ledger's
        column. Raises UserError over what is left.
        """
        with self._journal.exclusive():
            divergence = admit_mechanism(self._state, label, epsilon, delta)
            self._write("spend", label=label, epsilon=epsilon, delta=delta, divergence=divergence)

    def spend_selection(
        self, label: str, selection: PartitionSelection, *, unit: str, scope: str
    ) -> None:
        """Charge a partition selection, on the disk before this returns; only then is it drawn.

        It bounds words by `unit` (document or person) of the corpus named by `scope`, as a plan's
        fields do: runs of another are refused beside it.

        Its noise costs order / (2 noise_multiplier^2) of divergence, its threshold half of its
        delta, in the ledger's column. Each draw is charged anew. Raises UserError over what is
        left.
        """
        with self._journal.exclusive():
            self._write(
                "select",
                label=label,
                epsilon=selection.epsilon,
                delta=selection.delta,
                words_per_unit=selection.words_per_unit,
                unit=unit,
                scope=scope,
                threshold_delta=selection.threshold_delta,
                divergence=admit_selection(self._state, label, selection, (unit, scope)),
            )

    def choose(self, runs: Sequence[str], *, label: str, epsilon: float | None = None) -> None:
        """Record a choice among `runs`, on the disk before it looks at anything.

        `label` "dp": by an epsilon-DP mechanism, charged like `spend`; "private": by figures of
        private text, not charged, so that no claim on this corpus covers it, nor what is trained
        after it; "public": by nothing private. Raises UserError for an unknown run and over what
        is left.
        """
        if label not in LABELS or (label == "dp") is not (epsilon is not None):
            raise ValueError(f"a choice labelled {label!r} with epsilon {epsilon}")
        with self._journal.exclusive():
            for run_id in runs:
                self._run(run_id)
            divergence = 0.0
            if epsilon is not None:
                divergence = admit_mechanism(self._state, "choice among runs", epsilon, 0.0)
            self._write(
                "choose", runs=list(runs), label=label, epsilon=epsilon or 0.0,
                divergence=divergence,
            )  # fmt: skip

    def note_tombstones(self, lines: int, head: str) -> None:
        """Record how far the file of forgotten persons reaches, so that a cut one is found.

        Nothing is charged; what was noted already is no change.
        """
        with self._journal.exclusive():
            noted = self._state.tombstones
            if lines > (noted["lines"] if noted else 0):
                self._write("tombstones", lines=lines, head=head)

    def _write(self, kind: str, **fields: Any) -> None:
        self._refuse_signer(self._journal.signer)
        self._journal.append(kind, {**fields, "time": _now()})

    def _refuse_signer(self, signer: Signer | None) -> None:
        if (signer.key_id if signer else None) != self._state.key_id:
            raise UserError(
                f"ledger {self._journal.path} with signer {signer.key_id if signer else None}",
                f"it was registered with signer {self._state.key_id}, which signs every entry",
                "give the signing key that registered it",
            )

    def _refuse_uncharged(self, run_id: str, run: Run, steps: int) -> None:
        if whole_number(steps) > run.taken:
            raise UserError(
                f"commit of {steps} steps of run {run_id!r}",
                f"{run.taken} different steps were charged",
                "commit what was charged",
            )

    def _refuse_newer(self, run_id: str, run: Run, steps: int, attempt: int) -> None:
        if whole_number(steps) > run.taken or whole_number(attempt) > run.attempts:
            raise UserError(
                f"run {run_id!r} with a checkpoint of {steps} steps by attempt {attempt}",
                f"ledger {self._journal.path} holds {run.taken} steps of {run.attempts} attempts: "
                "it is an older copy than the checkpoint, and a claim from it would be too low",
                "restore the ledger that the run was charged to",
            )

    def _latest(self, run_id: str, attempt: int) -> Run:
        run = self._run(run_id)
        if attempt != run.attempts:
            raise UserError(
                f"attempt {attempt} of run {run_id!r}",
                f"attempt {run.attempts} is the latest: another process took the run over",
                "end one of the two processes, then resume",
            )
        return run


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
