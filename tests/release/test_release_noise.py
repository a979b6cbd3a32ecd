"""Noise and the gate: reproducible noise never passes, discrete noise is confirmed by RDP."""

import pytest
from variants import rest_in_full

from dpmlm.privacy import epsilon_of, make_plan
from dpmlm.release import decide, load_policy, policy_names
from dpmlm.release.facts import complete

SETTINGS = {"epsilon": 2.0, "delta": 1e-6, "units": 100, "expected_batch_size": 10, "steps": 20}
SETTINGS |= {"max_grad_norm": 1.0, "accountant": "rdp"}


@pytest.mark.parametrize("name", policy_names())
@pytest.mark.parametrize("noise", rest_in_full(["gaussian", "discrete_gaussian"], ["gaussian"]))
def test_reproducible_noise_fails_even_where_all_else_is_said_to_hold(facts, now, name, noise):
    facts["plan"] = make_plan(**SETTINGS, noise=noise, noise_seed=7).to_json()
    assert complete(facts)["plan"]["private"] is False
    decision = decide(load_policy(name), facts, now=now)
    status = {rule.id: rule.status for rule in decision.rules}
    assert decision.verdict == "FAIL"
    assert status["dp.private"] == status["dp.noise_source"] == "fail"
    assert status["dp.accounted"] == "fail"


def test_discrete_noise_is_cryptographic_and_accounted_by_rdp(facts, now):
    plan = make_plan(**SETTINGS, noise="discrete_gaussian")
    facts["plan"] = plan.to_json()
    whole = complete(facts)["plan"]
    assert whole["private"] is whole["cryptographic_noise"] is True
    assert whole["accounted_epsilon"] == epsilon_of("rdp", plan.composition(), plan.delta)
    decision = decide(load_policy("internal"), facts, now=now)
    status = {rule.id: rule.status for rule in decision.rules}
    assert status["dp.private"] == status["dp.noise_source"] == status["dp.accounted"] == "pass"
