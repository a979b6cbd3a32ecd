"""What `dpmlm ledger show` says of a corpus nobody spent on, and of several runs."""

import json
import re

import pytest

from dpmlm.pipeline.accounts import Account
from dpmlm.privacy import Ledger, make_plan


def a_plan(epsilon, **changes):
    settings = {"delta": 1e-5, "units": 5000, "expected_batch_size": 50, "steps": 20}
    settings |= {"max_grad_norm": 1.0, "accountant": "pld"}
    return make_plan(epsilon=epsilon, **(settings | changes))


@pytest.fixture
def ledger(tmp_path):
    return Ledger.register(tmp_path / "ledger.jsonl", epsilon=16, delta=1e-5, corpus="notes")


def lines_of(ledger, word):
    text = Account.of(ledger._journal.path).text()
    return [line for line in text.splitlines() if line.startswith(word)]


def test_what_is_left_of_delta_is_called_what_it_is(ledger):
    ledger.refuse_unaffordable(a_plan(3))  # a plan of the whole delta is affordable
    (left,) = lines_of(ledger, "left")
    assert "epsilon 16" in left
    assert "delta" not in re.sub(r"delta 1e-06 for selection by a threshold", "", left)


def test_each_run_shows_its_own_plan_beside_what_may_be_claimed(ledger):
    ledger.reserve("first", a_plan(3))
    (alone,) = lines_of(ledger, "run")
    assert "plan epsilon 3, delta 1e-05" in alone
    assert "claim epsilon 2.9" in alone or "claim epsilon 3" in alone
    ledger.reserve("second", a_plan(2, delta=1e-6))
    first, second = lines_of(ledger, "run")
    for line, plan in ((first, "epsilon 3, delta 1e-05"), (second, "epsilon 2, delta 1e-06")):
        assert f"plan {plan}" in line
        assert "claim epsilon 16, delta 1e-05, of all runs together" in line


def test_the_json_holds_both(ledger):
    ledger.reserve("first", a_plan(3))
    ledger.reserve("open", a_plan(2))
    runs = json.loads(json.dumps(Account.of(ledger._journal.path).to_json()))["runs"]
    assert [run["plan"] for run in runs] == [
        {"epsilon": 3, "delta": 1e-5}, {"epsilon": 2, "delta": 1e-5},
    ]  # fmt: skip
    assert {run["epsilon"] for run in runs} == {16}
    assert {run["basis"] for run in runs} == {"filter"}
