"""The few figures that matter most, and the promise in numbers: for the page and the model card."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from dpmlm.release.facts import number
from dpmlm.release.gate import Decision
from dpmlm.release.report import charts, words
from dpmlm.release.report.data import ReportData


class Figure(NamedTuple):
    """One figure, readable by somebody who sees nothing else."""

    name: str
    value: str
    note: str
    """A few words beside it."""
    says: str
    """What it means, in a sentence."""
    bad: bool = False
    """Whether it breaks the promise or a rule."""


NONE = "—"
"""Stands where there is no figure."""


def promise(data: ReportData) -> dict[str, Any]:
    """The promise in numbers that the template turns into sentences."""
    epsilon = number(data.statement.get("epsilon", data.ledger.get("epsilon", "inf")))
    delta = number(data.statement.get("delta", data.plan.get("delta"))) or 0.0
    bound = math.inf if epsilon is None else epsilon
    beliefs = [
        {"before": name, "after": after, "meter": charts.meter(after)}
        for prior, name in words.PRIORS
        for after in [words.posterior(prior, bound, delta)]
    ]
    return {
        "epsilon": bound,
        "delta": delta,
        "slack": words.one_in(delta),
        "unit": data.plan["unit"],
        "strength": words.strength(bound),
        "beliefs": beliefs,
        "private": not math.isinf(bound),
    }


def key_figures(
    claim: Mapping[str, Any], evidence: Mapping[str, Any], decision: Decision
) -> list[Figure]:
    """Promise, attacks, secrets and rules; `claim` is `promise`, the rest as in that copy."""
    target = (evidence.get("subjects") or {}).get("target") or {}
    return [
        _promised(claim),
        _attacks(claim, evidence, target),
        _secrets(evidence, target),
        _rules(decision),
    ]


def tested(evidence: Mapping[str, Any]) -> list[str]:
    """The declared tests that could be held against the promise of the released model."""
    target = (evidence.get("subjects") or {}).get("target") or {}
    declared = (evidence.get("declared") or {}).get("tests") or ()
    return [test for test in declared if (target.get(test) or {}).get("rejected") is not None]


def noticing(evidence: Mapping[str, Any]) -> list[str]:
    """Those of `tested` that could have noticed a leak: silence of any other proves nothing."""
    power = evidence.get("power") or {}
    if power.get("status") != "shown":
        return []
    able = power.get("tests") or {}
    return [test for test in tested(evidence) if (able.get(test) or {}).get("power") is True]


def _promised(claim: Mapping[str, Any]) -> Figure:
    name = f"Promise, per {claim['unit']}"
    if not claim["private"]:
        says = f"Nothing limits what one {claim['unit']} can change about the model."
        return Figure(name, "none", "trained without privacy", says)
    says = (
        f"The limit on what one {claim['unit']} can change about the model: the smaller, the "
        f"stronger. The limit itself may fail with a chance of {claim['slack']}."
    )
    note = f"smaller is stronger; slack δ: {claim['slack']}"
    return Figure(name, f"ε\u00a0=\u00a0{claim['epsilon']:.5g}", note, says)


def _attacks(
    claim: Mapping[str, Any], evidence: Mapping[str, Any], target: Mapping[str, Any]
) -> Figure:
    name = "Attacks beyond the promise"
    tried = len(tested(evidence))
    if not tried:
        note = "they could not be tried" if claim["private"] else "there is no promise to go beyond"
        note = note if target else "nobody tried"
        return Figure(name, NONE, note, f"No attack could show more than the promise: {note}.")
    beyond = len(target.get("rejected_by") or ())
    able = len(noticing(evidence))
    note = (
        f"{able} of {tried} could have noticed a leak"
        if able
        else "not shown that they would notice a leak"
    )
    says = (
        "Attacks that were declared beforehand and got more out of the model than the promise "
        f"allows; {note}."
    )
    return Figure(name, f"{beyond} of {tried}", note, says, bad=beyond > 0)


def _secrets(evidence: Mapping[str, Any], target: Mapping[str, Any]) -> Figure:
    name, part = "Planted secrets read out", target.get("canary_extraction") or {}
    if "extracted" not in part:
        planted = "canaries" in (target.get("gating") or {})
        note = "that could not be tried" if planted else "none were planted"
        return Figure(name, NONE, note, f"Nobody knows whether it repeats a secret: {note}.")
    says = (
        "Made-up secrets that were hidden in the training text and came out again when the model "
        "was asked to fill in the gap."
    )
    value, note = f"{part['extracted']} of {part['n']}", "each hidden in the training text"
    twin = ((evidence.get("subjects") or {}).get("control") or {}).get("canary_extraction") or {}
    # Without a promise nothing is tested, and what the twin said has to do.
    judged = "canary_extraction" in tested(evidence)
    able = "canary_extraction" in noticing(evidence) if judged else twin.get("extracted")
    if not part["extracted"] and not able:
        note = "not shown to notice a leak"
        beside = ""
        if "extracted" in twin:
            beside = f"; of the leaky twin it read out {twin['extracted']} of {twin['n']}"
        says += (
            " It was not shown that this would notice a leak, so that finding none proves "
            f"nothing{beside}."
        )
    return Figure(name, value, note, says, bad=part["extracted"] > 0)


def _rules(decision: Decision) -> Figure:
    holds, broken = len(decision.of("pass")), len(decision.of("fail"))
    open_ = len(decision.of("inconclusive", "error"))
    says = f"Rules of the policy {decision.policy} that this model keeps; one broken rule locks it."
    note = f"{broken} broken, {open_} undecided"
    value = f"{holds} of {len(decision.rules)}"
    return Figure("Rules that hold", value, note, says, bad=broken > 0)
