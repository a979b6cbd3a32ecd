"""Reproducible noise: the same numbers again, and a plan that says of itself that it protects
nobody."""

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest

from dpmlm.errors import UserError
from dpmlm.privacy import Ledger, PrivacyPlan, SecretStream, make_plan, statement
from dpmlm.privacy.noise import NOISE_SOURCES, REPRODUCIBLE_NOISE


def a_plan(**changes: Any) -> PrivacyPlan:
    settings = {"epsilon": 2.0, "delta": 1e-6, "units": 6500, "expected_batch_size": 650}
    settings |= {"steps": 50, "max_grad_norm": 1.0, "accountant": "rdp", "noise_seed": 7}
    return make_plan(**(settings | changes))


def test_the_stream_is_the_same_for_the_same_seed_alone() -> None:
    first, again, other = (
        SecretStream.reproducible(seed).normals(8, "noise/0", 0).tolist() for seed in (7, 7, 8)
    )
    assert first == again != other
    assert first == SecretStream(KEY_OF_SEVEN).normals(8, "noise/0", 0).tolist()
    assert first != SecretStream.from_os().normals(8, "noise/0", 0).tolist()


KEY_OF_SEVEN = hashlib.sha256(b"dpmlm.privacy.stream/reproducible/1\x007").digest()


@pytest.mark.parametrize("noise", ["gaussian", "discrete_gaussian"])
def test_the_plan_has_the_noise_and_not_the_promise(noise: str) -> None:
    plan, secret = a_plan(noise=noise), a_plan(noise=noise, noise_seed=None)
    assert secret.private
    assert secret.noise_source == NOISE_SOURCES[noise]
    assert not plan.private
    assert plan.noise_source == REPRODUCIBLE_NOISE
    assert plan.noise_multiplier == secret.noise_multiplier
    assert plan.epsilon_spent(1) == plan.check().claimed == math.inf
    assert plan.digest != secret.digest
    assert a_plan(noise=noise, noise_seed=8).digest != plan.digest
    assert PrivacyPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "change", [{"noise_seed": None}, {"noise_source": NOISE_SOURCES["gaussian"]}, {"noise_seed": 0}]
)
def test_a_plan_cannot_hide_its_seed(change: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        PrivacyPlan.from_json(a_plan().to_json() | change)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "7"])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(UserError, match="noise_seed"):
        a_plan(noise_seed=seed)


def test_the_statement_promises_nothing(tmp_path: Path) -> None:
    plan = a_plan()
    ledger = Ledger.register(tmp_path / "l.jsonl", epsilon=math.inf, delta=1e-5, corpus="posts")
    ledger.reserve("run", plan)
    summary = ledger.summary("run")
    assert summary["epsilon"] == "inf"
    claim = statement(plan, what="the weights", summary=summary)
    assert "e^inf" in claim.sentence
    assert f"noise source: {REPRODUCIBLE_NOISE};" in claim.sentence
    assert "Not covered: anything: with reproducible noise nothing is promised;" in claim.sentence


def test_a_ledger_with_a_cap_refuses_it(tmp_path: Path) -> None:
    ledger = Ledger.register(tmp_path / "l.jsonl", epsilon=16, delta=1e-5, corpus="posts")
    with pytest.raises(UserError, match="reproducible noise"):
        ledger.reserve("run", a_plan())
    with pytest.raises(UserError, match="epsilon inf"):
        ledger.reserve("run", a_plan(epsilon=math.inf))
    ledger.reserve("run", a_plan(noise_seed=None))


def test_the_statement_names_discrete_noise(tmp_path: Path) -> None:
    plan = a_plan(noise="discrete_gaussian", noise_seed=None)
    ledger = Ledger.register(tmp_path / "l.jsonl", epsilon=16, delta=1e-5, corpus="posts")
    ledger.reserve("run", plan)
    claim = statement(plan, what="the weights", summary=ledger.summary("run"))
    assert f"noise source: {NOISE_SOURCES['discrete_gaussian']};" in claim.sentence
    assert "whole orders, which hold for discrete noise" in claim.sentence
    assert "checked with PLD" not in claim.sentence
    assert claim.fields["epsilon"] == pytest.approx(plan.epsilon_spent(50), abs=2e-4)
    assert "rounding of the clipped sum, before its noise," in claim.sentence
    smooth = a_plan(noise_seed=None)
    ledger = Ledger.register(tmp_path / "m.jsonl", epsilon=16, delta=1e-5, corpus="posts")
    ledger.reserve("run", smooth)
    assert (
        "and of the noise to 32-bit"
        in statement(smooth, what="the weights", summary=ledger.summary("run")).sentence
    )


def test_the_cap_is_judged_by_what_bounds_discrete_noise(tmp_path: Path) -> None:
    """A budget that PLD would accept and RDP does not; the filter is too tight for either."""
    plan = a_plan(noise="discrete_gaussian", noise_seed=None)
    pld, rdp = plan.check().pld, plan.check().rdp
    cap = (pld + rdp) / 2
    ledger = Ledger.register(tmp_path / "l.jsonl", epsilon=cap, delta=1e-6, corpus="posts")
    with pytest.raises(UserError, match="is left"):
        ledger.reserve("run", plan)
    continuous = a_plan(noise_seed=None, accountant="pld", epsilon=cap)
    ledger.reserve("run", continuous)
