"""The sentence of the claim, with every blank filled."""

import json
import math
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from dpmlm.errors import UserError
from dpmlm.privacy import Ledger, PrivacyPlan, make_plan, rounded_up, standard_exclusions, statement

PATTERN = re.compile(
    r"For any two corpora that differ by adding or removing one (?P<unit>\w+), the probability of "
    r"any outcome of releasing (?P<what>.+?) differs by at most a factor e\^(?P<epsilon>[\d.]+|inf)"
    r", plus (?P<delta>[\de.-]+)\. Sampling: (?P<sampler>.+?); accountant: (?P<accountant>.+?); "
    r"noise source: (?P<noise>.+?); scope: (?P<scope>source corpus|deduplicated corpus)\. "
    r"Not covered: (?P<excluded>.+)\."
)


def plan_of(epsilon: float, **more: str) -> PrivacyPlan:
    return make_plan(
        epsilon=epsilon, delta=1e-6, units=5000, expected_batch_size=500, steps=10,
        max_grad_norm=1.0, **more,
    )  # fmt: skip


def trained(path: Path, plan: PrivacyPlan, cap: float = 16, repeat: int = 0) -> Ledger:
    ledger = Ledger.register(path, epsilon=cap, delta=1e-5, corpus="posts")
    ledger.reserve("run", plan)
    if repeat:
        attempt = ledger.begin_attempt("run")
        for step in range(repeat):
            ledger.charge("run", attempt, step)
    attempt = ledger.begin_attempt("run")
    for step in range(10):
        ledger.charge("run", attempt, step)
    ledger.commit("run", 10, attempt)
    return ledger


def test_every_blank_is_filled(tmp_path: Path) -> None:
    plan = plan_of(2.0, unit="person", scope="deduplicated corpus")
    summary = trained(tmp_path / "l.jsonl", plan, repeat=4).summary("run")
    claim = statement(plan, what="the weights", summary=summary, not_covered=["the verdict"])
    found = PATTERN.fullmatch(claim.sentence)
    assert found is not None, claim.sentence
    assert found["unit"] == "person"
    assert found["what"] == "the weights"
    assert plan.epsilon_spent(10) <= float(found["epsilon"]) <= plan.epsilon_spent(10) + 1e-4
    assert float(found["delta"]) == 1e-6
    assert "Poisson" in found["sampler"]
    assert "probability 0.1" in found["sampler"]
    assert found["accountant"] == (
        f"PRV (opacus {version('opacus')}), checked with PLD "
        f"(dp-accounting {version('dp-accounting')})"
    )
    assert "AES-256-CTR" in found["noise"]
    assert found["scope"] == "deduplicated corpus"
    excluded = found["excluded"].split("; ")
    assert excluded == [*standard_exclusions(plan), "the verdict"]
    assert any("timing" in part for part in excluded)
    assert "{" not in claim.sentence
    assert "10 committed steps" in claim.note
    assert "charged for 14 steps of this run in 2 attempts" in claim.note
    assert str(claim) == f"{claim.sentence}\n{claim.note}"
    data = json.loads(json.dumps(claim.to_json(), allow_nan=False))
    assert data["committed_steps"] == 10
    assert data["charged_steps"] == 14
    assert data["epsilon"] == float(found["epsilon"])


def test_epsilon_is_rounded_up(tmp_path: Path) -> None:
    plan = plan_of(2.0)
    summary = trained(tmp_path / "l.jsonl", plan).summary("run")
    claim = statement(plan, what="it", summary={**summary, "epsilon": 1.20001})
    assert "e^1.2001," in claim.sentence


def test_several_runs_state_the_filter(tmp_path: Path) -> None:
    plan = plan_of(2.0)
    ledger = trained(tmp_path / "l.jsonl", plan)
    ledger.reserve("second", plan)
    claim = statement(plan, what="the weights", summary=ledger.summary("run"))
    assert "e^16.0000, plus 1e-05" in claim.sentence
    assert "accountant: Renyi filter of order" in claim.sentence
    assert "2 runs charged to the corpus" in claim.note


def test_without_privacy(tmp_path: Path) -> None:
    plan = plan_of(math.inf)
    summary = trained(tmp_path / "l.jsonl", plan, cap=math.inf).summary("run")
    claim = statement(plan, what="the weights", summary=summary)
    assert PATTERN.fullmatch(claim.sentence)
    assert "e^inf" in claim.sentence
    assert "noise source: none" in claim.sentence
    assert "nothing is promised" in claim.sentence
    assert claim.to_json()["epsilon"] == "inf"
    json.dumps(claim.to_json(), allow_nan=False)


def test_a_summary_of_another_plan_is_refused(tmp_path: Path) -> None:
    summary = trained(tmp_path / "l.jsonl", plan_of(2.0)).summary("run")
    with pytest.raises(UserError, match="same run"):
        statement(plan_of(1.0), what="the weights", summary=summary)


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (1e-6, 6, "1e-06"), (8.0004, 4, "8.001"), (8.0, 4, "8"), (1.23456712e-6, 6, "1.23457e-06"),
        (1.23456212e-6, 6, "1.23457e-06"), (0.1, 3, "0.1"), (0.30000000000000004, 3, "0.301"),
        (9.9999, 3, "10"), (0.0, 3, "0"), (math.inf, 3, "inf"), (123456.0, 4, "1.235e+05"),
    ],
)  # fmt: skip
def test_amounts_are_rounded_up(value, digits, shown):
    assert rounded_up(value, digits) == shown
    assert float(rounded_up(value, digits)) >= value
