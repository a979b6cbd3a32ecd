import math

import numpy as np
import pytest
import torch
from torch import nn

from dpmlm.privacy import PrivacyPlan, SecretStream, make_plan
from dpmlm.training import SecureDPOptimizer, adamw


def a_plan(**changes) -> PrivacyPlan:
    settings = {"epsilon": 8, "delta": 1e-6, "units": 1000, "expected_batch_size": 50}
    settings |= {"steps": 20, "max_grad_norm": 0.5, "accountant": "rdp"}
    return make_plan(**(settings | changes))


def test_noise_has_the_planned_deviation_on_every_tensor_also_without_gradient():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 200), nn.Linear(200, 50))
    before = [p.detach().clone() for p in model.parameters()]
    plan = a_plan()
    rate = 0.7
    sgd = torch.optim.SGD(model.parameters(), lr=rate)
    optimizer = SecureDPOptimizer(sgd, plan, SecretStream(bytes(32)))
    optimizer.start_step(0)
    optimizer.step()
    expected = rate * plan.noise_multiplier * plan.max_grad_norm / plan.expected_batch_size
    for old, new in zip(before, model.parameters(), strict=True):
        moved = (new.detach() - old).flatten().numpy()
        error = 4 / math.sqrt(2 * len(moved))
        assert np.std(moved) == pytest.approx(expected, rel=error)


def test_the_clipped_sum_is_divided_by_the_plan_and_not_by_what_was_drawn():
    model = nn.Linear(3, 1, bias=False)
    plan = a_plan(epsilon=math.inf, max_grad_norm=math.inf)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer = SecureDPOptimizer(sgd, plan, SecretStream.from_os())
    before = model.weight.detach().clone()
    model.weight.grad = torch.full((1, 3), 100.0)
    optimizer.start_step(0)
    optimizer.step()
    assert torch.allclose(before - model.weight.detach(), torch.full((1, 3), 2.0))


def test_no_two_steps_and_no_two_parameters_share_noise():
    model = nn.ParameterList([nn.Parameter(torch.zeros(64)) for _ in range(2)])
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer = SecureDPOptimizer(sgd, a_plan(), SecretStream.from_os())
    seen = []
    for step in range(3):
        before = [p.detach().clone() for p in model]
        optimizer.zero_grad(set_to_none=True)
        optimizer.start_step(step)
        optimizer.step()
        seen += [(p.detach() - old).numpy() for p, old in zip(model, before, strict=True)]
    for one in range(len(seen)):
        for other in range(one):
            assert abs(np.corrcoef(seen[one], seen[other])[0, 1]) < 0.6


def test_the_same_step_twice_is_refused_by_the_stream():
    model = nn.Linear(2, 2)
    optimizer = SecureDPOptimizer(
        torch.optim.SGD(model.parameters(), lr=1.0), a_plan(), SecretStream.from_os()
    )
    optimizer.start_step(0)
    optimizer.step()
    with pytest.raises(ValueError, match="once"):
        optimizer.step()


def test_skipping_a_step_is_refused():
    model = nn.Linear(2, 2)
    optimizer = SecureDPOptimizer(
        torch.optim.SGD(model.parameters(), lr=1.0), a_plan(), SecretStream.from_os()
    )
    with pytest.raises(RuntimeError, match="twice"):
        optimizer.signal_skip_step(True)


def test_biases_and_norms_do_not_decay():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    groups = {
        group["weight_decay"]: len(group["params"]) for group in adamw(model, 1, 0.1).param_groups
    }
    assert groups == {0.1: 1, 0.0: 3}
