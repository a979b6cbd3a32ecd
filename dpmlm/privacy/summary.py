"""What a statement and a gate need to know of one run: its claim, and the account of its corpus."""

import math
from typing import Any

from dpmlm.privacy.accountants import describe
from dpmlm.privacy.balance import Balance, Run, write_number
from dpmlm.privacy.headroom import epsilon_after


def summarise(balance: Balance, run_id: str) -> dict[str, Any]:
    """JSON object of what `Ledger.summary` says of the run, without the state of the file."""
    run, cap, lineage = balance.runs[run_id], balance.cap, balance.spent()
    epsilon, delta, accountant = _claim(balance, run)
    return {
        "run_id": run_id,
        "corpus": balance.corpus,
        "plan_digest": run.plan.digest,
        "unit": run.plan.unit,
        "epsilon": write_number(epsilon),
        "delta": delta,
        "basis": "plan" if balance.alone else "filter",
        "accountant": accountant,
        "reserved_steps": run.plan.steps,
        "charged_steps": run.charged,
        "committed_steps": run.committed,
        "attempts": run.attempts,
        "cap": {"epsilon": write_number(cap.epsilon), "delta": cap.delta, "order": cap.order},
        "lineage": {
            "runs": len(balance.runs),
            "mechanisms": balance.others,
            "selections": [dict(selection) for selection in balance.selections],
            "epsilon": write_number(lineage.epsilon),
            "delta": lineage.delta,
        },
        "key_id": balance.key_id,
    }


def _claim(balance: Balance, run: Run) -> tuple[float, float, str]:
    """Epsilon, delta and accountant of what may be said of the run."""
    plan, cap = run.plan, balance.cap
    if balance.alone:
        steps = run.committed or run.billed
        return epsilon_after(plan, steps), plan.delta, describe(plan.accountant)
    if math.isinf(balance.spent().epsilon):
        return math.inf, plan.delta, describe(plan.accountant)
    accountant = f"Renyi filter of order {cap.order:g}, {describe('rdp')}"
    return cap.epsilon, cap.delta, accountant
