"""What a statement says beside its sentence: complete, true to the plan, convertible by others."""

import json
import math

import pytest

from dpmlm.privacy import make_plan
from dpmlm.privacy.details import RENYI_ORDERS, details, epsilon_by_accountant

DELTA = 1e-6


def plan_of(epsilon=2.0, **more):
    sizes = {"units": 5000, "expected_batch_size": 500, "steps": 10, "max_grad_norm": 1.0}
    return make_plan(epsilon=epsilon, delta=DELTA, **sizes, **more)


def test_every_field_is_there_and_is_the_plans():
    plan = plan_of(unit="person", bindings={"windows_per_draw": 3, "window": 64})
    found = details(plan)
    assert found["adjacency"] == "add or remove one person"
    assert found["contribution_bound"] == {
        "rows_of_a_unit_in_a_step": 3,
        "tokens_of_a_row": 64,
        "norm_of_a_units_gradient": 1.0,
    }
    assert found["mechanism"]["noise_multiplier"] == plan.noise_multiplier
    assert found["mechanism"]["plateaus"] == [{"steps": 10, "sample_rate": 0.1}]
    assert all(found[name] for name in ("variant", "trust", "release_model", "custom_code"))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def naive_divergence(order, q, sigma):
    """Of a whole order, by the binomial sum of Mironov, Talwar and Zhang 2019, section 3.3."""
    terms = (
        math.comb(order, k) * (1 - q) ** (order - k) * q**k * math.exp(k * (k - 1) / (2 * sigma**2))
        for k in range(order + 1)
    )
    return math.log(sum(terms)) / (order - 1)


def test_the_divergences_are_those_of_the_whole_plan_and_convert_to_its_epsilon():
    plan = plan_of(0.5)
    told = {one["order"]: one["divergence"] for one in details(plan)["renyi"]}
    assert tuple(told) == RENYI_ORDERS
    for order, divergence in told.items():
        one_step = naive_divergence(int(order), 0.1, plan.noise_multiplier)
        assert divergence == pytest.approx(10 * one_step, rel=1e-6)
    converted = min(d + math.log(1 / DELTA) / (order - 1) for order, d in told.items())
    by = epsilon_by_accountant(plan)
    assert by["pld"] <= by["rdp"] <= converted < 2 * by["pld"]
    assert by["prv"] == pytest.approx(by["pld"], rel=0.02)


def test_batches_that_grow_are_told_plateau_by_plateau():
    parts = details(plan_of(batch_schedule={4: 1000}))["mechanism"]["plateaus"]
    assert parts == [{"steps": 4, "sample_rate": 0.1}, {"steps": 6, "sample_rate": 0.2}]


def test_what_an_accountant_does_not_bound_is_null():
    cut = plan_of(max_batch_size=600, accountant="pld")
    by = epsilon_by_accountant(cut)
    assert by["pld"] <= 2.0
    assert by["rdp"] is None
    assert {one["divergence"] for one in details(cut)["renyi"]} == {None}


def test_nothing_promised_is_said():
    found = details(plan_of(math.inf))
    assert found["variant"] == "none"
    assert {one["divergence"] for one in found["renyi"]} == {"inf"}
    assert set(epsilon_by_accountant(plan_of(math.inf)).values()) == {"inf"}
    json.dumps(found, allow_nan=False)
