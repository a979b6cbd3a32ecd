"""The gating test: do one run's membership guesses contradict the plan's own trade-off curve?

The curve is computed here from sigma, sampling rate and steps, with dp-accounting and nothing of
the trainer, so that a wrong accountant upstream does not hide itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from scipy import stats

from audits.statistics import fdp_rejects
from dpmlm.artifacts import UserError

_LINES = 1000
_SMALLEST_BETA = 1e-12
_PLAN_FIELDS = ("noise_multiplier", "sample_rate", "steps", "delta")
_LEAST_NOISE, _MOST_STEPS = 0.05, 10**6
"""Beyond these the accountant takes gigabytes, and the claim is empty."""


@dataclass(frozen=True)
class TradeOffCurve:
    """A symmetric trade-off curve f, held as supporting lines: convex, and never above the truth.

    f(a) is the least false-negative rate of any test with false-positive rate a. Each pair
    (epsilon, delta) gives two lines, 1 - delta - e^epsilon a and e^-epsilon (1 - delta - a).
    """

    epsilons: np.ndarray
    """float64 [N], increasing from 0."""
    deltas: np.ndarray
    """float64 [N], the larger of the add and the remove direction at each epsilon."""

    def __call__(self, x: float) -> float:
        """f(1 - x), the form that the recursion of `fdp_rejects` takes; x in [0, 1]."""
        alpha = max(0.0, 1.0 - x)
        steep = 1.0 - self.deltas - np.exp(self.epsilons) * alpha
        flat = np.exp(-self.epsilons) * (x - self.deltas)
        return max(0.0, float(steep.max()), float(flat.max()))

    def epsilon(self, delta: float) -> float:
        """The least epsilon of the curve at `delta`; infinite when no line reaches it."""
        reached = np.flatnonzero(self.deltas <= delta)
        if not len(reached):
            return math.inf
        at = int(reached[0])
        if at == 0 or delta <= 0:
            return float(self.epsilons[at])
        low, high = np.log(np.maximum(self.deltas[at - 1 : at + 1], 1e-300))[::-1]
        share = (math.log(delta) - low) / (high - low)
        return float(self.epsilons[at] - share * (self.epsilons[at] - self.epsilons[at - 1]))


def trade_off_curve(plan: Mapping[str, Any], copies: int = 1) -> TradeOffCurve:
    """The curve of the plan's Poisson-subsampled Gaussian mechanism, add or remove one unit.

    Reads `noise_multiplier`, `sample_rate` and `steps`, or `plateaus` of the latter two where the
    plan has a schedule, `max_batch_size` and `units` where samples are cut, and `bands` where
    groups of units take turns under correlated noise. `copies` r > 1 is the curve for r units that
    hold one secret: sensitivities 0..r with weights Bin(r, q), far more than r times epsilon at a
    larger delta. Discretisation errs toward a weaker claim, so that it cannot raise a false alarm.
    Raises UserError when the plan lacks a field, promises nothing, or is beyond the accountant.
    """
    check_plan(plan)
    sigma = float(plan["noise_multiplier"])
    if sigma <= 0:
        raise UserError(
            f"noise_multiplier {sigma}",
            "a plan without noise has no trade-off curve",
            "judge such a model by extraction alone",
        )
    cut, bands = plan.get("max_batch_size"), plan.get("bands", 1)
    if copies > 1 and (cut is not None or bands > 1):
        given, what = (
            (f"bands {bands}", "take turns")
            if cut is None
            else (f"max_batch_size {cut}", "are in samples that are cut")
        )
        raise UserError(
            f"{given} with {copies} copies of a secret",
            f"no curve is known for several units that {what}",
            "plant each secret once",
        )
    try:
        return _curve(plan, copies)
    except (MemoryError, ValueError, OverflowError) as error:
        raise UserError(
            f"a plan of noise_multiplier {sigma:g}, sample_rate {plan['sample_rate']:g}, steps "
            f"{plan['steps']}",
            f"dp-accounting cannot compute its trade-off curve ({type(error).__name__})",
            "check these numbers: such a plan promises next to nothing, or next to everything",
        ) from None


def _curve(plan: Mapping[str, Any], copies: int) -> TradeOffCurve:
    interval = 1e-3 if copies > 1 or plan["steps"] <= 2000 else 1e-4
    parts = [
        _step(plan, float(part["sample_rate"]), copies, interval).self_compose(part["steps"])
        for part in plateaus(plan)
    ]
    run = reduce(lambda all_before, part: all_before.compose(part), parts)
    last = 1.0
    while run.get_delta_for_epsilon(last) > 1e-13 and last < 600:
        last *= 1.2
    epsilons = np.linspace(0.0, last, _LINES)
    deltas = np.asarray(run.get_delta_for_epsilon(list(epsilons)))
    return TradeOffCurve(epsilons, deltas)


def plateaus(plan: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Steps at one sampling rate, one after the other; the whole plan where it has no schedule.

    With bands, noise that a step shares with the b - 1 before it, each unit is drawn from in every
    b-th step alone, at b times the rate: as many steps count.
    """
    parts: Sequence[Mapping[str, Any]] | None = plan.get("plateaus")
    parts = parts or [{"steps": plan["steps"], "sample_rate": plan["sample_rate"]}]
    bands = plan.get("bands", 1)
    return [
        {"steps": -(-part["steps"] // bands), "sample_rate": min(1.0, part["sample_rate"] * bands)}
        for part in parts
    ]


def _step(plan: Mapping[str, Any], rate: float, copies: int, interval: float) -> Any:
    """Privacy loss distribution of one step."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    sigma = float(plan["noise_multiplier"])
    if plan.get("max_batch_size") is not None:
        return pld.from_truncated_subsampled_gaussian_mechanism(
            dataset_size=plan["units"],
            sampling_probability=rate,
            truncated_batch_size=plan["max_batch_size"],
            noise_multiplier=sigma,
            value_discretization_interval=interval,
        )
    if copies == 1:
        return pld.from_gaussian_mechanism(
            sigma, sampling_prob=rate, value_discretization_interval=interval
        )
    weights = stats.binom.pmf(range(copies + 1), copies, rate)
    return pld.from_mixture_gaussian_mechanism(
        sigma,
        sensitivities=[float(held) for held in range(copies + 1)],
        sampling_probs=[float(weight) for weight in weights / weights.sum()],
        value_discretization_interval=interval,
    )


def check_plan(plan: Mapping[str, Any]) -> None:
    """Raise UserError unless `plan` has the fields that this package reads, each in its range."""
    missing = [name for name in ("epsilon", *_PLAN_FIELDS) if plan.get(name) is None]
    if missing:
        raise UserError(
            f"a plan without {', '.join(missing)}",
            f"the audit recomputes the claim from epsilon, {', '.join(_PLAN_FIELDS)}",
            "pass the plan.json of the run",
        )
    noise, steps = plan["noise_multiplier"], plan["steps"]
    rules = {
        "epsilon": (
            plan["epsilon"] == "inf" or (_is_number(plan["epsilon"]) and plan["epsilon"] > 0),
            'a number above 0, or "inf"',
        ),
        "delta": (
            _is_number(plan["delta"]) and 0 < plan["delta"] < 1,
            "a number between 0 and 1, both excluded",
        ),
        "noise_multiplier": (
            _is_number(noise) and (noise == 0 or _LEAST_NOISE <= noise < math.inf),
            f"0, or a number of {_LEAST_NOISE:g} and more",
        ),
        "sample_rate": (
            _is_number(plan["sample_rate"]) and 0 < plan["sample_rate"] <= 1,
            "a number above 0, at most 1",
        ),
        "steps": (
            type(steps) is int and 1 <= steps <= _MOST_STEPS,
            f"a whole number from 1 to {_MOST_STEPS}",
        ),
        "plateaus": (_are_plateaus(plan), "steps and sampling rates that add up to the plan's"),
        "max_batch_size": (
            plan.get("max_batch_size") is None
            or (_is_count(plan["max_batch_size"]) and _is_count(plan.get("units"))),
            "a whole number above 0, beside one of units",
        ),
        "bands": (
            _is_count(plan.get("bands", 1))
            and _largest_rate(plan) * plan.get("bands", 1) <= 1 + 1e-9,
            "a whole number above 0, that times the sampling rate is at most 1",
        ),
        "bindings": (
            isinstance(plan.get("bindings"), Mapping | None),
            "an object, where it is given",
        ),
        "digest": (
            "digest" not in plan or (isinstance(plan["digest"], str) and plan["digest"].isascii()),
            "a digest, where it is given",
        ),
    }
    for name, (sound, rule) in rules.items():
        if not sound:
            raise UserError(f"a plan's {name}", f"it is {rule}", "pass the plan.json of the run")


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _are_plateaus(plan: Mapping[str, Any]) -> bool:
    parts = plan.get("plateaus")
    if parts is None:
        return True
    sound = isinstance(parts, list) and all(
        isinstance(part, Mapping)
        and _is_count(part.get("steps"))
        and _is_number(part.get("sample_rate"))
        and 0 < part["sample_rate"] <= 1
        for part in parts
    )
    return sound and sum(part["steps"] for part in parts) == plan["steps"]


def _largest_rate(plan: Mapping[str, Any]) -> float:
    parts = plan.get("plateaus") if _are_plateaus(plan) else None
    rates = [part["sample_rate"] for part in parts or ()]
    return max([*rates, plan["sample_rate"]]) if _is_number(plan["sample_rate"]) else 0.0


def _is_number(value: Any) -> bool:
    """A number that fits a float and is not NaN; yes and no are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (isinstance(value, float) and not math.isnan(value)) or abs(value) < 1e300


@dataclass(frozen=True)
class Guesses:
    """How many canaries were guessed, and how many of the guesses were right."""

    canaries: int
    """m, each included by a fair coin."""
    made: int
    """Guesses IN plus guesses OUT, fixed before training."""
    correct: int
    """Right guesses."""


def membership_guesses(
    scores: np.ndarray, included: Sequence[bool] | np.ndarray, per_side: int
) -> Guesses:
    """Guess the `per_side` highest scores IN and the `per_side` lowest OUT; abstain on the rest.

    Ties are broken by position, which the coins do not know of. Raises UserError on a score that
    is not finite or a number of guesses that the canaries do not hold.
    """
    scores, truth = np.asarray(scores, dtype=np.float64), np.asarray(included, dtype=bool)
    if len(scores) != len(truth) or not 1 <= per_side <= len(scores) // 2:
        raise UserError(
            f"{per_side} guesses a side on {len(scores)} scores and {len(truth)} coins",
            "one score a coin, and at most half of the canaries a side",
            "guess 10 % of the canaries a side",
        )
    if not np.isfinite(scores).all():
        raise UserError(
            "a canary score that is not finite",
            "the model must give every canary a finite log-likelihood",
            "look for NaN in the weights",
        )
    order = np.argsort(scores, kind="stable")
    right = int(truth[order[-per_side:]].sum()) + int((~truth[order[:per_side]]).sum())
    return Guesses(len(scores), 2 * per_side, right)


@dataclass(frozen=True)
class GatingResult:
    """What the guesses say about the claim."""

    needed: int | None
    """Right guesses that reject at beta; None when even all of them do not."""
    p_value: float
    """The smallest beta at which the guesses reject, in [1e-12, 1]."""
    rejected: bool
    """Whether the plan's curve is contradicted at beta."""


def gating_test(guesses: Guesses, curve: TradeOffCurve, beta: float = 0.05) -> GatingResult:
    """Reject the plan's curve when so many right guesses are impossible under it.

    Mahloujifar et al. 2024 (arXiv 2410.22235) with g(x) = f(1 - x) of the plan itself, so it
    holds for subsampled plans, whose curve is not Gaussian.
    """

    def rejects(correct: int, level: float) -> bool:
        return fdp_rejects(
            curve,
            canaries=guesses.canaries,
            guesses=guesses.made,
            correct=correct,
            beta=level,
        )

    return GatingResult(
        needed=needed_guesses(guesses.canaries, guesses.made, curve, beta),
        p_value=_smallest_beta(lambda level: rejects(guesses.correct, level)),
        rejected=rejects(guesses.correct, beta),
    )


def needed_guesses(
    canaries: int, made: int, curve: TradeOffCurve, beta: float = 0.05
) -> int | None:
    """The least number of right guesses that rejects at `beta`; None when all of them do not."""

    def rejects(correct: int) -> bool:
        return fdp_rejects(curve, canaries=canaries, guesses=made, correct=correct, beta=beta)

    if not rejects(made):
        return None
    low, high = 0, made
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rejects(middle) else (middle, high)
    return high


def _smallest_beta(rejects_at: Any) -> float:
    if not rejects_at(1.0):
        return 1.0
    low, high = math.log(_SMALLEST_BETA), 0.0
    if rejects_at(_SMALLEST_BETA):
        return _SMALLEST_BETA
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if rejects_at(math.exp(middle)) else (middle, high)
    return math.exp(high)
