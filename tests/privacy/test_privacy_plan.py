"""Plans: calibration, refusals, identity."""

import json
import math
import pickle
import time
from typing import Any

import pytest

from dpmlm.errors import UserError
from dpmlm.privacy import PrivacyPlan, SampledGaussian, accountants, epsilon_of, make_plan, rules

SMALL: dict[str, Any] = {
    "epsilon": 2.0,
    "delta": 1e-6,
    "units": 6500,
    "expected_batch_size": 650,
    "steps": 50,
    "max_grad_norm": 1.0,
}


@pytest.mark.parametrize(
    ("epsilon", "units", "batch", "steps", "accountant"),
    [
        pytest.param(8.0, 6500, 256, 150, "prv", marks=pytest.mark.full),
        (2.0, 2000, 64, 100, "pld"),
        (1.0, 6500, 256, 300, "prv"),
        pytest.param(0.1, 6500, 256, 300, "prv", marks=pytest.mark.full),
        (4.0, 100, 100, 3, "prv"),
        (3.0, 5000, 50, 200, "rdp"),
    ],
)
def test_epsilon_is_just_below_the_target(
    epsilon: float, units: int, batch: int, steps: int, accountant: str
) -> None:
    plan = make_plan(
        epsilon=epsilon, delta=1e-6, units=units, expected_batch_size=batch, steps=steps,
        max_grad_norm=1.0, accountant=accountant,
    )  # fmt: skip
    spent = plan.epsilon_spent(steps)
    assert 0.995 * epsilon <= spent <= epsilon
    assert epsilon_of("pld", plan.composition(), plan.delta) <= epsilon
    table = plan.check()
    assert table.claimed == spent
    assert table.rdp >= table.pld
    assert table.prv == pytest.approx(table.pld, abs=0.04)
    assert plan.epsilon_spent(steps // 2) < spent
    assert plan.epsilon_spent(0) == 0


def test_the_noise_is_the_least_to_half_a_percent() -> None:
    plan = make_plan(**SMALL)
    less = SampledGaussian(plan.noise_multiplier * 0.99, plan.sample_rate, plan.steps)
    assert epsilon_of("prv", less, plan.delta) > plan.epsilon


@pytest.mark.parametrize("accountant", ["prv", "pld", "rdp"])
def test_a_plan_is_made_in_three_seconds(accountant: str) -> None:
    make_plan(**SMALL, accountant=accountant)  # imports what it needs
    start = time.process_time()
    make_plan(
        **{**SMALL, "expected_batch_size": 256, "epsilon": 7.5, "steps": 333},
        accountant=accountant,
    )
    assert time.process_time() - start < 3


@pytest.mark.full
@pytest.mark.parametrize("accountant", ["prv", "pld", "rdp"])
def test_a_plan_of_64_plateaus_is_made_in_a_minute(accountant: str) -> None:
    start = time.process_time()
    make_plan(
        **{**SMALL, "expected_batch_size": 64, "epsilon": 8, "steps": 640},
        accountant=accountant,
        batch_schedule={10 * place: 64 + 4 * place for place in range(1, 64)},
    )
    assert time.process_time() - start < 60


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"delta": 1 / 6500}, "below 1/units"),
        ({"delta": 0.0}, "below 1/units"),
        ({"delta": 1e-13}, "Fourier"),
        ({"max_grad_norm": 1e7}, "32-bit"),
        ({"unit": "sentence"}, "document, person"),
        ({"unit": "sequence", "scope": "source corpus"}, "without a scope"),
        ({"scope": "sequences that the prepared text was cut into"}, "without a scope"),
        ({"expected_batch_size": 6501}, "sampling rate"),
        ({"expected_batch_size": 0}, "sampling rate"),
        ({"epsilon": 0.0}, "between"),
        ({"epsilon": -1.0}, "between"),
        ({"epsilon": math.nan}, "number"),
        ({"epsilon": "8"}, "number"),
        ({"steps": 0}, "whole number"),
        ({"steps": 1.5}, "whole number"),
        ({"units": True}, "whole number"),
        ({"max_grad_norm": 0.0}, "above 0"),
        ({"max_grad_norm": math.inf}, "finite unless"),
        ({"accountant": "gdp"}, "prv, pld, rdp"),
        ({"scope": "corpus"}, "source corpus"),
        ({"adjacency": "replace"}, "add or remove"),
        ({"bindings": {"window": math.inf}}, "finite"),
        ({"bindings": {"window": [1]}}, "text, a number"),
    ],
)
def test_a_broken_rule_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_plan(**{**SMALL, **change})


def test_without_privacy() -> None:
    plan = make_plan(**{**SMALL, "epsilon": math.inf, "max_grad_norm": math.inf})
    assert not plan.private
    assert plan.noise_multiplier == 0
    assert plan.noise_source == "none"
    assert plan.epsilon_spent(1) == math.inf
    assert plan.epsilon_spent(0) == 0
    assert plan.check().claimed == math.inf
    assert PrivacyPlan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False))) == plan


def test_json_round_trip_and_pickle() -> None:
    plan = make_plan(**{**SMALL, "bindings": {"window": 128, "masking": "whole_word", "x": None}})
    again = PrivacyPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.digest == plan.digest
    assert hash(again) == hash(plan)
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert plan.to_json()["sample_rate"] == plan.sample_rate == 650 / 6500


def test_every_field_is_in_the_digest_and_guarded_by_it() -> None:
    plan = make_plan(**{**SMALL, "bindings": {"window": 128}})
    data = plan.to_json()
    changes = {
        "epsilon": 3.0, "delta": 1e-7, "units": 6501, "unit": "person", "steps": 51,
        "expected_batch_size": 255.0, "max_grad_norm": 2.0, "accountant": "pld",
        "noise_multiplier": 9.0, "scope": "deduplicated corpus", "bindings": {"window": 64},
        "batch_schedule": [[20, 300.0]],
    }  # fmt: skip
    assert set(changes) == set(data) - {
        "schema", "digest", "sample_rate", "plateaus", "max_batch_size", "sampler", "noise",
        "noise_seed", "noise_source", "bands", "coefficients",
    }  # fmt: skip
    for name, value in changes.items():
        with pytest.raises(UserError, match="hash to its digest"):
            PrivacyPlan.from_json({**data, name: value})
    for name in ("sampler", "noise", "noise_source"):
        with pytest.raises(UserError, match="must be one of"):
            PrivacyPlan.from_json({**data, name: "shuffle"})
    with pytest.raises(UserError, match="must be one of"):
        PrivacyPlan.from_json({**data, "noise_seed": 5})
    with pytest.raises(UserError, match="extra"):
        PrivacyPlan.from_json({**data, "extra": 1})
    with pytest.raises(UserError, match="steps"):
        PrivacyPlan.from_json({key: value for key, value in data.items() if key != "steps"})


def test_a_plan_is_frozen() -> None:
    plan = make_plan(**{**SMALL, "bindings": {"window": 128}})
    with pytest.raises(AttributeError):
        plan.steps = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        plan.bindings["window"] = 5  # type: ignore[index]


def test_prv_failure_falls_back_to_pld_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(mechanism: SampledGaussian, delta: float) -> float:
        raise accountants.AccountantFailure("out of luck")

    monkeypatch.setitem(accountants._METHODS, "prv", (fails, "opacus"))
    epsilon_of.cache_clear()
    with pytest.warns(UserWarning, match="accounted with PLD"):
        plan = make_plan(**SMALL)
    assert plan.accountant == "pld"
    assert plan.check().prv is None
    assert 0.995 * 2 <= plan.epsilon_spent(plan.steps) <= 2
    epsilon_of.cache_clear()


@pytest.mark.parametrize(("factor", "words"), [(0.9, "agree"), (1.1, "agree")])
def test_a_wrong_accountant_is_caught(
    factor: float, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = accountants._prv
    monkeypatch.setitem(accountants._METHODS, "prv", (lambda m, d: honest(m, d) * factor, "opacus"))
    epsilon_of.cache_clear()
    with pytest.raises(UserError, match=words):
        make_plan(**SMALL)
    epsilon_of.cache_clear()


def test_a_claim_below_pld_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = accountants._rdp
    monkeypatch.setitem(accountants._METHODS, "rdp", (lambda m, d: honest(m, d) * 0.5, "opacus"))
    epsilon_of.cache_clear()
    with pytest.raises(UserError, match=r"RDP's epsilon .* must not be below PLD"):
        make_plan(**{**SMALL, "accountant": "pld"})
    monkeypatch.undo()
    epsilon_of.cache_clear()
    plan = make_plan(**{**SMALL, "accountant": "pld"})
    monkeypatch.setattr(PrivacyPlan, "_figure", lambda self, name, mechanism: 1.0)
    with pytest.raises(UserError, match=r"claimed epsilon 1\.0000: it must not be below PLD"):
        plan.check()
    epsilon_of.cache_clear()


def test_too_little_noise_by_prv_is_raised_until_pld_agrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = accountants._prv
    monkeypatch.setitem(accountants._METHODS, "prv", (lambda m, d: honest(m, d) * 0.985, "opacus"))
    epsilon_of.cache_clear()
    plan = make_plan(**SMALL)
    assert epsilon_of("pld", plan.composition(), plan.delta) <= 2.0
    epsilon_of.cache_clear()


def test_powers_of_ten() -> None:
    assert rules._power_below(0.1 / 6500) == pytest.approx(1e-5)
