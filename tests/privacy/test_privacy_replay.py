"""A ledger is counted again by whoever reads it: lines that hash and sign well prove nothing."""

import math
from pathlib import Path

import pytest
from small_ledger import PLAN, plan_of

from dpmlm.errors import IntegrityError
from dpmlm.privacy import Ledger
from dpmlm.privacy.admission import divergences
from dpmlm.privacy.balance import write_number
from dpmlm.privacy.journal import Journal, create

CAP = {"corpus": "c", "epsilon": 8.0, "delta": 1e-5, "order": 4.0, "time": "-"}
SPEND = {"label": "metric", "epsilon": 0.1, "delta": 0.0, "divergence": 0.02}
SELECT = {
    "label": "words", "epsilon": 1.0, "delta": 1e-7, "words_per_unit": 100, "unit": "person",
    "scope": "source corpus", "threshold_delta": 5e-8, "divergence": 0.086,
}  # fmt: skip


def forged(path: Path, *entries: tuple[str, dict], cap: dict | None = None) -> Ledger:
    """A ledger of these entries in a sound chain, whatever they say."""
    create(path, "register", CAP | (cap or {}), None)
    journal = Journal(path, lambda entry: None, None)
    with journal.exclusive():
        for kind, fields in entries:
            journal.append(kind, fields)
    return Ledger.open(path)


def reservation(run_id: str, plan, order: float = 4.0) -> tuple[str, dict]:
    whole, again = map(write_number, divergences(plan, order))
    fields = {"run_id": run_id, "plan": plan.to_json(), "divergence": whole, "again": again}
    return "reserve", fields


def charges(run_id: str, attempt: int, steps) -> list[tuple[str, dict]]:
    begun = ("attempt", {"run_id": run_id, "attempt": attempt, "from_step": 0})
    return [begun, *(("charge", {"run_id": run_id, "attempt": attempt, "step": s}) for s in steps)]


def test_the_forger_can_write_a_sound_ledger(path):
    """Else what follows would be found for another reason."""
    ledger = forged(path, reservation("run", PLAN), *charges("run", 1, range(20)))
    ledger.verify()
    assert ledger.charged_steps("run") == 20


def test_runs_beyond_the_cap_are_found(path):
    plan = plan_of(7.5)
    ledger = forged(path, *(reservation(f"run {number}", plan) for number in range(6)))
    with pytest.raises(IntegrityError, match=r"line 3.*never admitted"):
        ledger.verify()


def test_repeats_beyond_the_cap_are_found(path):
    again = [entry for attempt in range(1, 40) for entry in charges("run", attempt, range(20))]
    ledger = forged(path, reservation("run", PLAN), *again)
    with pytest.raises(IntegrityError, match=r"never admitted.*drawn again"):
        ledger.verify()


def test_other_neighbours_are_found(path):
    ledger = forged(
        path, reservation("one", plan_of(1.0)), reservation("two", plan_of(1.0, unit="person"))
    )
    with pytest.raises(IntegrityError, match=r"never admitted.*not bounded"):
        ledger.verify()


def test_a_run_without_privacy_under_a_cap_is_found(path):
    with pytest.raises(IntegrityError, match=r"never admitted.*promises nothing"):
        forged(path, reservation("run", plan_of(math.inf))).verify()


HOSTILE = {
    "a negative cap": ({"epsilon": -5.0}, []),
    "a cap that is no number": ({"epsilon": "nan"}, []),
    "a cap of text": ({"epsilon": "8"}, []),
    "a delta of one": ({"delta": 1.0}, []),
    "order 1": ({"order": 1}, []),
    "no order": ({"order": None}, []),
    "an order that takes for ever": ({"order": 1e300}, []),
    "an epsilon of text": ({}, [("spend", SPEND | {"epsilon": "x"})]),
    "an epsilon that is true": ({}, [("spend", SPEND | {"epsilon": True})]),
    "a delta of text": ({}, [("spend", SPEND | {"delta": "x"})]),
    "a delta below 0": ({}, [("spend", SPEND | {"delta": -1.0})]),
    "more delta than the column": ({}, [("spend", SPEND | {"delta": 0.5})]),
    "a divergence below 0": ({}, [("spend", SPEND | {"divergence": -3.0})]),
    "words of half a unit": ({}, [("select", SELECT | {"unit": "sequence"})]),
    "words of no number": ({}, [("select", SELECT | {"words_per_unit": "many"})]),
    "a selection without delta": ({}, [("select", SELECT | {"delta": 0})]),
    "a commit of what was not charged": (
        {},
        [reservation("run", PLAN), *charges("run", 1, range(3)),
         ("commit", {"run_id": "run", "attempt": 1, "steps": 99})],
    ),
    "steps beyond the plan": ({}, [reservation("run", PLAN), *charges("run", 1, range(25))]),
    "steps that are left out": ({}, [reservation("run", PLAN), *charges("run", 1, [0, 5])]),
    "half a step": ({}, [reservation("run", PLAN), *charges("run", 1, [0.5])]),
    "a step below 0": ({}, [reservation("run", PLAN), *charges("run", 1, [-7])]),
    "a run that is a list": ({}, [("charge", {"run_id": [], "attempt": 1, "step": 0})]),
    "half a plan that is forgone": (
        {},
        [reservation("run", PLAN), *charges("run", 1, range(3)),
         ("forgo", {"run_id": "run", "attempt": 1, "steps": 10})],
    ),
    "a step after the rest was forgone": (
        {},
        [reservation("run", PLAN), *charges("run", 1, range(3)),
         ("forgo", {"run_id": "run", "attempt": 1, "steps": 20}),
         ("charge", {"run_id": "run", "attempt": 1, "step": 3})],
    ),
    "an attempt that goes on from itself": (
        {},
        [reservation("run", PLAN),
         ("attempt", {"run_id": "run", "attempt": 1, "from_step": 0, "from_attempt": 1})],
    ),
    "attempts out of order": ({}, [reservation("run", PLAN), *charges("run", 7, [0])]),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_no_ledger_writes_is_one_message(path, case):
    cap, entries = HOSTILE[case]
    with pytest.raises(IntegrityError, match="line"):
        forged(path, *entries, cap=cap).verify()
