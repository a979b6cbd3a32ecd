"""Sampled exposure of a group of canaries, inserted ones beside held-out ones, as JSON.

A group is canaries of one family with one number of copies: groups are never pooled.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from audits.exposures.exposure import mean_ceiling
from audits.exposures.sampled import (
    SMALLEST_SAMPLE,
    Alternatives,
    SampledExposure,
    sampled_exposure,
    score_with_alternatives,
)
from audits.exposures.skew_normal import extrapolated_exposure
from audits.planting.canaries import Canary
from audits.scores.scoring import NOT_FINITE
from audits.scores.sequence import Rule, SpanScorer
from dpmlm.artifacts import UserError


def group_exposure(
    scorer: SpanScorer,
    canaries: Sequence[Canary],
    alternatives: Alternatives,
    *,
    samples: int = 1000,
    rule: Rule = "left_to_right",
    epsilon: float | None = None,
    delta: float = 0.0,
    private: bool = False,
    confidence: float = 0.95,
    space_bits: float | None = None,
) -> dict[str, Any]:
    """Exposure of every canary among `samples` alternatives; counts and bits, no secret.

    `alternatives(canary, n)` draws n secrets (token ids) as the canary's was drawn. `epsilon` and
    `delta` are the claim for one canary with all its copies, for the ceiling; `space_bits` is the
    size of a space that is no product of alphabets. Intervals hold for
    all canaries of one side together (Clopper-Pearson at a share of the error each), whatever
    they have to do with each other. `private` marks what rests on private text, as where the
    pipeline decided which canaries reached training. Raises UserError on fewer than 100 samples,
    copies that differ, a sampler that gives too few, rows beyond the model. Scores that are not
    finite make it not applicable.
    """
    _check(canaries, samples)
    head: dict[str, Any] = {"label": "private"} if private else {}
    if not canaries:
        return head | {"applicable": False, "reason": "0 canaries in the group; 1 is needed"}
    sides: dict[str, list[tuple[float, np.ndarray]]] = {"in": [], "out": []}
    scored = score_with_alternatives(scorer, canaries, alternatives, samples=samples, rule=rule)
    if not all(np.isfinite(own) and np.isfinite(others).all() for own, others in scored):
        return head | {"applicable": False, "reason": NOT_FINITE}
    for canary, entry in zip(canaries, scored):
        sides["in" if canary.included else "out"].append(entry)
    ranked = {side: _ranked(entries, confidence) for side, entries in sides.items()}
    bits = space_bits or min(canary.space_bits for canary in canaries)
    inserted = _figures(ranked["in"])
    return head | {
        "applicable": True,
        "method": "sampled",
        "score": rule,
        "samples": min(len(others) for _, others in scored),
        "cap_bits": math.log2(min(len(others) for _, others in scored)),
        "space_bits": bits,
        "confidence": confidence,
        "copies": canaries[0].copies,
        "in": inserted,
        "out": _figures(ranked["out"]),
        "in_vs_out": _in_vs_out(ranked["in"], ranked["out"]),
        "ceiling": _ceiling(inserted, samples, epsilon, delta, bits, confidence),
        "extrapolated": _extrapolated(sides["in"], ranked["in"], bits),
    }


def samples_needed(ceiling: float, canaries: int, confidence: float = 0.95) -> int:
    """The fewest samples by which a group whose every secret beats them all exceeds `ceiling`.

    The lower end of an interval is then 1 - (tail)^(1/n), tail = (1 - confidence)/(2 canaries).
    """
    tail = (1 - confidence) / (2 * canaries)
    return math.floor(math.log(tail) / math.log1p(-(2.0**-ceiling))) + 1


def _ranked(
    entries: Sequence[tuple[float, np.ndarray]], confidence: float
) -> list[SampledExposure]:
    each = 1 - (1 - confidence) / max(len(entries), 1)
    return [sampled_exposure(own, others, confidence=each) for own, others in entries]


def _figures(ranked: Sequence[SampledExposure]) -> dict[str, Any]:
    """Means and maxima of one side, each with its interval and whether log2 n cut it off."""
    if not ranked:
        return {"n": 0, "mean_bits": None, "max_bits": None}
    low, high = (np.array([getattr(entry, end) for entry in ranked]) for end in ("low", "high"))
    mean = float(np.mean([entry.conservative for entry in ranked]))
    best = max(ranked, key=lambda entry: (entry.conservative, entry.at_least))
    capped = sum(entry.at_least for entry in ranked)
    return {
        "n": len(ranked),
        "mean_bits": mean,
        "mean_bits_optimistic": float(np.mean([entry.optimistic for entry in ranked])),
        "mean_interval": [float(low.mean()), float(high.mean())],
        "mean_text": f"{'>= ' if capped else ''}{mean:.2f} bits",
        "max_bits": best.conservative,
        "max_interval": [float(low.max()), float(high.max())],
        "max_text": str(best),
        "at_cap": capped,
    }


def _in_vs_out(
    inserted: Sequence[SampledExposure], held_out: Sequence[SampledExposure]
) -> dict[str, Any]:
    """How often an inserted canary is more exposed than one held out; ties count half."""
    if not inserted or not held_out:
        return {
            "applicable": False,
            "reason": f"{len(inserted)} canaries inserted and {len(held_out)} held out;"
            " at least 1 of each is needed",
        }
    sides = [[entry.conservative for entry in side] for side in (inserted, held_out)]
    test = stats.mannwhitneyu(*sides, alternative="greater")
    return {
        "applicable": True,
        "auc": float(test.statistic) / (len(inserted) * len(held_out)),
        "p_value": float(test.pvalue),
        "exploratory": True,
    }


def _ceiling(
    inserted: dict[str, Any],
    samples: int,
    epsilon: float | None,
    delta: float,
    space_bits: float,
    confidence: float,
) -> dict[str, Any]:
    """The claim's ceiling on the mean, and whether the interval of the mean lies above it."""
    if epsilon is None or epsilon == math.inf:
        return {"applicable": False, "reason": "no epsilon is claimed, so no ceiling follows"}
    bits = mean_ceiling(epsilon, delta, space_bits)
    if not inserted["n"] or bits >= space_bits:
        reason = "no canary was inserted" if not inserted["n"] else "the space holds no more bits"
        return {"applicable": False, "reason": reason, "bits": bits}
    needed = samples_needed(bits, inserted["n"], confidence)
    if samples < needed:
        reason = f"{samples} samples cannot show more than {bits:.2f} bits; {needed} are needed"
        return {"applicable": False, "reason": reason, "bits": bits, "samples_needed": needed}
    above = inserted["mean_interval"][0] > bits
    return {"applicable": True, "bits": bits, "samples_needed": needed, "above": above}


def _extrapolated(
    entries: Sequence[tuple[float, np.ndarray]],
    ranked: Sequence[SampledExposure],
    space_bits: float,
) -> dict[str, Any]:
    """Skew-normal tails for inserted canaries above every sample, where the fit stands."""
    fits = [
        extrapolated_exposure(own, others, space_bits=space_bits)
        for (own, others), entry in zip(entries, ranked)
        if entry.at_least and len(np.unique(others)) > 2
    ]
    bits = [fit["bits"] for fit in fits if fit["bits"] is not None]
    counts = {"n": len(fits), "fits_rejected": len(fits) - len(bits)}
    if not bits:
        reason = f"{len(fits)} canaries above every sample, none with a fit that is not rejected"
        return {"applicable": False, "reason": reason, **counts}
    return {
        "applicable": True,
        "method": "extrapolated: skew-normal, fit tested by Kolmogorov-Smirnov at 5 %",
        **counts,
        "mean_bits": float(np.mean(bits)),
        "max_bits": float(np.max(bits)),
    }


def _check(canaries: Sequence[Canary], samples: int) -> None:
    if samples < SMALLEST_SAMPLE:
        raise UserError(
            f"{samples} samples",
            f"an exposure is sampled among at least {SMALLEST_SAMPLE}:"
            f" {SMALLEST_SAMPLE - samples} are missing",
            "ask for more alternatives",
        )
    if len({canary.copies for canary in canaries}) > 1:
        raise UserError(
            "canaries inserted different numbers of times",
            "groups of different insertion counts are never pooled",
            "make one group of each count",
        )
