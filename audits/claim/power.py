"""What an audit could find, said before anything is trained: it reads a plan and no model.

The rates are those of ideal canaries (`audits.claim.ideal`), so they are the best case: an attack
on the finished model finds less. A fault that is not caught here the gating test cannot catch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from audits.claim.gating import (
    TradeOffCurve,
    check_plan,
    needed_guesses,
    trade_off_curve,
)
from audits.claim.ideal import IdealCanaries, ideal_canaries
from audits.statistics import clopper_pearson, fdp_one_run_epsilon, one_run_epsilon
from dpmlm.artifacts import UserError

SHARES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Guesses a side, as shares of the canaries, among which the best is looked for."""
CANARIES = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
"""Numbers of canaries among which the least is looked for."""
NOISES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.25, 0.0)
"""Shares of the promised noise that a run could really have had: the power curve."""
DEFAULT_SHARE = 0.1
"""Guesses a side where no other share is asked for or follows from the plan."""
TESTS = 3
"""Tests that share the error budget: Holm's strictest level is beta over their number."""
CHANCE = 0.8
"""What "would be caught" means."""
_LEAST_NOISE = 0.01
"""Share of the noise below which no fault is modelled."""


def power_of(
    plan: Mapping[str, Any],
    canaries: int,
    guesses: int | None = None,
    beta: float = 0.05,
    *,
    copies: int = 1,
    trials: int = 400,
    seed: int = 0,
) -> dict[str, Any]:
    """What the gating test could find with so many canaries and guesses; JSON-able.

    `guesses` counts both sides (20 % of the canaries when it is left out) and `copies` is how
    often each canary is inserted. `faults` holds, for shares of the promised noise, the rate of
    `trials` simulated runs that are rejected at beta alone and at the strictest level of Holm, with
    95 % intervals; a share of 1 is a correct run, and its rate that of false alarms. `best` is the
    number of guesses that catches half the noise oftenest. Names that end in `_strict` are of the
    strictest level. A plan that promises nothing gives "applicable": False. Raises UserError on an
    unfit plan or numbers.
    """
    reason = _no_claim(plan)
    if reason is not None:
        return {"applicable": False, "reason": reason}
    made = 2 * max(1, int(DEFAULT_SHARE * canaries)) if guesses is None else guesses
    _check(canaries, made, trials)
    curve, delta = trade_off_curve(plan, copies), float(plan["delta"])
    epsilon = _claim(plan, curve, copies)
    levels = {"": beta, "_strict": beta / TESTS}
    needed = {name: needed_guesses(canaries, made, curve, level) for name, level in levels.items()}
    setting: dict[str, Any] = {"canaries": canaries, "guesses": made, "delta": delta, "beta": beta}
    least = {
        f"smallest_multiple{name}": smallest_caught(
            plan, copies, canaries, made, needed[name], epsilon
        )
        for name in levels
    }
    return {
        "applicable": True,
        "claim": {"epsilon": epsilon, "delta": delta, "copies": copies},
        "canaries": canaries,
        "guesses": made,
        "beta": beta,
        "tests": TESTS,
        **{f"needed{name}": count for name, count in needed.items()},
        "fewest_guesses": _fewest_guesses(canaries, curve, beta),
        "ceilings": {
            "one_run": one_run_epsilon(correct=made, **setting),
            "fdp_one_run": fdp_one_run_epsilon(correct=made, **setting),
        },
        "chance": CHANCE,
        **least,
        "faults": [
            _fault(plan, noise, copies, canaries, made, needed, epsilon, trials, seed)
            for noise in NOISES
        ],
        **{
            f"best{name}": _best(_half(plan, copies), canaries, curve, level)
            for name, level in levels.items()
        },
        "seed": seed,
    }


def canaries_needed(
    plan: Mapping[str, Any],
    multiple: float = 2.0,
    beta: float = 0.05,
    power: float = CHANCE,
    *,
    grid: Sequence[int] = CANARIES,
    copies: int = 1,
    trials: int = 400,
    seed: int = 0,
) -> dict[str, Any]:
    """The least number of canaries in `grid` that catches a claim wrong by the factor `multiple`.

    The run is modelled with so much less noise that its epsilon, at the plan's delta, is that
    multiple of the claim; each number of canaries is given its best share of guesses. Caught means
    that the 95 % interval of the simulated rate begins at `power` or above. `canaries` is None,
    with a `reason`, when no number does. Raises UserError on an unfit plan or numbers.
    """
    reason = _no_claim(plan)
    if reason is not None:
        return {"applicable": False, "canaries": None, "reason": reason}
    if not (multiple > 1 and 0 < power < 1 and grid and min(grid) >= 2):
        raise UserError(
            f"multiple {multiple}, power {power}, canaries {list(grid)}",
            "a multiple is above 1, a power between 0 and 1, and canaries are 2 and more",
            "pass multiple 2 and power 0.8",
        )
    fewest = math.ceil(math.log(0.025) / math.log(power))
    if trials < fewest:
        raise UserError(
            f"{trials} trials",
            f"an interval that begins at {power:g} takes {fewest}, were all of them caught",
            f"simulate {fewest - trials} more",
        )
    curve = trade_off_curve(plan, copies)
    noise = noise_of(plan, multiple * _claim(plan, curve, copies), copies)
    wrong = ideal_canaries(plan, noise=noise, copies=copies)
    asked = {"multiple": multiple, "noise": noise, "beta": beta, "power": power, "seed": seed}
    tried: list[dict[str, Any]] = []
    for canaries in sorted(grid):
        best = _best(wrong, canaries, curve, beta)
        if best is None:
            tried.append({"canaries": canaries, "guesses": None, "trials": 0, "rate": 0.0})
            continue
        rng = np.random.default_rng([seed, canaries])
        # What the binomial puts far below needs no simulation.
        runs = trials if best["chance"] > power - 0.1 else 0
        if not runs:
            tried.append({**best, "canaries": canaries, "trials": 0, "rate": best["chance"]})
            continue
        right = wrong.right_guesses(canaries, best["guesses"] // 2, runs, rng)
        rate = _rate(int((right >= best["needed"]).sum()), runs)
        tried.append({**best, "canaries": canaries, **rate})
        if rate["interval"][0] >= power:
            return {"applicable": True, "canaries": canaries, **asked, "tried": tried}
    top = max(tried, key=lambda row: row["rate"])
    reason = (
        f"at most {100 * top['rate']:.2g} % of such runs are caught, by {top['canaries']}: under"
        " this claim a correct run, too, lets many guesses be right"
    )
    return {"applicable": True, "canaries": None, "reason": reason, **asked, "tried": tried}


def best_guesses(
    plan: Mapping[str, Any], canaries: int, curve: TradeOffCurve, beta: float, copies: int = 1
) -> int | None:
    """Guesses a side that catch half the noise oftenest at level `beta`; None when none can reject.

    It follows from the plan and the number of canaries alone, so that nothing is paid for it.
    """
    best = _best(_half(plan, copies), canaries, curve, beta) if canaries >= 2 else None
    return None if best is None else best["guesses"] // 2


def noise_of(plan: Mapping[str, Any], epsilon: float, copies: int = 1) -> float:
    """Share of the plan's noise at which the run's epsilon is `epsilon`, at the plan's delta."""

    def reached(share: float) -> bool:
        canaries = ideal_canaries(plan, noise=share, copies=copies)
        return canaries.epsilon(plan["delta"]) >= epsilon

    low, high = _LEAST_NOISE, 1.0
    if reached(high):
        return high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) else (low, middle)
    return low


def chance_of(ideal: IdealCanaries, canaries: int, guesses: int, needed: int | None) -> float:
    """Chance that ideal canaries reach `needed` right guesses, the guesses taken as independent.

    `IdealCanaries.right_guesses` simulates it; this serves to choose among settings.
    """
    return -math.expm1(_log_missed(ideal, canaries, guesses, needed))


def _log_missed(ideal: IdealCanaries, canaries: int, guesses: int, needed: int | None) -> float:
    """Logarithm of the chance of too few right guesses: settings differ where chances are all 1."""
    if needed is None:
        return 0.0
    wrong = 1 - ideal.accuracy(guesses / 2 / canaries)
    return float(stats.binom.logsf(guesses - needed, guesses, min(max(wrong, 0.0), 1.0)))


def _no_claim(plan: Mapping[str, Any]) -> str | None:
    check_plan(plan)
    if plan["noise_multiplier"] > 0 and plan["epsilon"] != "inf" and plan["epsilon"] < math.inf:
        return None
    return "the plan promises nothing (epsilon inf), so there is no claim to contradict"


def _check(canaries: int, guesses: int, trials: int) -> None:
    if not (2 <= guesses <= canaries and guesses % 2 == 0 and trials >= 1):
        raise UserError(
            f"{guesses} guesses on {canaries} canaries, {trials} trials",
            "guesses are even, at least 2 and at most the canaries; there is at least one trial",
            "guess 10 % of the canaries a side",
        )


def _claim(plan: Mapping[str, Any], curve: TradeOffCurve, copies: int) -> float:
    """What the claim comes to for one canary, all its copies together."""
    return curve.epsilon(plan["delta"]) if copies > 1 else float(plan["epsilon"])


def _fewest_guesses(canaries: int, curve: TradeOffCurve, beta: float) -> int | None:
    """The least even number of guesses that rejects when all are right; None when none does."""
    low, high = 0, canaries // 2
    if needed_guesses(canaries, 2 * high, curve, beta) is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        rejects = needed_guesses(canaries, 2 * middle, curve, beta) is not None
        low, high = (low, middle) if rejects else (middle, high)
    return 2 * high


def smallest_caught(
    plan: Mapping[str, Any],
    copies: int,
    canaries: int,
    guesses: int,
    needed: int | None,
    epsilon: float,
) -> float | None:
    """Multiple of the claim at the most noise that is caught with CHANCE; None when none is."""

    def caught(noise: float) -> bool:
        ideal = ideal_canaries(plan, noise=noise, copies=copies)
        return chance_of(ideal, canaries, guesses, needed) >= CHANCE

    if needed is None or not caught(0.0):
        return None
    low, high = _LEAST_NOISE, 1.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if caught(middle) else (low, middle)
    found = ideal_canaries(plan, noise=low, copies=copies).epsilon(plan["delta"])
    return found / epsilon


def _half(plan: Mapping[str, Any], copies: int) -> IdealCanaries:
    """With half the noise: the fault that the best share of guesses is chosen for."""
    return ideal_canaries(plan, noise=0.5, copies=copies)


def _best(
    ideal: IdealCanaries, canaries: int, curve: TradeOffCurve, beta: float
) -> dict[str, Any] | None:
    """The share of guesses that catches these canaries oftenest; None when no share can reject.

    It is chosen from the plan alone, before any score, so nothing is paid for the choice.
    """
    found = []
    for side in sorted({max(1, int(share * canaries)) for share in SHARES}):
        needed = needed_guesses(canaries, 2 * side, curve, beta)
        if needed is not None:
            found.append((_log_missed(ideal, canaries, 2 * side, needed), side, needed))
    if not found:
        return None
    missed, side, needed = min(found)
    return {"guesses": 2 * side, "needed": needed, "chance": -math.expm1(missed)}


def _fault(
    plan: Mapping[str, Any],
    noise: float,
    copies: int,
    canaries: int,
    guesses: int,
    needed: Mapping[str, int | None],
    epsilon: float,
    trials: int,
    seed: int,
) -> dict[str, Any]:
    ideal = ideal_canaries(plan, noise=noise, copies=copies)
    # The same draws for every share of the noise, so that a curve does not wobble.
    rng = np.random.default_rng(seed)
    right = ideal.right_guesses(canaries, guesses // 2, trials, rng)
    real = ideal.epsilon(plan["delta"]) if noise > 0 else math.inf
    row: dict[str, Any] = {
        "noise": noise,
        "epsilon": real if noise > 0 else "inf",
        "multiple": real / epsilon if noise > 0 else "inf",
    }
    for name, count in needed.items():
        rejected = 0 if count is None else int((right >= count).sum())
        row |= {f"{key}{name}": value for key, value in _rate(rejected, trials).items()}
    return row


def _rate(rejected: int, trials: int) -> dict[str, Any]:
    interval = list(clopper_pearson(rejected, trials))
    return {"trials": trials, "rate": rejected / trials, "interval": interval}
