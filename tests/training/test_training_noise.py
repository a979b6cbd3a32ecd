"""Which noise the optimizer adds: discrete where the plan says so, reproducible where it asks."""

import math

import numpy as np
import pytest
import torch
from small_training import Numbered, a_model, a_plan, documents, weights
from torch import nn
from variants import rest_in_full

from dpmlm.privacy import PrivacyPlan, SecretStream
from dpmlm.privacy.noise import NOISE_SOURCES, REPRODUCIBLE_NOISE
from dpmlm.training import SecureDPOptimizer, optimizer


def discrete(**changes) -> PrivacyPlan:
    source = NOISE_SOURCES["discrete_gaussian"]
    return a_plan(**({"noise": "discrete_gaussian", "noise_source": source} | changes))


def reproducible(seed, **changes) -> PrivacyPlan:
    return a_plan(noise_seed=seed, noise_source=REPRODUCIBLE_NOISE, **changes)


def stepped(model, plan) -> list[np.ndarray]:
    """What one step without any gradient adds to the sum, a parameter each."""
    sgd = torch.optim.SGD(model.parameters(), lr=plan.expected_batch_size)
    private = SecureDPOptimizer(sgd, plan, SecretStream(bytes(32)))
    before = weights(model)
    private.start_step(0)
    private.step()
    return [(old - new).flatten().double().numpy() for old, new in zip(before, weights(model))]


def zeros(*shapes) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(torch.zeros(*shape)) for shape in shapes])


def test_discrete_noise_lies_on_one_grid_with_the_planned_deviation(monkeypatch):
    monkeypatch.setattr(optimizer, "gaussian_noise", None)
    plan = discrete()
    moved = stepped(zeros((100, 200), (50,), (300, 7)), plan)
    assert [len(part) for part in moved] == [20_000, 50, 2_100]
    for part in moved:
        error = 4 / math.sqrt(2 * len(part))
        assert np.std(part) == pytest.approx(
            plan.noise_multiplier * plan.max_grad_norm * 1.0001, rel=error
        )
        # A place of the grid is zero, and hit by one number of some four million.
        assert np.count_nonzero(part == 0) <= 2


def test_the_grid_is_made_for_all_tensors_together():
    sgd = torch.optim.SGD(zeros(*[(10, 10)] * 64).parameters(), lr=1.0)
    private = SecureDPOptimizer(sgd, discrete(), SecretStream.from_os())
    assert private._grid.pitch * math.sqrt(6_400) <= 1e-4 * discrete().max_grad_norm


def test_continuous_noise_needs_no_grid():
    sgd = torch.optim.SGD(zeros((4,)).parameters(), lr=1.0)
    assert SecureDPOptimizer(sgd, a_plan(), SecretStream.from_os())._grid is None


def test_a_discrete_run_trains_and_two_of_them_differ(fit):
    ends = []
    for folder in ("one", "other"):
        model = a_model()
        fit(model, Numbered(documents()), discrete(steps=2), folder=folder)
        ends.append(weights(model))
    assert not any(torch.equal(a, b) for a, b in zip(*ends))


@pytest.mark.parametrize("kind", rest_in_full(["gaussian", "discrete_gaussian"], ["gaussian"]))
def test_the_same_seed_repeats_samples_and_noise_and_another_does_not(fit, kind):
    ends, asked = [], []
    for folder, seed in (("one", 7), ("same", 7), ("other", 8)):
        model, units = a_model(), Numbered(documents() * 3)
        plan = reproducible(seed, steps=3, expected_batch_size=300, noise=kind)
        fit(model, units, plan, folder=folder)
        ends.append(weights(model))
        asked.append(units.asked)
    assert asked[0] == asked[1] != asked[2]
    assert all(torch.equal(a, b) for a, b in zip(ends[0], ends[1]))
    assert not any(torch.equal(a, b) for a, b in zip(ends[0], ends[2]))


def test_reproducible_noise_has_the_planned_deviation():
    plan = reproducible(7)
    moved = stepped(zeros((100, 200)), plan)[0]
    assert np.std(moved) == pytest.approx(plan.noise_multiplier * plan.max_grad_norm, rel=0.03)
