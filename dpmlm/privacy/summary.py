"""What a statement and a gate need to know of one run: its claim, and the account of its corpus."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from dpmlm.privacy.accountants import describe
from dpmlm.privacy.ancestor import ancestor_of, imported, imports_of, paid_for
from dpmlm.privacy.balance import Balance, write_number
from dpmlm.privacy.headroom import epsilon_after
from dpmlm.privacy.plan import PrivacyPlan

SLACK = 1e-3
"""Part by which another version of an accountant may count otherwise."""


def summarise(balance: Balance, run_id: str) -> dict[str, Any]:
    """JSON object of what `Ledger.summary` says of the run, without the state of the file."""
    run, cap, lineage = balance.runs[run_id], balance.cap, balance.spent()
    choices = list(balance.choices)
    account = {
        "run_id": run_id,
        "corpus": balance.corpus,
        "plan_digest": run.plan.digest,
        "unit": run.plan.unit,
        "basis": "plan" if balance.alone else "filter",
        "reserved_steps": run.plan.steps,
        "charged_steps": run.charged,
        "billed_steps": run.billed,
        "committed_steps": run.committed,
        "claimed_steps": run.claimed,
        "attempts": run.attempts,
        "cap": {"epsilon": write_number(cap.epsilon), "delta": cap.delta, "order": cap.order},
        "lineage": {
            "runs": len(balance.runs),
            "mechanisms": balance.others,
            "selections": [dict(selection) for selection in balance.selections],
            **_imports(balance),
            "epsilon": write_number(lineage.epsilon),
            "delta": lineage.delta,
        },
        "choices": choices,
        "choices_charged": _charged(choices),
        "key_id": balance.key_id,
    }
    epsilon, delta = claim_of(run.plan, account)
    filtered = not balance.alone and math.isfinite(epsilon)
    ours = f"Renyi filter of order {cap.order:g}, {describe('rdp')}"
    return {
        **account,
        "epsilon": write_number(epsilon),
        "delta": delta,
        "accountant": ours if filtered else describe(run.plan.accountant),
    }


def claim_of(plan: PrivacyPlan, summary: Mapping[str, Any]) -> tuple[float, float]:
    """Epsilon and delta that a summary of `plan` has to say, from its steps, its lineage and its
    cap alone: for somebody who has no ledger to read.

    Raises KeyError, TypeError or ValueError for a summary that says too little or cannot be.
    """
    cap, lineage = summary["cap"], summary["lineage"]
    alone = summary["basis"] == "plan"
    if alone is not (lineage["runs"] == 1 and not lineage["mechanisms"]):
        raise ValueError("the basis is not that of the lineage")
    committed, charged = int(summary["committed_steps"]), int(summary["charged_steps"])
    if summary["reserved_steps"] != plan.steps or not 0 <= committed <= charged:
        raise ValueError("steps are charged under their plan before they are committed")
    if summary["choices_charged"] is not _charged(summary["choices"]):
        raise ValueError("choices are charged or not as each of them says")
    claimed, billed = int(summary["claimed_steps"]), int(summary["billed_steps"])
    different = plan.steps + charged - billed
    if not 0 <= different <= min(plan.steps, charged) or claimed not in (different, billed):
        raise ValueError("claimed are the different steps charged, or all that are billed")
    if not claimed or (not committed and claimed != billed):
        raise ValueError("all that is billed is claimed before a commit")
    if committed > different and committed != charged:
        raise ValueError("what is committed was charged")
    if int(summary["attempts"]) < (2 if charged > different else 1 if charged else 0):
        raise ValueError("a step is drawn again by another attempt")
    _check_lineage(plan, summary)
    if plan.bands > 1 and (0 < committed < plan.steps or claimed < plan.steps):
        raise ValueError("correlated noise is accounted for over all steps of its plan")
    ancestor = ancestor_of(plan)
    if not paid_for(ancestor, summary):
        raise ValueError("the release that the plan continues is charged")
    if alone:
        epsilon, more = imported(summary)
        if more and plan.private and plan.delta + more > cap["delta"] * (1 + SLACK):
            raise ValueError("deltas add up to more than the cap's")
        return epsilon_after(plan, claimed) + epsilon, plan.delta + more
    if lineage["epsilon"] == "inf":
        return math.inf, plan.delta
    if not 0 < float(lineage["epsilon"]) <= float(cap["epsilon"]) * (1 + SLACK):
        raise ValueError("more was charged to the corpus than its cap holds")
    return float(cap["epsilon"]), float(cap["delta"])


def _imports(balance: Balance) -> dict[str, Any]:
    """Releases that runs of the ledger continue; nothing where none does."""
    found = [one.to_json() for one in balance.imports.values()]
    return {"imports": found} if found else {}


def _check_lineage(plan: PrivacyPlan, summary: Mapping[str, Any]) -> None:
    lineage = summary["lineage"]
    paid = sum(choice["label"] == "dp" for choice in summary["choices"])
    if lineage["mechanisms"] < len(lineage["selections"]) + paid:
        raise ValueError("selections and charged choices are mechanisms")
    if any(one["here"] is True for one in imports_of(summary)) and lineage["runs"] < 2:
        raise ValueError("a release of the ledger is of another run in it")
    if plan.private and not plan.delta <= summary["cap"]["delta"] < 1:
        raise ValueError("a plan's delta is at most that of the cap")


def _charged(choices: Iterable[Mapping[str, Any]]) -> bool:
    """Whether no choice on the corpus looked at private text for nothing."""
    return all(choice["label"] != "private" for choice in choices)
