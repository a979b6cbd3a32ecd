"""What the cap of a corpus admits: a plan, a step drawn again, another mechanism.

Admitted is everything whose divergences fit the filter, or else **one** plan alone whose own
epsilon, at all its charged steps, fits the cap (PLD is tighter than RDP; with a single plan fixed
beforehand nothing is adaptive). The second door closes for good with the second entry. Releases of
other ledgers that a run continues count in both: in the filter as (epsilon, delta)-DP mechanisms,
at the second door with their epsilons and deltas, added to those of the plan.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

from dpmlm.errors import UserError
from dpmlm.privacy.accountants import AccountantFailure, renyi_divergence
from dpmlm.privacy.balance import NEIGHBOURS, Balance, Import, Run
from dpmlm.privacy.headroom import epsilon_after, fitting_epsilon, pld_epsilon, steps_within
from dpmlm.privacy.plan import PrivacyPlan
from dpmlm.privacy.selection import PartitionSelection


def admit_plan(balance: Balance, plan: PrivacyPlan, *, slack: float = 0.0) -> Run:
    """The run that a reservation of `plan` adds; the whole plan is billed at once.

    `slack` is the part of the cap that may be passed, for whoever counts again with other versions.

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
    balance = balance.inheriting(plan)
    _refuse_other_neighbours(balance, plan)
    run = Run(plan, *divergences(plan, cap.order))
    if not _fits(balance, [*balance.runs.values(), run], slack):
        raise _over_cap(balance, run)
    return run


def admit_plans(balance: Balance, plans: Sequence[PrivacyPlan]) -> tuple[int, Balance]:
    """How many of `plans`, reserved one after the other, the cap admits, and the balance then."""
    after = copy.copy(balance)
    after.runs = dict(balance.runs)
    for number, plan in enumerate(plans):
        try:
            run = admit_plan(after, plan)
        except UserError:
            return number, after
        after = after.inheriting(plan)
        # The space keeps it apart from every run: names of runs hold none.
        after.runs[f"plan {number}"] = run
    return len(plans), after


def _refuse_other_neighbours(balance: Balance, plan: PrivacyPlan) -> None:
    """What a run or a vocabulary leaves is bounded for its own unit and its own corpus, the source
    or the deduplicated one; a run that was chosen after it can promise no other."""
    if plan.private:
        _refuse_beside(balance, f"plan of unit {plan.unit}", (plan.unit, plan.scope))


def _refuse_beside(balance: Balance, given: str, neighbours: tuple[str, str]) -> None:
    there = {(r.plan.unit, r.plan.scope) for r in balance.runs.values() if r.plan.private}
    there |= {(one["unit"], one["scope"]) for one in balance.selections}
    there |= {(one.unit, one.scope) for one in balance.imports.values()}
    for unit, scope in sorted(there - {neighbours}):
        raise UserError(
            f"{given}, {neighbours[1]}",
            f"ledger {balance.path} holds a charge by {unit}, {scope}, and what that left is not "
            f"bounded for one {neighbours[0]} of the {neighbours[1]}",
            "keep to one unit and one mode of dedup on a corpus",
        )


def check_repeat(balance: Balance, run_id: str, *, slack: float = 0.0) -> None:
    """Raises UserError when one more charge to the run, beyond its plan, passes the cap."""
    run = balance.runs[run_id]
    more = replace(run, charged=run.charged + 1)  # of a step that is charged already
    if not _fits(balance, list({**balance.runs, run_id: more}.values()), slack):
        raise UserError(
            f"step {more.charged} charged to run {run_id!r} of {run.plan.steps} planned",
            "steps drawn again after a crash are charged again, and no budget is left "
            f"under the cap of epsilon {balance.cap.epsilon:g}",
            "commit the steps of the last checkpoint, or ask whoever registered the corpus",
        )


def admit_mechanism(
    balance: Balance, label: str, epsilon: float, delta: float, *, slack: float = 0.0
) -> float:
    """Divergence of an (epsilon, delta)-DP mechanism. Raises UserError over what is left."""
    if not 0 < epsilon < math.inf or not 0 <= delta < 1:
        raise UserError(
            f"mechanism {label!r} of epsilon {epsilon}, delta {delta}",
            "epsilon must be finite and above 0, delta in [0, 1)",
            "charge what the mechanism proves",
        )
    divergence = balance.cap.divergence_of(epsilon)
    _refuse_over(balance, label, divergence, delta, slack)
    return divergence


def admit_selection(
    balance: Balance,
    label: str,
    selection: PartitionSelection,
    neighbours: tuple[str, str],
    *,
    slack: float = 0.0,
) -> float:
    """Divergence of a selection's noise; its threshold spends delta of the column.

    Less than an (epsilon, delta)-DP mechanism of the same budget costs. Raises UserError over what
    is left.
    """
    if neighbours not in NEIGHBOURS:
        raise UserError(
            f"mechanism {label!r} of unit {neighbours[0]}",
            "words are bounded by document or person",
            "take a public vocabulary",
        )
    _refuse_beside(balance, f"mechanism {label!r} of unit {neighbours[0]}", neighbours)
    divergence = selection.divergence(balance.cap.order)
    _refuse_over(balance, label, divergence, selection.threshold_delta, slack)
    return divergence


def _refuse_over(
    balance: Balance, label: str, divergence: float, delta: float, slack: float
) -> None:
    cap, more = balance.cap, 1 + slack
    total, column = balance.divergence() + divergence, balance.column + delta
    if total > cap.rdp * more or column > cap.column * more:
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


def _fits(balance: Balance, runs: Sequence[Run], slack: float = 0.0) -> bool:
    """Whether `runs` are admitted together with the mechanisms charged so far.

    While one run stands alone beside a continued release, their sum is what will be claimed, and it
    has to fit whether the filter would hold it or not.
    """
    cap, more = balance.cap, 1 + slack
    epsilon, delta = balance.imported()
    alone = len(runs) <= 1 and not balance.others
    if math.isinf(cap.epsilon):
        return True
    filtered = balance.divergence(runs) <= cap.rdp * more and balance.column <= cap.column * more
    if not alone or (filtered and not epsilon):
        return filtered
    if not runs:
        return epsilon <= cap.epsilon * more and delta <= cap.delta * more
    plan, billed, most = runs[0].plan, runs[0].billed, cap.epsilon * more
    if epsilon:
        whole = epsilon + epsilon_after(plan, billed)
        return whole <= most and plan.delta + delta <= cap.delta * more
    if billed == plan.steps:
        return pld_epsilon(plan, billed) <= most
    return billed <= steps_within(plan, most)


def admit_import(balance: Balance, charge: Import, *, slack: float = 0.0) -> None:
    """Raises UserError where the cap does not hold a release that is continued, or holds it beside
    charges of another unit or corpus."""
    model, given = charge.ancestor.model, f"continued release {charge.ancestor.release[:19]}"
    _refuse_beside(balance, f"{given} of unit {charge.unit}", (charge.unit, charge.scope))
    after = copy.copy(balance)
    after.imports = {**balance.imports, model: charge}
    if not _fits(after, list(after.runs.values()), slack):
        raise UserError(
            f"{given} of epsilon {charge.ancestor.epsilon:g}, delta {charge.ancestor.delta:g}",
            f"that is more than is left of the cap {balance.cap.epsilon:g}",
            "ask whoever registered the corpus",
        )


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
    inherited, its_delta = balance.imported()
    if inherited and not balance.others and not balance.runs:
        return _over_beside_release(balance, run, inherited, its_delta)
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


def _over_beside_release(balance: Balance, run: Run, epsilon: float, delta: float) -> UserError:
    """What is said of a first run where it is the continued release that leaves too little."""
    cap = balance.cap
    room, left = cap.epsilon - epsilon, cap.delta - delta
    advice = "continue a release of less, or ask whoever registered the corpus for a larger cap"
    if room >= 0.05 and left > 0:
        shown = math.floor(room * 1e4) / 1e4
        advice = f"set privacy.epsilon to {shown:g} or less and privacy.delta to {left:.3g} or less"
    return UserError(
        f"a plan of epsilon {run.plan.epsilon:g}, delta {run.plan.delta:g} that continues a "
        f"release of epsilon {epsilon:g}, delta {delta:g}",
        f"they add up, and the cap on {balance.path} is epsilon {cap.epsilon:g}, "
        f"delta {cap.delta:g}",
        advice,
    )
