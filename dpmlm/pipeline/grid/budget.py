"""What a grid costs: told before the first cell, refused where the ledger cannot carry it whole.

On a private corpus every cell is a run of the ledger like any other, each reserved when it is
trained. The grid as a whole is asked for beforehand, so that it is not found out half way that
the budget has gone and the question is still open.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dpmlm.artifacts import load_secret_key
from dpmlm.canonical import digest
from dpmlm.config import LedgerConfig, RunConfig, claim_fields
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import budget_text, open_ledger
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.grid.axes import Cell, Grid
from dpmlm.pipeline.models import plan_of, planned
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.secrets import RunSecrets
from dpmlm.pipeline.vocabulary import FOLDER, selection_of
from dpmlm.pipeline.workspace import Workspace
from dpmlm.privacy import Budget, Ledger, PartitionSelection, PrivacyPlan


@dataclass(frozen=True)
class Price:
    """What the cells that are still to be reserved will be charged."""

    cells: int
    """Of the grid."""
    charged: int
    """Of these, reserved by an earlier attempt: they cost nothing more."""
    plans: tuple[PrivacyPlan, ...]
    """Of the others, in their order; none on a public corpus."""
    account: "Account | None"
    """None on a public corpus."""

    @property
    def epsilons(self) -> list[float]:
        """Of each cell that is still to be charged."""
        return [plan.epsilon for plan in self.plans]

    @property
    def asks(self) -> bool:
        """Whether somebody has to agree: something will be charged."""
        return bool(self.plans)

    def to_json(self) -> dict[str, Any]:
        return {
            "cells": self.cells,
            "charged_before": self.charged,
            "to_charge": len(self.plans),
            "epsilon_a_cell": self.epsilons,
            "account": asdict(self.account) if self.account else None,
        }

    def text(self) -> str:
        """As it is asked for."""
        begun = f", {self.charged} of them charged before" if self.charged else ""
        if self.account is None:
            return f"{self.cells} runs; the corpus is public, so that nothing is charged"
        low, high = (f(self.epsilons, default=0.0) for f in (min, max))
        each = f"epsilon {low:g}" if low == high else f"epsilon {low:g} to {high:g}"
        account = self.account
        return "\n".join(
            [
                f"{self.cells} runs{begun}",
                f"to charge   {len(self.plans)}" + (f", {each} each" if self.plans else ""),
                f"ledger      {account.ledger}",
                f"spent       {_spent(account.before)}",
                f"with all    {_spent(account.after)}, of a cap of {budget_text(account.cap)}",
            ]
        )


@dataclass(frozen=True)
class Account:
    """The corpus' ledger before the grid and after it."""

    ledger: str
    cap: dict[str, float]
    """Epsilon and delta that all runs share."""
    before: Budget
    """Spent so far."""
    after: Budget
    """Spent once all cells are reserved."""


def price_of(grid: Grid) -> Price:
    """What is still to be charged. Raises UserError, with the largest grid that fits, where the
    ledger has no room for all of it; nothing is charged by then."""
    if grid.public:
        return Price(len(grid.cells), 0, (), None)
    run = Run.load(grid.cells[0].config, Progress(quiet=True))
    ledger = open_ledger(grid.cells[0].config.ledger)
    fresh = [cell for cell in grid.cells if not _reserved(run, cell, ledger)]
    plans = _plans(fresh)
    fit, after = 0, ledger.spent()
    if plans:
        fit, after = ledger.affordable(plans, beside=_selection(grid))
    if fit < len(plans):
        raise _too_large(grid, plans, fit, ledger)
    cap = dict(zip(("epsilon", "delta"), ledger.cap, strict=True))
    account = Account(str(ledger.path), cap, ledger.spent(), after)
    return Price(len(grid.cells), len(grid.cells) - len(fresh), tuple(plans), account)


def register_public(name: str, config: LedgerConfig) -> None:
    """The ledger of a grid on public text: without a cap, so without a claim."""
    if not config.path.exists():
        Ledger.register(
            config.path,
            epsilon=config.cap.epsilon,
            delta=config.cap.delta,
            corpus=f"{name} (public text)",
        )


def _reserved(run: Run, cell: Cell, ledger: Ledger) -> bool:
    """Whether an earlier attempt at the cell stands in the ledger."""
    mine = run_of(cell, run)
    return mine.finished("plan") is not None and planned(mine)[1] in ledger.run_ids


def run_of(cell: Cell, base: Run) -> Run:
    """The run of a cell, as `Run.load` has it, with the keys that are loaded already.

    Masks and windows follow from the cell's seed. What the text was read with does not, so that
    all cells share it.
    """
    config = cell.config
    place, secrets = Workspace(config.workspace), _secrets_of(config, base)
    return replace(base, config=config, workspace=place, secrets=secrets, memo={})


def _secrets_of(config: RunConfig, base: Run) -> RunSecrets:
    """Those of the cell's seed; the key, which may lie in a service, is read once a seed."""
    if config.seed == base.config.seed:
        return base.secrets
    name = f"secrets of seed {config.seed}"
    if name not in base.memo:
        base.memo[name] = RunSecrets.derive(load_secret_key(config.keys.scrub), config.seed)
    found: RunSecrets = base.memo[name]
    return found


def _plans(cells: Sequence[Cell]) -> list[PrivacyPlan]:
    """A plan each; noise is calibrated once for all that share a budget and its steps, and
    continue one release."""
    known: dict[str, PrivacyPlan] = {}
    plans = []
    for cell in cells:
        config = cell.config
        fields = [claim_fields(config.privacy), claim_fields(config.training)]
        key = digest([*fields, str(config.model.continues)])
        if key not in known:
            known[key] = plan_of(cell.config)
        plans.append(known[key])
    return plans


def _selection(grid: Grid) -> PartitionSelection | None:
    """Of a vocabulary that is still to be drawn from the private text, once for all cells."""
    private = grid.base.tokens.private
    drawn = grid.folder / "text" / "tokens" / FOLDER / "manifest.sealed"
    return None if private is None or drawn.exists() else selection_of(private)


def _too_large(grid: Grid, plans: Sequence[PrivacyPlan], fit: int, ledger: Ledger) -> UserError:
    whole = fit // len(grid.settings)
    largest = f"{fit} of them fit"
    if whole:
        largest += f", {whole} seed{'s' if whole > 1 else ''} of all {len(grid.settings)} settings"
    lower = _fitting(plans, ledger)
    advice = f"ask for at most {fit}" if fit else "no cell fits"
    if lower:
        advice += f", or set privacy.epsilon to {lower:g}: then all fit"
    return UserError(
        f"{len(plans)} runs to charge, the first of epsilon {plans[0].epsilon:g}",
        f"ledger {ledger.path} has a cap of epsilon {ledger.cap[0]:g}; {largest}",
        f"{advice} (nothing was charged)",
    )


def _fitting(plans: Sequence[PrivacyPlan], ledger: Ledger) -> float | None:
    """Epsilon at which all plans of one kind would fit; None where they differ or nothing does."""
    if len({plan.digest for plan in plans}) > 1 or not plans[0].private:
        return None
    return ledger.fitting_epsilon(plans[0], len(plans))


def _spent(budget: Budget) -> str:
    return budget_text({"epsilon": budget.epsilon, "delta": budget.delta})
