"""Confidence limits, lower bounds on epsilon from one training run or several, Holm's correction.

Every bound here is one-sided at level `beta`: a mechanism that keeps the claim is contradicted
with probability at most `beta`. A small bound is no certificate, and each bound has a ceiling
that its number of guesses sets: print `one_run_epsilon(guesses=r, correct=r, ...)` beside it.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from scipy import special, stats

from dpmlm.artifacts import UserError

_BISECTIONS = 60


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a binomial rate, (1 - confidence)/2 in each tail.

    For a one-sided limit at level beta pass `confidence = 1 - 2 beta`. Raises UserError on
    counts that are not 0 <= successes <= trials, or a confidence outside (0, 1).
    """
    if not 0 <= successes <= trials or trials < 1:
        raise UserError(
            f"{successes} successes in {trials} trials",
            "an interval needs 0 <= successes <= trials and at least one trial",
            "check how the two counts were taken",
        )
    if not 0 < confidence < 1:
        raise UserError(
            f"confidence {confidence}",
            "a confidence lies between 0 and 1, both excluded",
            "pass 0.95 for an interval of 95 %",
        )
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1
    return float(low), float(high)


def upper_limit(successes: int, trials: int, beta: float = 0.05) -> float:
    """One-sided Clopper-Pearson upper limit: the rate is above it with probability <= beta."""
    return clopper_pearson(successes, trials, 1 - 2 * beta)[1]


def one_run_p_value(
    *, epsilon: float, canaries: int, guesses: int, correct: int, delta: float
) -> float:
    """How likely `correct` of `guesses` is at most, if training is (epsilon, delta)-DP.

    `canaries` is m, each included by a fair coin of its own; guesses were fixed in number
    beforehand. Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846), theorem 5.2:
    min{1, P[X >= v] + 2 m delta max_i P[v - i <= X < v]/i}, X ~ Bin(r, e^eps/(1 + e^eps)).
    """
    _check_counts(canaries, guesses, correct, delta)
    right = 1 / (1 + math.exp(-epsilon))
    value = float(stats.binom.sf(correct - 1, guesses, right))
    if delta > 0 and correct > 0:
        below = stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, right)
        averages = np.cumsum(below) / np.arange(1, correct + 1)
        value += 2 * canaries * delta * float(averages.max())
    return min(1.0, value)


def one_run_epsilon(
    *, canaries: int, guesses: int, correct: int, delta: float, beta: float = 0.05
) -> float:
    """The largest epsilon that one run's guesses refute at level `beta`; 0 when none is.

    Assumes (epsilon, delta)-DP alone, any curve. Raises UserError on impossible counts, or a
    beta outside (0, 1).
    """
    _check_beta(beta)

    def refuted(epsilon: float) -> bool:
        return (
            one_run_p_value(
                epsilon=epsilon, canaries=canaries, guesses=guesses, correct=correct, delta=delta
            )
            < beta
        )

    return _largest(refuted)


def fdp_rejects(
    curve: Callable[[float], float], *, canaries: int, guesses: int, correct: int, beta: float
) -> bool:
    """Whether `correct` of `guesses` contradicts f-DP, where `curve(x)` is f(1 - x).

    Mahloujifar, Melis, Chaudhuri 2024 (arXiv 2410.22235), algorithm 3: the recursion bounds the
    share of wrong guesses (h) and right ones (r) that f allows when `correct` or more are right
    with probability at least `beta`. `curve` must be increasing, with curve(0) = 0.
    """
    right = beta * correct / canaries
    wrong = beta * (guesses - correct) / canaries
    for i in range(correct - 1, -1, -1):
        grown = max(wrong, curve(right))
        if grown == wrong:
            break  # nothing moves any more
        right += i / (guesses - i) * (grown - wrong)
        wrong = grown
        if right + wrong > guesses / canaries:
            return True
    return right + wrong > guesses / canaries


def fdp_one_run_epsilon(
    *, canaries: int, guesses: int, correct: int, delta: float, beta: float = 0.05
) -> float:
    """Epsilon at `delta` of the largest mu for which mu-GDP is refuted; 0 when none is.

    Assumes a Gaussian-shaped trade-off curve, which a subsampled plan does not have: print it
    beside `one_run_epsilon`, never instead. Mahloujifar et al. 2024. Raises UserError for
    delta = 0, where mu-GDP has no finite epsilon.
    """
    _check_beta(beta)
    _check_counts(canaries, guesses, correct, delta)
    if delta <= 0:
        raise UserError(
            f"delta {delta}",
            "a Gaussian curve has no finite epsilon at delta 0",
            "pass the delta of the plan",
        )

    def refuted(mu: float) -> bool:
        return fdp_rejects(
            lambda x: _gaussian_curve(x, mu),
            canaries=canaries,
            guesses=guesses,
            correct=correct,
            beta=beta,
        )

    return gaussian_epsilon(_largest(refuted), delta)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of mu-GDP at `delta`: the root of Phi(-e/mu + mu/2) - e^e Phi(-e/mu - mu/2) = delta.

    Dong, Roth, Su 2022 (arXiv 1905.02383), corollary 2.13. mu = 0 gives 0.
    """
    if mu <= 0:
        return 0.0

    def above(epsilon: float) -> bool:
        left = stats.norm.cdf(-epsilon / mu + mu / 2)
        right = math.exp(epsilon + stats.norm.logcdf(-epsilon / mu - mu / 2))
        return bool(left - right > delta)

    return _largest(above)


def fewest_runs(delta: float, beta: float = 0.05, epsilon: float = 0.0) -> int:
    """Trainings with the canary, and as many without, that can bound more than `epsilon` at all.

    When no guess is wrong, both upper limits are 1 - (beta/2)^(1/n).
    """
    _check_beta(beta)
    _check_delta(delta)
    least = (1 + delta * math.exp(-epsilon)) / (1 + math.exp(-epsilon))
    return math.floor(math.log(beta / 2) / math.log(least)) + 1


def several_runs_epsilon(
    *,
    in_runs: int,
    false_negatives: int,
    out_runs: int,
    false_positives: int,
    delta: float,
    beta: float = 0.05,
) -> float:
    """Lower bound from independent trainings with one canary and without: 0 when nothing shows.

    max(0, ln((1 - FNR - delta)/FPR)), each rate at its one-sided upper limit, level beta/2. The
    threshold that made the guesses comes from other data (`audits.runs`). Raises UserError when
    there are too few trainings to bound anything above 0, with the number that is missing.
    """
    _check_delta(delta)
    _check_beta(beta)
    if not (0 <= false_negatives <= in_runs and 0 <= false_positives <= out_runs):
        raise UserError(
            f"{false_negatives} of {in_runs} and {false_positives} of {out_runs} guesses wrong",
            "no more guesses are wrong than there are trainings",
            "check how the counts were taken",
        )
    if min(in_runs, out_runs) < 1 or _several(in_runs, 0, out_runs, 0, delta, beta) <= 0:
        needed = fewest_runs(delta, beta)
        missing = [max(0, needed - runs) for runs in (in_runs, out_runs)]
        raise UserError(
            f"{in_runs} trainings with the canary and {out_runs} without it",
            f"at beta {beta:g} and delta {delta:g} it takes {needed} of each to bound anything",
            f"train {missing[0]} more with it and {missing[1]} more without it",
        )
    return _several(in_runs, false_negatives, out_runs, false_positives, delta, beta)


def _several(
    in_runs: int, missed: int, out_runs: int, alarmed: int, delta: float, beta: float
) -> float:
    kept = 1 - upper_limit(missed, in_runs, beta / 2) - delta
    alarms = upper_limit(alarmed, out_runs, beta / 2)
    return math.log(max(kept, alarms) / alarms)


def holm(p_values: Mapping[str, float], beta: float = 0.05) -> list[str]:
    """Names of the rejected tests at family-wise level `beta` (Holm 1979), smallest p first.

    Valid whatever the dependence between the tests.
    """
    rejected = []
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p_value > beta / (len(p_values) - rank):
            break
        rejected.append(name)
    return rejected


def _gaussian_curve(x: float, mu: float) -> float:
    return float(special.ndtr(special.ndtri(min(x, 1.0)) - mu))


def _largest(holds: Callable[[float], bool]) -> float:
    """sup{x >= 0: holds(x)} for a condition that ends somewhere; 0 where it never holds.

    The upper end is doubled until the condition fails: a fixed grid that ends too early reports
    its own end as a bound.
    """
    if not holds(0.0):
        return 0.0
    high = 1.0
    while holds(high):
        high *= 2
        if high > 512:
            return math.inf
    low = 0.0 if high == 1.0 else high / 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _check_beta(beta: float) -> None:
    if not 0 < beta < 1:
        raise UserError(
            f"beta {beta}",
            "an error budget lies between 0 and 1, both excluded",
            "pass 0.05 for a false alarm in twenty",
        )


def _check_counts(canaries: int, guesses: int, correct: int, delta: float) -> None:
    if not (0 <= correct <= guesses <= canaries and canaries > 0):
        raise UserError(
            f"{correct} right of {guesses} guesses on {canaries} canaries",
            "right guesses <= guesses <= canaries, and at least one canary",
            "check how the counts were taken",
        )
    _check_delta(delta)


def _check_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise UserError(f"delta {delta}", "delta lies in [0, 1)", "pass the delta of the plan")
