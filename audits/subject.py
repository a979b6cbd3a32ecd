"""Everything one model is asked about the canaries, as the JSON object of one subject.

Every rule (guesses a side, threshold, reference, level of each test) is fixed in `Rules` before
any model is scored, and is the same for target, control and untrained model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from audits.claim.gating import (
    Guesses,
    TradeOffCurve,
    gating_test,
    membership_guesses,
    needed_guesses,
)
from audits.exposures.exposure import (
    Exposure,
    exposures,
    markov_p_value,
    mean_ceiling,
    threshold_p_value,
)
from audits.extraction import GUESSES, baseline_rate, extracted
from audits.planting.canaries import CanarySet
from audits.planting.canary import Canary
from audits.planting.labels import Labels
from audits.statistics import (
    clopper_pearson,
    fdp_one_run_epsilon,
    holm,
    one_run_epsilon,
)

if TYPE_CHECKING:  # who reads evidence has no model, and waits for no torch
    from audits.models import LoadedModel
    from audits.scores.scoring import Progress

TESTS = ("gating", "exposure", "canary_extraction")
"""The tests that share the error budget, by their names in the evidence.

A lower bound is no fourth: wherever the one-run bound at their strictest level lies above the
claim, the gating test rejects by the same guesses, and a fourth share would cost all of them power
(half the noise at claim 8: 75 % caught instead of 81 %, benchmarks/audit_power.py).
"""


@dataclass(frozen=True)
class Rules:
    """What is fixed before the first score."""

    beta: float
    """Error budget of the tests together, split by Holm."""
    per_side: int
    """Membership guesses IN, and as many OUT."""
    threshold_bits: float | None
    """Exposure from which canaries are counted; None when the claim leaves no room for one."""
    epsilon: float
    """What the claim comes to for one canary: the plan's, or that of its copies together."""
    delta: float
    """Delta of the claim, in [0, 1)."""
    curve: TradeOffCurve | None
    """Trade-off curve for one canary; None when the plan promises nothing."""
    smallest_multiple: float | None
    """Multiple of the claim that the gating test would probably catch, by ideal canaries of the
    plan; None when there is none."""
    no_test: str | None
    """Why the single-insertion tests do not apply; None when they do."""


def untestable(
    epsilon: float, curve: TradeOffCurve | None, copies: int, space_bits: float
) -> str | None:
    """Why no test of a claim of `epsilon` for one canary applies; None where they do."""
    if curve is None:
        return "the plan promises nothing (epsilon inf), so there is no claim to contradict"
    if epsilon / math.log(2) >= space_bits:
        number = "1 copy" if copies == 1 else f"{copies} copies"
        return f"{number} of a canary: what the claim covers for that exceeds a secret's space"
    return None


@dataclass(frozen=True)
class Scores:
    """A model's answers on all canaries, in their order."""

    logprobs: np.ndarray
    """Joint scores, float64 [N, L, A]."""
    decoded: np.ndarray
    """Left-to-right decode inside the alphabets, token ids int64 [N, L]; -1 where there is none."""

    @property
    def finite(self) -> bool:
        """Whether the model can be judged by them."""
        return bool(np.isfinite(self.logprobs).all() and (self.decoded >= 0).all())


def score(
    subject: "LoadedModel", rows: Sequence[Canary], progress: "Progress | None" = None
) -> Scores:
    """One joint pass and L decoding passes over every canary; which are included is not known."""
    from audits.scores.scoring import greedy_in_alphabets, joint_logprobs

    return Scores(
        logprobs=joint_logprobs(subject, rows, progress=progress),
        decoded=greedy_in_alphabets(subject, rows, progress=progress),
    )


def membership_scores(
    canaries: Sequence[Canary], own: np.ndarray, reference: np.ndarray | None
) -> np.ndarray:
    """How much likelier each secret is made than the rest of its alphabets; float64 [N], nats.

    Sum over positions of log p(secret) less the mean over the alphabet, less the same of the
    reference model. The centring takes out what training does to every candidate of a position.
    """
    from audits.scores.scoring import secret_positions

    index = secret_positions(canaries)[:, :, None]

    def centred(logprobs: np.ndarray) -> np.ndarray:
        picked = np.take_along_axis(logprobs, index, axis=2)[:, :, 0]
        return np.asarray((picked - logprobs.mean(axis=2)).sum(axis=1))

    return centred(own) if reference is None else centred(own) - centred(reference)


def judge(
    subject: "LoadedModel",
    canaries: CanarySet,
    labels: Labels,
    scores: Scores,
    reference: Scores | None,
    rules: Rules,
) -> dict[str, Any]:
    """One subject of the evidence: figures of every test, and what Holm rejects.

    Scores that are not finite, of the model or of its reference, make the tests that rest on them
    not applicable: such a model is neither accused nor cleared.
    """
    from audits.scores.scoring import NOT_FINITE, secret_positions

    if not scores.finite:
        return unscored(subject, NOT_FINITE, canaries=len(canaries.canaries))
    uncalibrated: dict[str, Any] = {
        "applicable": False,
        "reason": f"the reference that calibrates it: {NOT_FINITE}",
    }
    rows = canaries.canaries
    coins = np.array(labels.of(rows))
    guesses = _guesses(rows, coins, scores, reference, rules)
    ranked = exposures(scores.logprobs, secret_positions(rows))
    hits = extracted(rows, scores.logprobs, scores.decoded)
    parts = {
        "gating": uncalibrated | {"canaries": len(rows), "p_value": None}
        if guesses is None
        else _gating(guesses, rules),
        "exposure": _exposure(ranked, coins, canaries.space_bits, rules),
        "canary_extraction": _extraction(rows, hits, coins, rules),
    }
    p_values = {name: part["p_value"] for name, part in parts.items()}
    applicable = {name: value if value is not None else 1.0 for name, value in p_values.items()}
    rejected = holm(applicable, rules.beta)
    for name, part in parts.items():
        part["rejected"] = None if part["p_value"] is None else name in rejected
    return {
        "model_digest": subject.digest,
        **parts,
        "lower_bound": uncalibrated if guesses is None else _lower_bound(guesses, rules),
        "rejected_by": sorted(rejected),
    }


def following(found: Mapping[str, Any], rules: Rules) -> dict[str, dict[str, Any]]:
    """What follows from the counts of a subject that was judged, by test: for whoever reads it.

    A test without counts, as that of a model that could not be scored, is left out.
    """
    gating, exposure, extraction = (
        found[test] for test in ("gating", "exposure", "canary_extraction")
    )
    parts: dict[str, dict[str, Any]] = {}
    if "correct" in gating:
        guesses = Guesses(gating["canaries"], gating["guesses"], gating["correct"])
        parts["gating"] = _gating(guesses, rules)
        parts["lower_bound"] = _lower_bound(guesses, rules)
    if "n" in exposure:
        above, size = exposure.get("count_above", 0), exposure["space_bits"]
        parts["exposure"] = _exposure_test(above, exposure["n"], size, rules)
    if "n" in extraction:
        count, baseline = extraction["extracted"], extraction["baseline_rate"]
        parts["canary_extraction"] = _extraction_test(count, extraction["n"], baseline, rules)
    return parts


def unscored(subject: "LoadedModel", reason: str, *, canaries: int | None = None) -> dict[str, Any]:
    """A subject whose tests say nothing, and why; `canaries` where some were planted."""
    part = {"applicable": False, "reason": reason}
    planted = {} if canaries is None else {"canaries": canaries}
    tests = dict.fromkeys((*TESTS, "lower_bound"), part)
    return {
        "model_digest": subject.digest,
        **tests,
        "gating": part | planted,
        "rejected_by": [],
    }


def _guesses(
    rows: Sequence[Canary],
    coins: np.ndarray,
    scores: Scores,
    reference: Scores | None,
    rules: Rules,
) -> Guesses | None:
    """Membership guesses; None where the reference that calibrates them has no finite scores."""
    if reference is not None and not reference.finite:
        return None
    membership = membership_scores(
        rows, scores.logprobs, None if reference is None else reference.logprobs
    )
    return membership_guesses(membership, coins, rules.per_side)


def _gating(guesses: Guesses, rules: Rules) -> dict[str, Any]:
    counts = {"canaries": guesses.canaries, "guesses": guesses.made, "correct": guesses.correct}
    accuracy = list(clopper_pearson(guesses.correct, guesses.made))
    if rules.curve is None or rules.no_test is not None:
        return _not_applicable(rules) | {**counts, "accuracy_interval": accuracy}
    result = gating_test(guesses, rules.curve, rules.beta)
    strict = needed_guesses(guesses.canaries, guesses.made, rules.curve, rules.beta / len(TESTS))
    return {
        "applicable": True,
        **counts,
        "accuracy_interval": accuracy,
        "needed": result.needed,
        "needed_strict": strict,
        "can_reject": result.needed is not None,
        "smallest_multiple_detected": rules.smallest_multiple,
        "p_value": result.p_value,
    }


def _exposure(
    ranked: Sequence[Exposure], coins: np.ndarray, space_bits: float, rules: Rules
) -> dict[str, Any]:
    bits = np.array([entry.conservative for entry in ranked])
    optimistic = np.array([entry.optimistic for entry in ranked])
    inserted = int(coins.sum())
    edges = np.arange(math.ceil(space_bits) + 1)
    figures: dict[str, Any] = {
        "n": inserted,
        "mean_bits": _mean(bits[coins]),
        "mean_bits_optimistic": _mean(optimistic[coins]),
        "mean_bits_out": _mean(bits[~coins]),
        "max_bits": float(bits[coins].max()) if inserted else None,
        "space_bits": space_bits,
        "threshold_bits": rules.threshold_bits,
        "histogram": {
            "edges": [int(edge) for edge in edges],
            "in": [int(count) for count in np.histogram(bits[coins], edges)[0]],
            "out": [int(count) for count in np.histogram(bits[~coins], edges)[0]],
        },
    }
    least = math.inf if rules.threshold_bits is None else rules.threshold_bits
    return figures | _exposure_test(int((bits[coins] >= least).sum()), inserted, space_bits, rules)


def _exposure_test(above: int, inserted: int, space_bits: float, rules: Rules) -> dict[str, Any]:
    if rules.no_test is not None:
        return _not_applicable(rules) | {"ceiling_bits": None}
    ceiling = mean_ceiling(rules.epsilon, rules.delta, space_bits)
    if rules.threshold_bits is None:
        reason = "the claim leaves no threshold below the size of the space"
        return _not_applicable(rules, reason) | {"ceiling_bits": ceiling}
    return {
        "applicable": True,
        "ceiling_bits": ceiling,
        "count_above": above,
        "p_value": threshold_p_value(
            above=above,
            inserted=inserted,
            threshold=rules.threshold_bits,
            epsilon=rules.epsilon,
            delta=rules.delta,
        ),
    }


def _extraction(
    rows: Sequence[Canary], hits: np.ndarray, coins: np.ndarray, rules: Rules
) -> dict[str, Any]:
    inserted, count = int(coins.sum()), int(hits[coins].sum())
    baseline = baseline_rate(rows)
    figures: dict[str, Any] = {
        "n": inserted,
        "extracted": count,
        "extracted_never_inserted": int(hits[~coins].sum()),
        "guesses_per_canary": GUESSES,
        "baseline_rate": baseline,
    }
    return figures | _extraction_test(count, inserted, baseline, rules)


def _extraction_test(count: int, inserted: int, baseline: float, rules: Rules) -> dict[str, Any]:
    interval = {"ci": list(clopper_pearson(count, inserted)) if inserted else None}
    if rules.no_test is not None:
        # The counts stand whatever is promised, so the part itself stays applicable.
        return {
            **interval,
            "expected_under_claim": None,
            "p_value": None,
            "test": {"applicable": False, "reason": rules.no_test},
        }
    likely = min(1.0, math.exp(min(rules.epsilon, 700.0)) * baseline + rules.delta)
    return {
        **interval,
        "expected_under_claim": inserted * likely,
        "p_value": markov_p_value(count, inserted * likely),
        "test": {"applicable": True},
    }


def _lower_bound(guesses: Guesses, rules: Rules) -> dict[str, Any]:
    """Bounds for information, each at the whole of beta: no verdict hangs on them."""
    setting: dict[str, Any] = {
        "canaries": guesses.canaries,
        "guesses": guesses.made,
        "delta": rules.delta,
        "beta": rules.beta,
    }
    return {
        "one_run": one_run_epsilon(correct=guesses.correct, **setting),
        "one_run_ceiling": one_run_epsilon(correct=guesses.made, **setting),
        "fdp_one_run": (
            fdp_one_run_epsilon(correct=guesses.correct, **setting) if rules.delta > 0 else None
        ),
    }


def _not_applicable(rules: Rules, reason: str | None = None) -> dict[str, Any]:
    return {"applicable": False, "reason": reason or rules.no_test, "p_value": None}


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
