"""Exact exposure against brute force, its distribution by chance, its ceiling and threshold."""

import itertools
import math
import time

import numpy as np
import pytest

from audits.exposures.exposure import (
    default_threshold,
    exposure,
    exposures,
    markov_p_value,
    mean_ceiling,
    threshold_p_value,
)
from audits.exposures.ranks import UNITS_PER_NAT
from dpmlm.artifacts import UserError


def _brute_force(logprobs: np.ndarray, secret: np.ndarray) -> tuple[float, float]:
    rounded = np.rint(logprobs * UNITS_PER_NAT).astype(int)
    places = range(len(rounded))
    own = sum(rounded[i, secret[i]] for i in places)
    sums = [
        sum(rounded[i, choice[i]] for i in places)
        for choice in itertools.product(range(rounded.shape[1]), repeat=len(rounded))
    ]
    space = math.log2(len(sums))
    higher, reached = sum(s > own for s in sums), sum(s >= own for s in sums)
    return space - math.log2(1 + higher), space - math.log2(reached)


@pytest.mark.parametrize(("length", "alphabet"), [(1, 7), (2, 5), (3, 6), (4, 5), (5, 3)])
def test_exact_against_every_candidate(length: int, alphabet: int) -> None:
    rng = np.random.default_rng(length)
    for _ in range(15):
        logprobs = np.log(rng.dirichlet(np.ones(alphabet) * 0.5, size=length) + 1e-12)
        secret = rng.integers(0, alphabet, length)
        found = exposure(logprobs, secret)
        optimistic, conservative = _brute_force(logprobs, secret)
        assert found.optimistic == pytest.approx(optimistic, abs=1e-12)
        assert found.conservative == pytest.approx(conservative, abs=1e-12)


def test_ties_under_both_conventions() -> None:
    logprobs = np.log(np.array([[0.5, 0.2, 0.2, 0.1]] * 3))
    for secret in itertools.product(range(4), repeat=3):
        found = exposure(logprobs, secret)
        assert (found.optimistic, found.conservative) == pytest.approx(
            _brute_force(logprobs, np.array(secret))
        )
    flat = exposure(np.zeros((6, 64)), [0] * 6)
    assert flat.optimistic == 36
    assert flat.conservative == 0


def test_best_candidate_has_all_the_bits_and_worst_none() -> None:
    logprobs = np.log(np.arange(1, 65) / 2080)[None, :].repeat(6, axis=0)
    assert exposure(logprobs, [63] * 6).conservative == 36
    assert exposure(logprobs, [0] * 6).conservative == 0


def test_constant_added_to_a_position_moves_nothing() -> None:
    rng = np.random.default_rng(1)
    logprobs = np.round(rng.normal(size=(6, 64)) * UNITS_PER_NAT) / UNITS_PER_NAT
    moved = logprobs + np.array([[3.0], [-7.0], [0.0], [1.0], [11.0], [-2.0]])
    assert exposure(logprobs, [5] * 6) == exposure(moved, [5] * 6)


def test_chance_is_exponential_in_bits() -> None:
    rng = np.random.default_rng(2)
    logprobs = np.log(rng.dirichlet(np.ones(64), size=(800, 6)))
    bits = np.array([e.conservative for e in exposures(logprobs, rng.integers(0, 64, (800, 6)))])
    assert bits.mean() == pytest.approx(1 / math.log(2), abs=0.2)
    for x in (1, 2, 4):
        rate = (bits >= x).mean()
        assert rate <= 2.0**-x + 4 * math.sqrt(2.0**-x / 800)


def test_speed_of_exact_ranks_in_2_to_the_36() -> None:
    rng = np.random.default_rng(3)
    logprobs = np.log(rng.dirichlet(np.ones(64) * 0.3, size=(25, 6)) + 1e-12)
    started = time.process_time()
    exposures(logprobs, rng.integers(0, 64, (25, 6)))
    assert time.process_time() - started < 60 * 25 / 500


def test_unusable_scores_are_refused() -> None:
    with pytest.raises(UserError, match="not a number"):
        exposure(np.full((2, 3), np.nan), [0, 0])
    with pytest.raises(UserError, match="below 2\\^62"):
        exposure(np.zeros((11, 64)), [0] * 11)


@pytest.mark.parametrize(("epsilon", "bits"), [(0, 1.44), (1, 2.89), (4, 7.21), (8, 12.98)])
def test_ceiling_at_delta_0(epsilon: float, bits: float) -> None:
    assert mean_ceiling(epsilon, 0.0, 36) == pytest.approx(bits, abs=5e-3)
    assert mean_ceiling(epsilon, 1e-3, 36) == pytest.approx(bits + 0.036, abs=5e-3)
    assert mean_ceiling(100.0, 0.0, 36) == 36


def test_threshold_lets_a_tenth_of_the_canaries_reject() -> None:
    for epsilon in (1.0, 8.0):
        threshold = default_threshold(epsilon, 1e-6, 36)
        assert threshold is not None
        settings = {"inserted": 500, "threshold": threshold, "epsilon": epsilon, "delta": 1e-6}
        assert threshold_p_value(above=50, **settings) == pytest.approx(0.05 / 3)
        assert threshold_p_value(above=0, **settings) == 1
    assert default_threshold(20.0, 1e-6, 36) is None
    assert default_threshold(1.0, 0.01, 36) is None
    assert default_threshold(math.inf, 1e-6, 36) is None


def test_threshold_false_alarms_of_the_worst_private_mechanism() -> None:
    # Each canary reaches the threshold exactly as often as the claim allows; 2,000 runs.
    rng = np.random.default_rng(4)
    threshold = default_threshold(1.0, 0.0, 36)
    assert threshold is not None
    rate = math.e * 2**-threshold
    above = rng.binomial(500, rate, 2000)
    together = 500 * (rng.random(2000) < rate)
    for counts in (above, together):
        alarms = sum(markov_p_value(int(count), 500 * rate) <= 0.05 for count in counts)
        assert alarms <= 131
