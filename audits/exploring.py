"""Exploratory groups of canaries: other families, insertion counts and arms, never pooled.

No test of the claim looks at them. They say what kinds of secrets a model takes up, and after how
many insertions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from audits.claim.gating import trade_off_curve
from audits.exposures.exposure import exposures, mean_ceiling
from audits.exposures.group_exposure import group_exposure
from audits.extraction import baseline_rate, extracted
from audits.models import LoadedModel
from audits.planting.canaries import CanaryGroup, CanarySet
from audits.planting.families import case_of
from audits.planting.insertion import effective_exposures
from audits.scores.scoring import NOT_FINITE, greedy_in_alphabets, joint_logprobs, secret_positions
from audits.scores.sequence import SpanScorer
from audits.statistics import clopper_pearson
from dpmlm.artifacts import UserError

SAMPLES = 1000
"""Other secrets of its kind that a structured secret is ranked among."""


def explore(
    canaries: CanarySet,
    models: Mapping[str, LoadedModel | None],
    plan: Mapping[str, Any],
    *,
    seed: bytes | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Of each exploratory group its public facts and, by model, exposure and extraction.

    Secrets that are products of token alphabets are ranked exactly, structured ones among `SAMPLES`
    others drawn alike (`seed` fixes these; the operating system supplies it by default). A group
    that went through the pipeline is labelled private: which of its documents survived depends on
    the text.
    """
    return [_explored(group, models, plan, seed, progress) for group in canaries.groups]


def _explored(
    group: CanaryGroup,
    models: Mapping[str, LoadedModel | None],
    plan: Mapping[str, Any],
    seed: bytes | None,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    private = group.arm == "pipeline"
    head: dict[str, Any] = {"label": "private"} if private else {}
    epsilon = _claimed(group, plan)
    by_model: dict[str, Any] = {}
    for name, model in models.items():
        if model is None:
            by_model[name] = None
        elif group.exact:
            by_model[name] = _exact(group, model, epsilon, float(plan["delta"]))
        else:
            by_model[name] = _sampled(group, model, epsilon, float(plan["delta"]), private, seed)
        if progress is not None and model is not None:
            progress(len(group.canaries))
    return {
        **head,
        **group.public(),
        "name": group.name,
        "claimed_epsilon": epsilon,
        "effective_exposures": effective_exposures(plan, copies=group.copies, arm=group.arm),
        "models": by_model,
    }


def _claimed(group: CanaryGroup, plan: Mapping[str, Any]) -> float | None:
    """What the claim comes to for all copies of one canary; None where no curve is known."""
    if not math.isfinite(float(plan["epsilon"])):
        return None
    try:
        return trade_off_curve(plan, group.copies).epsilon(float(plan["delta"]))
    except UserError:  # copies of a secret in a plan with bands, or with samples that are cut
        return None


def _exact(
    group: CanaryGroup, model: LoadedModel, epsilon: float | None, delta: float
) -> dict[str, Any]:
    rows = group.canaries
    logprobs, decoded = joint_logprobs(model, rows), greedy_in_alphabets(model, rows)
    if not (np.isfinite(logprobs).all() and (decoded >= 0).all()):
        return {"applicable": False, "reason": NOT_FINITE}
    coins = np.array([canary.included for canary in rows])
    bits = np.array([one.conservative for one in exposures(logprobs, secret_positions(rows))])
    hits = extracted(rows, logprobs, decoded)
    ceiling = None if epsilon is None else mean_ceiling(epsilon, delta, group.space_bits)
    return {
        "applicable": True,
        "method": "exact",
        "score": "joint",
        "in": _side(bits[coins], hits[coins]),
        "out": _side(bits[~coins], hits[~coins]),
        "ceiling_bits": ceiling,
        "baseline_rate": baseline_rate(rows),
    }


def _side(bits: np.ndarray, hits: np.ndarray) -> dict[str, Any]:
    count = len(bits)
    return {
        "n": count,
        "mean_bits": float(bits.mean()) if count else None,
        "max_bits": float(bits.max()) if count else None,
        "extracted": int(hits.sum()),
        "extracted_interval": list(clopper_pearson(int(hits.sum()), count)) if count else None,
    }


def _sampled(
    group: CanaryGroup,
    model: LoadedModel,
    epsilon: float | None,
    delta: float,
    private: bool,
    seed: bytes | None,
) -> dict[str, Any]:
    case = case_of(group, model.tokenizer, secret=seed)
    place = {canary.id: at for at, canary in enumerate(group.canaries)}

    def others(canary: Any, count: int) -> Sequence[tuple[int, ...]]:
        rows = case.alternatives(place[canary.id], count)
        return [row.tokens[row.span[0] : row.span[1]] for row in rows]

    return group_exposure(
        SpanScorer(model),
        group.canaries,
        others,
        samples=SAMPLES,
        rule="joint",
        epsilon=epsilon,
        delta=delta,
        private=private,
        space_bits=group.space_bits,
    )
