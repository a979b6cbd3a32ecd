"""Poisson sampling: each unit's rate, the spread of batch sizes, independence."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from dpmlm.privacy import PoissonSampler, SecretStream

UNITS = [f"u{index}" for index in range(300)]
STEPS, RATE = 2000, 0.07


def draws(key: bytes = bytes(32)) -> NDArray[np.bool_]:
    sampler = PoissonSampler(UNITS, RATE, stream=SecretStream(key))
    taken = np.zeros((STEPS, len(UNITS)), dtype=bool)
    for step in range(STEPS):
        taken[step, sampler.draw(step)] = True
    return taken


def faults(taken: NDArray[np.bool_]) -> list[str]:
    """What is not Poisson sampling at RATE about these draws."""
    found = []
    spread = STEPS * RATE * (1 - RATE)
    chi = float((((taken.sum(0) - STEPS * RATE) ** 2) / spread).sum())
    if not 1e-4 < stats.chi2.sf(chi, taken.shape[1]) < 1 - 1e-4:
        found.append("rate of units")
    sizes = taken.sum(1)
    ratio = sizes.var() / (taken.shape[1] * RATE * (1 - RATE))
    if abs(ratio - 1) > 5 * np.sqrt(2 / STEPS):
        found.append("spread of batch sizes")
    x = (taken - RATE) / np.sqrt(RATE * (1 - RATE))
    if abs(float((x[1:] * x[:-1]).mean())) > 5 / np.sqrt(x.size):
        found.append("steps")
    pairs = x.T @ x / STEPS
    off = pairs[np.triu_indices_from(pairs, 1)]
    if abs(float((off**2).mean()) * STEPS - 1) > 0.05:
        found.append("pairs of units")
    return found


def test_draws_are_poisson() -> None:
    taken = draws()
    assert faults(taken) == []
    overall = taken.mean()
    assert abs(overall - RATE) < 5 * np.sqrt(RATE * (1 - RATE) / taken.size)


def test_the_check_finds_other_samplers() -> None:
    rng = np.random.default_rng(0)
    size = round(RATE * len(UNITS))
    shuffled = np.zeros((STEPS, len(UNITS)), dtype=bool)
    for step in range(STEPS):
        shuffled[step, rng.permutation(len(UNITS))[:size]] = True
    assert "spread of batch sizes" in faults(shuffled)
    assert "rate of units" in faults(rng.random((STEPS, len(UNITS))) < RATE * 1.1)
    repeated = np.repeat(rng.random((STEPS // 2, len(UNITS))) < RATE, 2, axis=0)
    assert "steps" in faults(repeated)
    families = np.repeat(rng.random((STEPS, len(UNITS) // 2)) < RATE, 2, axis=1)
    assert "pairs of units" in faults(families)


def test_draws_are_ascending_indices_and_may_be_empty() -> None:
    sampler = PoissonSampler(UNITS, 0.004, stream=SecretStream(bytes(32)))
    samples = [sampler.draw(step) for step in range(60)]
    assert [] in samples
    assert all(sample == sorted(set(sample)) for sample in samples)
    full = PoissonSampler(UNITS, 1.0, stream=SecretStream(bytes(32)))
    assert full.draw(0) == list(range(300))
    assert PoissonSampler([], 0.5, stream=SecretStream(bytes(32))).draw(0) == []


def test_a_number_of_units_is_enough() -> None:
    by_name = PoissonSampler(UNITS, RATE, stream=SecretStream(bytes(32)))
    by_count = PoissonSampler(300, RATE, stream=SecretStream(bytes(32)))
    assert by_name.draw(4) == by_count.draw(4)


def test_a_step_is_drawn_once_and_streams_differ() -> None:
    sampler = PoissonSampler(UNITS, RATE, stream=SecretStream(bytes(32)))
    first = sampler.draw(0)
    with pytest.raises(ValueError, match="once"):
        sampler.draw(0)
    assert PoissonSampler(UNITS, RATE, stream=SecretStream.from_os()).draw(0) != first


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        PoissonSampler(UNITS, rate, stream=SecretStream(bytes(32)))


def test_a_unit_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        PoissonSampler(["a", "b", "a"], 0.5, stream=SecretStream(bytes(32)))
