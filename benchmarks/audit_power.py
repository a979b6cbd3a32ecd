"""What the bounds and the gating test attain, how often they are wrong, and common mistakes.

    python benchmarks/audit_power.py --out benchmarks/results/audit_power.json

Ideal canaries and coins alone, no model; seeded, about a minute of one core. Prints six tables:
bounds attained, runs rejected by the gating test, what sharing beta costs it, false alarms at 5 %
in 2,000 trials (131 are allowed: more refutes the rate), the same with mistakes of public auditing
code, and how many canaries a plan needs.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from audits.claim.gating import Guesses, TradeOffCurve, gating_test, needed_guesses, trade_off_curve
from audits.claim.ideal import IdealCanaries, ideal_canaries
from audits.claim.power import best_guesses, canaries_needed, noise_of, power_of
from audits.statistics import (
    clopper_pearson,
    fdp_one_run_epsilon,
    fdp_rejects,
    gaussian_epsilon,
    holm,
    one_run_epsilon,
    one_run_p_value,
    several_runs_epsilon,
    upper_limit,
)

BETA, DELTA, CANARIES, SIDE, TRIALS, ALLOWED = 0.05, 1e-5, 1000, 100, 2000, 131
EIGHT = {"epsilon": 8, "delta": 1e-6, "noise_multiplier": 0.7943, "sample_rate": 0.05, "steps": 150}
ONE = EIGHT | {"epsilon": 1, "noise_multiplier": 2.8268}
FULL = ONE | {"noise_multiplier": 4.0, "sample_rate": 1.0, "steps": 1}
"""One step on everything: a plan whose curve is Gaussian."""
NOTHING_TOLD = TradeOffCurve(np.zeros(1), np.zeros(1))
"""The curve of a model that tells nothing: every guess is a coin flip."""
Rng = np.random.Generator


@cache
def curve_of(noise: float, rate: float, steps: int) -> TradeOffCurve:
    """`trade_off_curve`, computed once."""
    terms = {"noise_multiplier": noise, "sample_rate": rate, "steps": steps}
    return trade_off_curve(ONE | terms)


def _curve(plan: dict[str, Any]) -> TradeOffCurve:
    return curve_of(plan["noise_multiplier"], plan["sample_rate"], plan["steps"])


def mu_of(epsilon: float, delta: float) -> float:
    """The Gaussian whose epsilon at `delta` is `epsilon`."""
    low, high = 1e-3, 10.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_epsilon(middle, delta) < epsilon else (low, middle)
    return high


def gaussian_canaries(mu: float) -> IdealCanaries:
    """Of a mu-GDP mechanism: one full step with noise 1/mu."""
    return ideal_canaries(FULL | {"noise_multiplier": 1 / mu})


def attained(epsilon: float, runs: int, seed: int) -> tuple[float, float]:
    """Mean one-run and f-DP bound of ideal Gaussian canaries, 10 % guesses a side."""
    ideal = gaussian_canaries(mu_of(epsilon, DELTA))
    right = ideal.right_guesses(CANARIES, SIDE, runs, np.random.default_rng(seed))
    setting: dict[str, Any] = {"canaries": CANARIES, "guesses": 2 * SIDE, "delta": DELTA}
    one, fdp = (
        np.mean([bound(correct=int(count), beta=BETA, **setting) for count in right])
        for bound in (one_run_epsilon, fdp_one_run_epsilon)
    )
    return float(one), float(fdp)


def rejected(plan: dict[str, Any], noise: float, runs: int, seed: int) -> int:
    """Runs with a share of the plan's noise that the gating test rejects."""
    needed = needed_guesses(CANARIES, 2 * SIDE, _curve(plan), BETA)
    ideal = ideal_canaries(plan, noise=noise)
    right = ideal.right_guesses(CANARIES, SIDE, runs, np.random.default_rng(seed))
    return 0 if needed is None else int((right >= needed).sum())


def shared(plan: dict[str, Any], tests: int, runs: int, seed: int) -> dict[str, Any]:
    """What half the noise comes to where so many tests share beta, at the best guesses for it."""
    curve, level = _curve(plan), BETA / tests
    row: dict[str, Any] = {"epsilon": plan["epsilon"], "tests": tests}
    side = best_guesses(plan, CANARIES, curve, level)
    if side is None:
        return row | {"guesses": None, "needed": None, "count": 0}
    needed = needed_guesses(CANARIES, 2 * side, curve, level)
    half = ideal_canaries(plan, noise=0.5)
    right = half.right_guesses(CANARIES, side, runs, np.random.default_rng(seed))
    return row | {"guesses": 2 * side, "needed": needed, "count": int((right >= needed).sum())}


def _count(alarm: Callable[..., bool], drawn: Iterable[Any]) -> int:
    """Trials whose counts raise an alarm; equal counts are judged once."""
    rows = np.asarray(drawn)
    found, times = np.unique(rows.reshape(len(rows), -1), axis=0, return_counts=True)
    return sum(int(n) for row, n in zip(found.tolist(), times) if alarm(*row))


def one_run_alarms(epsilon: float, delta: float, guesses: int, rng: Rng, used: float) -> int:
    """Randomised response at the edge of (epsilon, delta): told outright with chance delta.

    `used` is the delta of the bound: another than `delta` is a mistake.
    """
    told = np.minimum(rng.binomial(CANARIES, delta, TRIALS), guesses)
    right = told + rng.binomial(guesses - told, 1 / (1 + math.exp(-epsilon)))
    setting: dict[str, Any] = {"canaries": CANARIES, "guesses": guesses, "delta": used}
    return _count(lambda v: one_run_epsilon(correct=v, **setting) > epsilon, right)


def fdp_alarms(mu: float, side: int, rng: Rng) -> int:
    """Ideal canaries of mu-GDP, the very curve that is tested; coins where mu is 0."""
    if mu == 0:
        right = rng.binomial(2 * side, 0.5, TRIALS)
    else:
        right = gaussian_canaries(mu).right_guesses(CANARIES, side, TRIALS, rng)
    setting: dict[str, Any] = {"canaries": CANARIES, "guesses": 2 * side, "delta": DELTA}
    claimed = gaussian_epsilon(mu, DELTA)
    return _count(lambda v: fdp_one_run_epsilon(correct=v, **setting) > claimed, right)


def gating_alarms(plan: dict[str, Any] | None, side: int, rng: Rng) -> int:
    """Ideal canaries of the plan whose curve is tested; without a plan, coins and their curve."""
    if plan is None:
        curve, right = NOTHING_TOLD, rng.binomial(2 * side, 0.5, TRIALS)
    else:
        curve = _curve(plan)
        right = ideal_canaries(plan).right_guesses(CANARIES, side, TRIALS, rng)
    needed = needed_guesses(CANARIES, 2 * side, curve, BETA)
    return 0 if needed is None else int((right >= needed).sum())


def several_alarms(epsilon: float, delta: float, runs: int, rng: Rng) -> int:
    """`runs` trainings with and as many without, each at the edge of (epsilon, delta)."""
    rate = (1 - delta) / (1 + math.exp(epsilon))
    wrong = rng.binomial(runs, rate, (TRIALS, 2))
    setting: dict[str, Any] = {"in_runs": runs, "out_runs": runs, "delta": delta}

    def alarm(missed: int, alarmed: int) -> bool:
        counts = {"false_negatives": missed, "false_positives": alarmed}
        return several_runs_epsilon(**setting, **counts) > epsilon

    return _count(alarm, wrong)


def threshold_alarms(runs: int, rng: Rng, fixed: bool) -> int:
    """Scores that tell nothing; the threshold from other trainings, or (a mistake) the same."""
    scores = rng.normal(size=(TRIALS, 4, runs))
    alarms = 0
    for trial in scores:
        judged = trial[:2]
        at = _best_threshold(trial[2:] if fixed else judged)
        alarms += _bounds(*judged, np.array([at]))[0] > 0
    return int(alarms)


def _best_threshold(scores: Any) -> float:
    """Of the scores (with, without), the one that bounds most; the lowest of equals."""
    at = np.sort(np.ravel(scores))
    return float(at[np.argmax(_bounds(*scores, at))])


def _bounds(inside: Any, outside: Any, thresholds: Any) -> Any:
    """`several_runs_epsilon` at delta 0, guessed in at a threshold and above; of as many runs."""
    runs = len(inside)
    missed = np.searchsorted(np.sort(inside), thresholds)
    alarmed = runs - np.searchsorted(np.sort(outside), thresholds)
    kept, alarms = 1 - _upper_limits(runs)[missed], _upper_limits(runs)[alarmed]
    return np.log(np.maximum(kept, alarms) / alarms)


@cache
def _upper_limits(runs: int) -> Any:
    """Of each count from 0 to `runs`, the one-sided limit at half of beta."""
    return np.array([upper_limit(count, runs, BETA / 2) for count in range(runs + 1)])


def holm_alarms(rng: Rng, corrected: bool) -> int:
    """Three true claims, each at its edge: two of randomised response, one of a plan.

    Without the correction (a mistake) each is tested at the whole beta.
    """
    made = 2 * SIDE
    draws = [rng.binomial(made, 1 / (1 + math.exp(-epsilon)), TRIALS) for epsilon in (1.0, 2.0)]
    draws.append(ideal_canaries(ONE).right_guesses(CANARIES, SIDE, TRIALS, rng))

    known = [{int(v): _p_value(test, int(v)) for v in set(row)} for test, row in enumerate(draws)]
    trials = [{str(t): known[t][int(v)] for t, v in enumerate(row)} for row in zip(*draws)]
    if corrected:
        return sum(bool(holm(p_values, BETA)) for p_values in trials)
    return sum(min(p_values.values()) <= BETA for p_values in trials)


@cache
def _p_value(test: int, right: int) -> float:
    if test == 2:
        return gating_test(Guesses(CANARIES, 2 * SIDE, right), _curve(ONE)).p_value
    counts = {"canaries": CANARIES, "guesses": 2 * SIDE, "correct": right}
    return one_run_p_value(epsilon=(1.0, 2.0)[test], delta=0.0, **counts)


def grid_alarms(rng: Rng, paid: bool) -> int:
    """Coins, and the best of 100 numbers of guesses: paid for by Bonferroni, or (a mistake) not."""
    sides = np.arange(5, 505, 5)
    coins = rng.random((TRIALS, CANARIES)) < 0.5  # in the order of scores that tell nothing
    right = np.cumsum(coins[:, ::-1], axis=1) + np.cumsum(~coins, axis=1)
    level = BETA / len(sides) if paid else BETA
    needed = [needed_guesses(CANARIES, int(2 * side), NOTHING_TOLD, level) for side in sides]
    least = np.array([math.inf if count is None else count for count in needed])
    return int((right[:, sides - 1] >= least).any(axis=1).sum())


def direction_alarms(rng: Rng, one: bool) -> int:
    """Coins: guesses as declared, or (a mistake) whichever way round is better."""
    guesses = 402  # where whole numbers come close to 5 %
    right = rng.binomial(guesses, 0.5, TRIALS)
    if not one:
        right = np.maximum(right, guesses - right)
    setting: dict[str, Any] = {"canaries": CANARIES, "guesses": guesses, "delta": 0.0}
    return _count(lambda v: one_run_epsilon(correct=v, **setting) > 0, right)


def mean_alarms(rng: Rng, signed: bool) -> int:
    """Scores that tell nothing: mu from the difference of means, or (a mistake) |mu|."""
    deviation = math.sqrt(4 / CANARIES)
    found = rng.normal(size=TRIALS) * deviation
    found = found if signed else np.abs(found)
    return int((found - stats.norm.isf(BETA) * deviation > 0).sum())


def sigma_alarms(rng: Rng, open_end: bool) -> int:
    """Coins: mu searched for down to 0, or (a mistake) on a grid of sigma that ends at 8."""
    right = rng.binomial(2 * SIDE, 0.5, TRIALS)
    setting: dict[str, Any] = {"canaries": CANARIES, "guesses": 2 * SIDE}
    sigmas = np.geomspace(0.1, 8.0, 20)

    def on_grid(correct: int) -> float:
        def refuted(sigma: float) -> bool:
            def curve(x: float) -> float:
                return float(stats.norm.cdf(stats.norm.ppf(min(x, 1.0)) - 1 / sigma))

            return fdp_rejects(curve, correct=correct, beta=BETA, **setting)

        found = next((sigma for sigma in sigmas if refuted(sigma)), sigmas[-1])
        return gaussian_epsilon(1 / found, DELTA)

    if open_end:
        return _count(lambda v: fdp_one_run_epsilon(correct=v, delta=DELTA, **setting) > 0, right)
    return _count(lambda v: on_grid(v) > 0, right)


Trial = Callable[[Rng], int]
ALARMS: dict[str, Trial] = {
    **{
        f"one run, epsilon {e:g}, delta {d:g}, {r} guesses": lambda rng, e=e, d=d, r=r: (
            one_run_alarms(e, d, r, rng, d)
        )
        for e, d, r in ((0, 0, 200), (1, 1e-5, 200), (4, 1e-5, 200), (0.5, 0.01, 20))
    },
    **{
        f"f-DP one run, mu {mu:g}, {2 * side} guesses": lambda rng, mu=mu, side=side: fdp_alarms(
            mu, side, rng
        )
        for mu, side in ((0, 100), (0.5, 100), (1.5, 100), (0.5, 500), (0.5, 10))
    },
    "gating test, coins": lambda rng: gating_alarms(None, SIDE, rng),
    "gating test, plan of epsilon 1": lambda rng: gating_alarms(ONE, SIDE, rng),
    "gating test, plan of epsilon 8": lambda rng: gating_alarms(EIGHT, SIDE, rng),
    "gating test, one full step, 1,000 guesses": lambda rng: gating_alarms(FULL, 500, rng),
    **{
        f"several runs, epsilon {e:g}, delta {d:g}, {n} each": lambda rng, e=e, d=d, n=n: (
            several_alarms(e, d, n, rng)
        )
        for e, d, n in ((0, 0, 20), (1, 1e-5, 100), (2, 0.05, 1000))
    },
    "several runs, threshold from other trainings": lambda rng: threshold_alarms(50, rng, True),
    "Holm over three tests": lambda rng: holm_alarms(rng, True),
    "100 numbers of guesses, paid for": lambda rng: grid_alarms(rng, True),
}
"""Each test where its claim is true, most of them at the very edge of it."""

MISTAKES: dict[str, tuple[Trial, Trial]] = {
    "the best of 100 numbers of guesses, not paid for": (
        lambda rng: grid_alarms(rng, True), lambda rng: grid_alarms(rng, False)
    ),
    "a threshold from the same trainings": (
        lambda rng: threshold_alarms(2000, rng, True),
        lambda rng: threshold_alarms(2000, rng, False),
    ),
    "both directions": (
        lambda rng: direction_alarms(rng, True), lambda rng: direction_alarms(rng, False)
    ),
    "|mu|": (lambda rng: mean_alarms(rng, True), lambda rng: mean_alarms(rng, False)),
    "a grid of sigma that ends early": (
        lambda rng: sigma_alarms(rng, True), lambda rng: sigma_alarms(rng, False)
    ),
    "delta left out": (
        lambda rng: one_run_alarms(0.5, 0.01, 20, rng, 0.01),
        lambda rng: one_run_alarms(0.5, 0.01, 20, rng, 0.0),
    ),
    "three tests at 5 % each": (
        lambda rng: holm_alarms(rng, True), lambda rng: holm_alarms(rng, False)
    ),
}  # fmt: skip
"""What public auditing code does, beside what it should do: (right, wrong)."""


def plan_of(epsilon: float) -> dict[str, Any]:
    """A plan of that epsilon: delta 1e-6, sampling rate 0.05, 150 steps."""
    share = noise_of(ONE, epsilon) if epsilon != 1 else 1.0
    return ONE | {"epsilon": epsilon, "noise_multiplier": ONE["noise_multiplier"] * share}


def outlook_row(epsilon: float, trials: int, seed: int) -> dict[str, Any]:
    """What 1,000 canaries do for a plan of that epsilon, and how many it needs."""
    plan = plan_of(epsilon)
    return {
        "plan": plan,
        "power": power_of(plan, CANARIES, trials=trials, seed=seed),
        "canaries": {
            f"x {multiple:g}": canaries_needed(plan, multiple, trials=trials, seed=seed)
            for multiple in (2.0, 4.0)
        },
    }


def _table(head: str, rows: Iterable[Iterable[str]]) -> None:
    names = [name.strip() for name in head.split("|")]
    print("", f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}", sep="\n")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def _outlook_cells(row: dict[str, Any]) -> list[str]:
    power, best = row["power"], row["power"]["best_strict"]
    cells = [f"{row['plan']['epsilon']:g}", f"{power['needed']}, {power['needed_strict']}"]
    for name in ("smallest_multiple", "smallest_multiple_strict"):
        cells.append("none" if power[name] is None else f"{power[name]:.2f}")
    cells.append(
        "none" if best is None else f"{best['guesses'] // 2}, {100 * best['chance']:.0f} %"
    )
    return cells + [str(found["canaries"]) for found in row["canaries"].values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    given = parser.parse_args()
    seed: int = given.seed
    facts: dict[str, Any] = {"seed": seed, "beta": BETA, "trials": TRIALS, "allowed": ALLOWED}

    means = {e: {n: attained(e, n, seed) for n in (20, 60)} for e in (8, 4, 2, 1)}
    facts["attained"] = [
        {"epsilon": e, "runs": n, "one_run": found[0], "fdp_one_run": found[1]}
        for e, by_runs in means.items()
        for n, found in by_runs.items()
    ]
    _table(
        "epsilon | runs | one run | f-DP one run",
        (
            [f"{row['epsilon']}", f"{row['runs']}", f"{row['one_run']:.2f}",
             f"{row['fdp_one_run']:.2f}"]
            for row in facts["attained"]
        ),
    )  # fmt: skip

    facts["rejected"] = []
    for plan in (EIGHT, ONE):
        for noise in (1.0, 0.5, 0.25, 0.0):
            count = rejected(plan, noise, TRIALS, seed)
            interval = clopper_pearson(count, TRIALS)
            facts["rejected"].append(
                {"epsilon": plan["epsilon"], "noise": noise, "count": count, "interval": interval}
            )
    _table(
        "claim | share of the noise | rejected | 95 % interval",
        (
            [f"{row['epsilon']}", f"{row['noise']:g}", f"{100 * row['count'] / TRIALS:.1f} %",
             " to ".join(f"{100 * end:.1f} %" for end in row["interval"])]
            for row in facts["rejected"]
        ),
    )  # fmt: skip

    facts["shared"] = [
        shared(plan, tests, TRIALS, seed) for plan in (EIGHT, ONE) for tests in (1, 3, 4)
    ]
    _table(
        "claim | tests that share beta | guesses | right needed | half the noise rejected",
        (
            [f"{row['epsilon']}", str(row["tests"]), str(row["guesses"]), str(row["needed"]),
             f"{100 * row['count'] / TRIALS:.1f} %"]
            for row in facts["shared"]
        ),
    )  # fmt: skip

    facts["false_alarms"] = {
        name: trial(np.random.default_rng(seed)) for name, trial in ALARMS.items()
    }
    _table(
        f"test, its claim true | false alarms in {TRIALS:,} ({ALLOWED} allowed)",
        ([name, str(count)] for name, count in facts["false_alarms"].items()),
    )
    facts["mistakes"] = {
        name: [trial(np.random.default_rng(seed)) for trial in pair]
        for name, pair in MISTAKES.items()
    }
    _table(
        "mistake | false alarms without it | with it",
        ([name, *map(str, pair)] for name, pair in facts["mistakes"].items()),
    )

    facts["outlook"] = [outlook_row(epsilon, 1000, seed) for epsilon in (1, 2, 4, 8)]
    _table(
        "claim | needed of 200, shared | smallest multiple | shared | best a side, half the noise"
        " | canaries for x 2 | for x 4",
        (_outlook_cells(row) for row in facts["outlook"]),
    )
    if given.out:
        given.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
