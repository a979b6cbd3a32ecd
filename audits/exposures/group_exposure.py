"""Exposure of a group of canaries, inserted ones beside held-out ones, as JSON.

A group is canaries of one family with one number of copies: groups are never pooled. Scores and
ranks are found of all canaries alike; coins come in here, where sides are told apart.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from audits.exposures.exposure import Exposure, mean_ceiling
from audits.exposures.sampled import SampledExposure, sampled_exposure
from audits.exposures.skew_normal import extrapolated_exposure

Sampled = tuple[float, np.ndarray]
"""A secret's own score, and those of alternatives to it."""
Ranked = Exposure | SampledExposure


def group_exposure(
    found: Sequence[Exposure | Sampled],
    coins: np.ndarray,
    *,
    space_bits: float,
    epsilon: float | None = None,
    delta: float = 0.0,
    confidence: float = 0.95,
    extrapolate: bool = False,
) -> dict[str, Any]:
    """Exposure of both sides of a group under one score; counts and bits, no secret.

    `found` holds of each canary its exact exposure, or its score among those of samples; `coins`
    (bool [N]) says which were inserted. `space_bits` is log2 of the space that ranks are in.
    `epsilon` and `delta` are the claim for one canary with all its copies, for the ceiling.
    Intervals hold for all canaries of one side together (Clopper-Pearson at a share of the error
    each), whatever they have to do with each other. `extrapolate` adds skew-normal tails for
    inserted canaries above every sample. Raises UserError on fewer than 100 samples.
    """
    if not len(found):
        return {"applicable": False, "reason": "0 canaries in the group; 1 is needed"}
    sides = [[one for one, coin in zip(found, coins, strict=True) if coin == s] for s in (1, 0)]
    ranked = [_ranked(side, confidence) for side in sides]
    samples = [len(one[1]) for one in found if not isinstance(one, Exposure)]
    inserted = _figures(ranked[0])
    methods = [*(["sampled"] if samples else []), *(["exact"] if len(samples) < len(found) else [])]
    return {
        "applicable": True,
        "method": " or ".join(sorted(methods)),
        "exact": len(found) - len(samples),
        "samples": min(samples, default=None),
        "cap_bits": math.log2(min(samples)) if samples else None,
        "space_bits": space_bits,
        "confidence": confidence,
        "in": inserted,
        "out": _figures(ranked[1]),
        "in_vs_out": _in_vs_out(*ranked),
        "ceiling": _ceiling(inserted, samples, epsilon, delta, space_bits, confidence),
        **({"extrapolated": _extrapolated(sides[0], ranked[0], space_bits)} if extrapolate else {}),
    }


def samples_needed(ceiling: float, canaries: int, confidence: float = 0.95) -> int:
    """The fewest samples by which a group whose every secret beats them all exceeds `ceiling`.

    The lower end of an interval is then 1 - (tail)^(1/n), tail = (1 - confidence)/(2 canaries).
    """
    tail = (1 - confidence) / (2 * canaries)
    return math.floor(math.log(tail) / math.log1p(-(2.0**-ceiling))) + 1


def _ranked(side: Sequence[Exposure | Sampled], confidence: float) -> list[Ranked]:
    each = 1 - (1 - confidence) / max(len(side), 1)
    return [
        one if isinstance(one, Exposure) else sampled_exposure(*one, confidence=each)
        for one in side
    ]


def _figures(ranked: Sequence[Ranked]) -> dict[str, Any]:
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


def _in_vs_out(inserted: Sequence[Ranked], held_out: Sequence[Ranked]) -> dict[str, Any]:
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
    samples: Sequence[int],
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
    above = inserted["mean_interval"][0] > bits
    needed = samples_needed(bits, inserted["n"], confidence) if samples else 0
    if samples and min(samples) < needed and not above:
        reason = f"{min(samples)} samples cannot show more than {bits:.2f} bits; "
        reason += f"{needed} are needed"
        return {"applicable": False, "reason": reason, "bits": bits, "samples_needed": needed}
    return {"applicable": True, "bits": bits, "samples_needed": needed, "above": above}


def _extrapolated(
    side: Sequence[Exposure | Sampled], ranked: Sequence[Ranked], space_bits: float
) -> dict[str, Any]:
    """Skew-normal tails for inserted canaries above every sample, where the fit stands."""
    fits = [
        extrapolated_exposure(*one, space_bits=space_bits)
        for one, entry in zip(side, ranked)
        if not isinstance(one, Exposure) and entry.at_least and len(np.unique(one[1])) > 2
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
