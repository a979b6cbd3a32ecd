"""What the cap of a corpus admits: a plan, a step drawn again, another mechanism.

Admitted is everything whose divergences fit the filter, or else **one** plan alone whose own
epsilon, at all its charged steps, fits the cap (PLD is tighter than RDP; with a single plan fixed
beforehand nothing is adaptive). The second door closes for good with the second entry.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from dpmlm.errors import UserError
from dpmlm.privacy.accountants import AccountantFailure, renyi_divergence
from dpmlm.privacy.balance import Balance, Run
from dpmlm.privacy.headroom import fitting_epsilon, pld_epsilon, steps_within
from dpmlm.privacy.plan import PrivacyPlan
from dpmlm.privacy.selection import PartitionSelection


def admit_plan(balance: Balance, plan: PrivacyPlan) -> Run:
    """The run that a reservation of `plan` adds; the whole plan is billed at once.

    Raises UserError for a run without privacy under a finite cap, a delta above the cap's, and a
    budget larger than what is left.
    """
    cap = balance.cap
    if not plan.private and math.isfinite(cap.epsilon):
        raise UserError(
            f"a run that promises nothing ({plan.unprotected}) on ledger {balance.path}",
            f"its cap is epsilon {cap.epsilon:g}, which no claim survives after such a run",
            "use another corpus, or register this one with epsilon inf",
        )
    if plan.private and plan.delta > cap.delta:
        raise UserError(
            f"plan with delta {plan.delta:g}",
            f"the ledger's cap has delta {cap.delta:g}",
            "lower privacy.delta",
        )
    _refuse_other_unit(balance, plan)
    run = Run(plan, *divergences(plan, cap.order))
    if not _fits(balance, [*balance.runs.values(), run]):
        raise _over_cap(balance, run)
    return run


def _refuse_other_unit(balance: Balance, plan: PrivacyPlan) -> None:
    """What a run leaves is bounded for its own unit; a later run that was chosen after it can
    promise no other. Words of a vocabulary are bounded by document or person."""
    units = {run.plan.unit for run in balance.runs.values() if run.plan.private}
    others = sorted(units - {plan.unit}) if plan.private else []
    if others or (plan.unit == "sequence" and balance.selections):
        there = f"runs of unit {', '.join(others)}" if others else "a vocabulary of private text"
        raise UserError(
            f"plan of unit {plan.unit}",
            f"ledger {balance.path} holds {there}, and what they left is not bounded for one "
            f"{plan.unit}",
            "keep to one unit on a corpus",
        )


def check_repeat(balance: Balance, run_id: str) -> None:
    """Raises UserError when one more charge to the run, beyond its plan, passes the cap."""
    run = balance.runs[run_id]
    more = replace(run, charged=run.charged + 1)  # of a step that is charged already
    if not _fits(balance, list({**balance.runs, run_id: more}.values())):
        raise UserError(
            f"step {more.charged} charged to run {run_id!r} of {run.plan.steps} planned",
            "steps drawn again after a crash are charged again, and no budget is left "
            f"under the cap of epsilon {balance.cap.epsilon:g}",
            "commit the steps of the last checkpoint, or ask whoever registered the corpus",
        )


def admit_mechanism(balance: Balance, label: str, epsilon: float, delta: float) -> float:
    """Divergence of an (epsilon, delta)-DP mechanism. Raises UserError over what is left."""
    if not 0 < epsilon < math.inf or not 0 <= delta < 1:
        raise UserError(
            f"mechanism {label!r} of epsilon {epsilon}, delta {delta}",
            "epsilon must be finite and above 0, delta in [0, 1)",
            "charge what the mechanism proves",
        )
    divergence = balance.cap.divergence_of(epsilon)
    _refuse_over(balance, label, divergence, delta)
    return divergence


def admit_selection(balance: Balance, label: str, selection: PartitionSelection) -> float:
    """Divergence of a selection's noise; its threshold spends delta of the column.

    Less than an (epsilon, delta)-DP mechanism of the same budget costs. Raises UserError over what
    is left.
    """
    if any(run.plan.unit == "sequence" for run in balance.runs.values()):
        raise UserError(
            f"mechanism {label!r}",
            "words are bounded by document or person, and this corpus has runs of unit sequence",
            "take a public vocabulary",
        )
    divergence = selection.divergence(balance.cap.order)
    _refuse_over(balance, label, divergence, selection.threshold_delta)
    return divergence


def _refuse_over(balance: Balance, label: str, divergence: float, delta: float) -> None:
    cap = balance.cap
    total = balance.divergence() + divergence
    if total > cap.rdp or balance.other_delta + delta > cap.column:
        left = balance.left()
        raise UserError(
            f"mechanism {label!r} costs {divergence:.4g} of the ledger's divergence and "
            f"{delta:g} of its delta",
            f"{left.rdp:.4g} and {left.delta:.4g} are left",
            "spend less, or ask whoever registered the corpus",
        )


def divergences(plan: PrivacyPlan, order: float) -> tuple[float, float]:
    """Renyi divergence of the whole plan and of a step drawn again; `inf` where only the door for
    one plan alone stays open."""
    if not plan.private:
        return math.inf, math.inf
    try:
        whole = renyi_divergence(plan.composition(), order)
        return whole, renyi_divergence(plan.largest_step(), order)
    except AccountantFailure:
        return math.inf, math.inf


def _fits(balance: Balance, runs: Sequence[Run]) -> bool:
    """Whether `runs` are admitted together with the mechanisms charged so far."""
    cap = balance.cap
    if math.isinf(cap.epsilon) or balance.divergence(runs) <= cap.rdp:
        return True
    if len(runs) > 1 or balance.others:
        return False
    plan, billed = runs[0].plan, runs[0].billed
    if billed == plan.steps:
        return pld_epsilon(plan, billed) <= cap.epsilon
    return billed <= steps_within(plan, cap.epsilon)


def _over_cap(balance: Balance, run: Run) -> UserError:
    cap, left = balance.cap, balance.left()
    if run.plan.max_batch_size is not None and not balance.untouched:
        return UserError(
            f"a plan of epsilon {run.plan.epsilon:g} with a largest batch of "
            f"{run.plan.max_batch_size} units",
            f"samples that are cut have no Renyi bound, so such a plan stands alone on its corpus, "
            f"and {balance.path} holds other charges",
            "leave privacy.max_batch_size null, or use another corpus",
        )
    if balance.untouched:
        advice = f"set privacy.epsilon to {cap.epsilon:g} or less"
    elif fits := fitting_epsilon(run.plan, left.rdp, cap.order):
        advice = f"lower privacy.epsilon to {fits:g} at these steps and batch"
    else:
        advice = "nothing fits any more: ask whoever registered the corpus"
    return UserError(
        f"a plan of epsilon {run.plan.epsilon:g} "
        f"({run.cost:.4g} of the ledger's divergence at order {cap.order:g})",
        f"epsilon {left.epsilon:.4g} (divergence {left.rdp:.4g}) is left of the cap "
        f"{cap.epsilon:g} on {balance.path}",
        advice,
    )
