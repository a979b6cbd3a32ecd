"""Published numbers, and second implementations from the papers' sums."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import integrate, stats

from audits.statistics import (
    clopper_pearson,
    fdp_one_run_epsilon,
    fdp_rejects,
    fewest_runs,
    gaussian_epsilon,
    holm,
    one_run_epsilon,
    one_run_p_value,
    several_runs_epsilon,
    upper_limit,
)
from dpmlm.artifacts import UserError

VECTORS = [
    (1000, 100, 95, 2.1652, 3.3233),
    (1000, 100, 80, 0.9553, 1.4022),
    (1000, 200, 150, 0.8200, 1.2969),
    (500, 100, 70, 0.4704, 0.7319),
    (5000, 1000, 900, 2.0183, 3.0229),
]


@pytest.mark.parametrize(("canaries", "guesses", "correct", "one_run", "fdp"), VECTORS)
def test_bounds_at_delta_1e_5(
    canaries: int, guesses: int, correct: int, one_run: float, fdp: float
) -> None:
    counts = {"canaries": canaries, "guesses": guesses, "correct": correct, "delta": 1e-5}
    assert one_run_epsilon(**counts) == pytest.approx(one_run, abs=5e-5)
    assert fdp_one_run_epsilon(**counts) == pytest.approx(fdp, abs=5e-5)


@pytest.mark.parametrize(("canaries", "ceiling"), [(1000, 5.8091), (100, 3.4930)])
def test_ceilings_when_every_guess_is_right(canaries: int, ceiling: float) -> None:
    found = one_run_epsilon(canaries=canaries, guesses=canaries, correct=canaries, delta=0)
    assert found == pytest.approx(ceiling, abs=5e-5)
    # P[all right] = q^m = beta has a closed form.
    q = 0.05 ** (1 / canaries)
    assert found == pytest.approx(math.log(q / (1 - q)), abs=1e-9)


def test_exceeding_8_needs_8932_perfect_guesses() -> None:
    for guesses, above in ((8931, False), (8932, True)):
        found = one_run_epsilon(canaries=guesses, guesses=guesses, correct=guesses, delta=0)
        assert (found > 8) is above


def _naive_p_value(epsilon: float, m: int, r: int, v: int, delta: float) -> float:
    """The theorem's sums with exact rationals and no cumulative trick."""
    q = Fraction(1 / (1 + math.exp(-epsilon)))
    mass = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    worst = max(sum(mass[v - i : v]) / i for i in range(1, v + 1))
    return min(1.0, float(sum(mass[v:]) + 2 * m * Fraction(delta) * worst))


@pytest.mark.parametrize("correct", [1, 11, 17, 20])
@pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0])
def test_one_run_p_value_against_exact_sums(correct: int, epsilon: float) -> None:
    found = one_run_p_value(epsilon=epsilon, canaries=50, guesses=20, correct=correct, delta=1e-3)
    assert found == pytest.approx(_naive_p_value(epsilon, 50, 20, correct, 1e-3), rel=1e-9)


def test_one_run_p_value_grows_with_epsilon() -> None:
    values = [
        one_run_p_value(epsilon=e, canaries=1000, guesses=200, correct=190, delta=1e-5)
        for e in np.linspace(0, 6, 61)
    ]
    assert values == sorted(values)


def test_coin_flips_bound_nothing() -> None:
    counts = {"canaries": 1000, "guesses": 200, "correct": 100, "delta": 1e-5}
    assert one_run_epsilon(**counts) == 0
    assert fdp_one_run_epsilon(**counts) == 0


def _naive_fdp(mu: float, m: int, guesses: int, correct: int, beta: float) -> bool:
    """The recursion on arrays indexed as in the paper, rather than two running values."""
    r = [0.0] * (correct + 1)
    h = [0.0] * (correct + 1)
    r[correct], h[correct] = beta * correct / m, beta * (guesses - correct) / m
    for i in reversed(range(correct)):
        h[i] = max(h[i + 1], stats.norm.cdf(stats.norm.ppf(min(r[i + 1], 1)) - mu))
        r[i] = r[i + 1] + i / (guesses - i) * (h[i] - h[i + 1])
    return r[0] + h[0] > guesses / m


@pytest.mark.parametrize("mu", [0.0, 0.4, 0.9, 1.6])
def test_fdp_recursion_against_arrays(mu: float) -> None:
    def curve(x: float) -> float:
        return float(stats.norm.cdf(stats.norm.ppf(min(x, 1)) - mu))

    for correct in range(0, 41, 4):
        found = fdp_rejects(curve, canaries=120, guesses=40, correct=correct, beta=0.05)
        assert found == _naive_fdp(mu, 120, 40, correct, 0.05)


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct"), [(8, 4, 4), (6, 3, 2), (9, 7, 1), (12, 10, 4), (5, 5, 3)]
)
@pytest.mark.parametrize("beta", [0.05, 0.4, 0.8])
def test_fdp_recursion_turns_at_the_same_mu(
    canaries: int, guesses: int, correct: int, beta: float
) -> None:
    # Few guesses and large beta, where the last term and the starting values weigh most.
    for mu in np.linspace(0, 3, 61):

        def curve(x: float, mu: float = mu) -> float:
            return float(stats.norm.cdf(stats.norm.ppf(min(x, 1)) - mu))

        found = fdp_rejects(curve, canaries=canaries, guesses=guesses, correct=correct, beta=beta)
        assert found == _naive_fdp(mu, canaries, guesses, correct, beta)


@pytest.mark.parametrize(("mu", "delta"), [(0.5, 1e-5), (1.0, 1e-6), (3.0, 1e-3)])
def test_gaussian_epsilon_against_integrated_hockey_stick(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)

    def excess(x: float) -> float:
        return max(0.0, stats.norm.pdf(x - mu) - math.exp(epsilon) * stats.norm.pdf(x))

    start = epsilon / mu + mu / 2
    total, _ = integrate.quad(excess, start, start + 12, epsabs=1e-14)
    assert total == pytest.approx(delta, rel=1e-5)
    assert gaussian_epsilon(0.0, delta) == 0


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (3, 20), (20, 20), (1, 500)])
def test_clopper_pearson_inverts_binomial_tails(successes: int, trials: int) -> None:
    low, high = clopper_pearson(successes, trials, 0.9)
    if successes:
        assert stats.binom.sf(successes - 1, trials, low) == pytest.approx(0.05)
    else:
        assert low == 0
    if successes < trials:
        assert stats.binom.cdf(successes, trials, high) == pytest.approx(0.05)
    else:
        assert high == 1


def test_2995_spans_without_a_hit_show_one_in_a_thousand() -> None:
    assert upper_limit(0, 2995) <= 1e-3 < upper_limit(0, 2994)


def test_holm_stops_at_the_first_that_stays() -> None:
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == ["b"]
    assert holm({"a": 0.04, "b": 0.01, "c": 0.02}) == ["b", "c", "a"]
    assert holm({"a": 0.02, "b": 0.02, "c": 0.02}) == []
    assert holm({}) == []


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(UserError, match="right guesses <= guesses"):
        one_run_epsilon(canaries=10, guesses=5, correct=6, delta=0)
    with pytest.raises(UserError, match="delta"):
        one_run_epsilon(canaries=10, guesses=5, correct=5, delta=1.0)
    with pytest.raises(UserError, match="beta"):
        one_run_epsilon(canaries=10, guesses=5, correct=5, delta=0, beta=0)
    with pytest.raises(UserError, match="no finite epsilon"):
        fdp_one_run_epsilon(canaries=10, guesses=5, correct=5, delta=0)
    with pytest.raises(UserError, match="successes"):
        clopper_pearson(3, 2)
    with pytest.raises(UserError, match="confidence"):
        clopper_pearson(1, 2, 1.0)


def _naive_several(n1: int, missed: int, n0: int, alarmed: int, delta: float, beta: float) -> float:
    """Both limits by bisection of exact binomial tails, the formula written out."""

    def limit(count: int, runs: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            tail = sum(
                math.comb(runs, k) * middle**k * (1 - middle) ** (runs - k)
                for k in range(count + 1)
            )
            low, high = (middle, high) if tail > beta / 2 else (low, middle)
        return high

    top = 1 - limit(missed, n1) - delta
    return max(0.0, math.log(top / limit(alarmed, n0))) if top > 0 else 0.0


@pytest.mark.parametrize(
    ("n1", "missed", "n0", "alarmed"),
    [(20, 0, 20, 0), (20, 3, 30, 1), (99, 20, 80, 4), (40, 40, 40, 0), (40, 0, 40, 40)],
)
@pytest.mark.parametrize("delta", [0.0, 0.05])
def test_several_runs_against_exact_tails(
    n1: int, missed: int, n0: int, alarmed: int, delta: float
) -> None:
    for beta in (0.05, 0.2):
        found = several_runs_epsilon(
            in_runs=n1,
            false_negatives=missed,
            out_runs=n0,
            false_positives=alarmed,
            delta=delta,
            beta=beta,
        )
        assert found == pytest.approx(
            _naive_several(n1, missed, n0, alarmed, delta, beta), abs=1e-9
        )


def test_each_limit_of_several_runs_takes_half_of_beta() -> None:
    # `clopper_pearson` at confidence 1 - beta is one-sided at beta/2 already.
    found = several_runs_epsilon(
        in_runs=50, false_negatives=5, out_runs=50, false_positives=2, delta=1e-5, beta=0.1
    )
    missed, alarmed = (clopper_pearson(count, 50, 0.9)[1] for count in (5, 2))
    assert found == pytest.approx(math.log((1 - missed - 1e-5) / alarmed), abs=1e-9)


@pytest.mark.parametrize(("delta", "epsilon"), [(0.0, 0.0), (0.05, 0.0), (1e-5, 1.0), (0.3, 2.0)])
def test_fewest_runs_is_the_first_that_bounds_more(delta: float, epsilon: float) -> None:
    least = next(n for n in range(1, 200) if _naive_several(n, 0, n, 0, delta, 0.05) > epsilon)
    assert fewest_runs(delta, 0.05, epsilon) == least


def test_too_few_runs_are_refused_with_what_is_missing() -> None:
    counts = {"false_negatives": 0, "false_positives": 0, "delta": 0.0}
    assert several_runs_epsilon(in_runs=6, out_runs=6, **counts) > 0
    with pytest.raises(UserError, match="train 1 more with it and 1 more without it") as caught:
        several_runs_epsilon(in_runs=5, out_runs=5, **counts)
    assert "takes 6 of each" in str(caught.value)
    with pytest.raises(UserError, match="train 6 more with it and 0 more without it"):
        several_runs_epsilon(in_runs=0, out_runs=9, **counts)
    with pytest.raises(UserError, match="no more guesses are wrong"):
        several_runs_epsilon(in_runs=9, out_runs=9, **counts | {"false_positives": 10})
    with pytest.raises(UserError, match="delta"):
        several_runs_epsilon(in_runs=9, out_runs=9, **counts | {"delta": 1.0})


def test_bounds_grow_with_the_number_of_right_guesses() -> None:
    counts = {"canaries": 300, "guesses": 60, "delta": 1e-4}
    for bound in (one_run_epsilon, fdp_one_run_epsilon):
        found = [bound(correct=correct, **counts) for correct in range(20, 61, 4)]
        assert found == sorted(found)
        assert found[0] == 0 < found[-1]
