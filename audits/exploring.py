"""Exploratory groups of canaries: other families, insertion counts and arms, never pooled.

No test of the claim looks at them. They say what kinds of secrets a model takes up, and after how
many insertions, by three scores: left to right, whose steps chain to the probability with which
the secret is said; joint; and PLL-word-l2r, which is secondary.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from audits.claim.gating import trade_off_curve
from audits.exposures.group_exposure import group_exposure
from audits.extraction import baseline_rate
from audits.group_scores import DEFAULT, GroupAnswers, GroupsScored
from audits.planting.canaries import CanarySet
from audits.planting.canary import CanaryGroup
from audits.planting.insertion import effective_exposures
from audits.planting.labels import Labels
from audits.scores.scoring import NOT_FINITE
from audits.statistics import clopper_pearson
from dpmlm.artifacts import UserError


def explore(
    canaries: CanarySet, labels: Labels, scored: GroupsScored, plan: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Of each exploratory group its public facts and, by model and score, exposure and extraction.

    A group that went through the pipeline is labelled private: which of its documents survived
    depends on the text.
    """
    return [_explored(group, labels, scored[group.name], plan) for group in canaries.groups]


def _explored(
    group: CanaryGroup,
    labels: Labels,
    scored: Mapping[str, GroupAnswers | None],
    plan: Mapping[str, Any],
) -> dict[str, Any]:
    head: dict[str, Any] = {"label": "private"} if group.arm == "pipeline" else {}
    epsilon, delta = _claimed(group, plan), float(plan["delta"])
    return {
        **head,
        **group.public(),
        "name": group.name,
        "claimed_epsilon": epsilon,
        "effective_exposures": effective_exposures(plan, copies=group.copies, arm=group.arm),
        "default_score": DEFAULT,
        "models": {
            name: None if answers is None else _told(group, labels, answers, epsilon, delta)
            for name, answers in scored.items()
        },
    }


def _claimed(group: CanaryGroup, plan: Mapping[str, Any]) -> float | None:
    """What the claim comes to for all copies of one canary; None where no curve is known."""
    if not math.isfinite(float(plan["epsilon"])):
        return None
    try:
        return trade_off_curve(plan, group.copies).epsilon(float(plan["delta"]))
    except UserError:  # copies of a secret in a plan with bands, or with samples that are cut
        return None


def _told(
    group: CanaryGroup, labels: Labels, answers: GroupAnswers, epsilon: float | None, delta: float
) -> dict[str, Any]:
    """Both sides of a group, by score: the one place where coins are looked at."""
    if not answers:
        return {"applicable": False, "reason": NOT_FINITE}
    coins = np.array(labels.of(group.canaries))
    told: dict[str, Any] = {"applicable": True, "scores": {}}
    for rule, answer in answers.items():
        of = coins[: len(answer.found)]
        told["scores"][rule] = {
            "secondary": rule == "pll_word_l2r",
            "ranked": answer.ranked,
            "canaries_scored": len(of),
            **group_exposure(
                answer.found,
                of,
                space_bits=answer.space_bits,
                epsilon=epsilon,
                delta=delta,
                extrapolate=rule == DEFAULT,
            ),
        }
        if answer.extracted is not None:
            told["extraction"] = {
                "in": _hits(answer.extracted[of]),
                "out": _hits(answer.extracted[~of]),
                "baseline_rate": baseline_rate(group.canaries),
            }
    return told


def _hits(hits: np.ndarray) -> dict[str, Any]:
    count, all_ = int(hits.sum()), len(hits)
    interval = list(clopper_pearson(count, all_)) if all_ else None
    return {"n": all_, "extracted": count, "extracted_interval": interval}
