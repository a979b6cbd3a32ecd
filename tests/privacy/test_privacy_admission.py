"""What the cap of a corpus admits beside what is charged to it, and what a refusal says."""

import math
import re

import pytest

from dpmlm.errors import UserError
from dpmlm.privacy import Ledger, PartitionSelection, make_plan

WORDS = PartitionSelection(1.0, 1e-7, 100)


def a_plan(unit, epsilon=2.0, accountant="pld", **more):
    return make_plan(
        epsilon=epsilon, delta=1e-6, units=5000, unit=unit, expected_batch_size=50, steps=20,
        max_grad_norm=1.0, accountant=accountant, **more,
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    return Ledger.register(tmp_path / "ledger", epsilon=30, delta=1e-5, corpus="c")


@pytest.mark.parametrize(
    ("first", "second"),
    [("sequence", "person"), ("document", "person"), ("person", "document"),
     ("person", "sequence")],
)  # fmt: skip
def test_a_second_run_has_the_unit_of_the_first(ledger, first, second):
    ledger.reserve("first", a_plan(first))
    with pytest.raises(UserError, match=f"plan of unit {second}.*a charge by {first}"):
        ledger.reserve("second", a_plan(second))
    ledger.reserve("third", a_plan(first))
    assert ledger.run_ids == ["first", "third"]


@pytest.mark.parametrize("scopes", [("source", "deduplicated"), ("deduplicated", "source")])
def test_a_second_run_is_about_the_corpus_of_the_first(ledger, scopes):
    first, second = (f"{scope} corpus" for scope in scopes)
    ledger.reserve("first", a_plan("person", scope=first))
    with pytest.raises(UserError, match=f"person, {second}: .* a charge by person, {first}"):
        ledger.reserve("second", a_plan("person", scope=second))
    ledger.reserve("third", a_plan("person", scope=first))


def test_words_are_bounded_for_the_unit_they_were_counted_by_alone(ledger):
    ledger.spend_selection("vocabulary", WORDS, unit="document", scope="source corpus")
    for other in ("sequence", "person"):
        with pytest.raises(UserError, match="a charge by document, source corpus"):
            ledger.reserve("run", a_plan(other))
    with pytest.raises(UserError, match="a charge by document, source corpus"):
        ledger.reserve("run", a_plan("document", scope="deduplicated corpus"))
    ledger.reserve("run", a_plan("document"))


def test_no_words_after_a_run_on_rows(ledger):
    ledger.reserve("run", a_plan("sequence"))
    with pytest.raises(UserError, match="a charge by sequence"):
        ledger.spend_selection("vocabulary", WORDS, unit="document", scope="source corpus")


def test_runs_that_promise_nothing_have_no_unit_to_keep(tmp_path):
    ledger = Ledger.register(tmp_path / "open", epsilon=math.inf, delta=1e-5, corpus="c")
    ledger.reserve("free", a_plan("document", math.inf))
    ledger.reserve("run", a_plan("person"))
    assert ledger.run_ids == ["free", "run"]


def test_a_plan_of_cut_samples_stands_alone_and_is_told_so(ledger):
    ledger.reserve("first", a_plan("person"))
    with pytest.raises(UserError, match=r"of 60 units: .*no Renyi bound"):
        ledger.reserve("second", a_plan("person", max_batch_size=60))


def test_nothing_is_reserved_beside_a_plan_of_cut_samples(ledger):
    ledger.reserve("first", a_plan("person", max_batch_size=60))
    with pytest.raises(UserError, match="nothing fits any more"):
        ledger.reserve("second", a_plan("person"))


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, marks=pytest.mark.full),
        {"accountant": "rdp", "noise": "discrete_gaussian"},
        pytest.param({"bands": 4}, marks=pytest.mark.full),
    ],
)
def test_what_a_refusal_advises_is_accepted(ledger, more):
    ledger.reserve("first", a_plan("person", 8.0))
    with pytest.raises(UserError, match="lower privacy") as caught:
        ledger.reserve("second", a_plan("person", 60.0, **more))
    advised = float(re.search(r"to ([\d.]+) at these", caught.value.next_step)[1])
    ledger.reserve("second", a_plan("person", advised, **more))
