"""A plan that continues a release: what its ledger charges, and what may be claimed of the sum."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
from small_ledger import plan_of

from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy import Ledger, PrivacyPlan, statement
from dpmlm.privacy.admission import divergences
from dpmlm.privacy.ancestor import Ancestor, ancestor_of
from dpmlm.privacy.balance import write_number
from dpmlm.privacy.headroom import epsilon_after
from dpmlm.privacy.journal import Journal
from dpmlm.privacy.summary import claim_of

FIRST = Ancestor(
    "sha256:release", "sha256:model", "first-1", "sha256:plan", "letters", 1, 3.25, 2e-7
)
CAP = {"epsilon": 16.0, "delta": 1e-5}


def continuing(ancestor: Ancestor | None, epsilon: float = 2.0, **more) -> PrivacyPlan:
    bindings = {} if ancestor is None else ancestor.bindings()
    return plan_of(epsilon, bindings=bindings, **more)


def trained(ledger: Ledger, run_id: str, plan: PrivacyPlan) -> dict:
    """The summary of a run that took all of its steps."""
    ledger.reserve(run_id, plan)
    attempt = ledger.begin_attempt(run_id)
    for step in range(plan.steps):
        ledger.charge(run_id, attempt, step)
    ledger.commit(run_id, plan.steps, attempt)
    return ledger.summary(run_id)


def released(summary: dict, plan: PrivacyPlan, trainings: int = 1) -> Ancestor:
    """What whoever continues this run binds of it."""
    run = summary["run_id"]
    named = f"sha256:release of {run}", f"sha256:model of {run}", run, plan.digest
    return Ancestor(*named, summary["corpus"], trainings, summary["epsilon"], summary["delta"])


@pytest.fixture
def other(tmp_path: Path) -> Ledger:
    """A ledger of another corpus."""
    return Ledger.register(tmp_path / "other.jsonl", corpus="letters", **CAP)


def kinds(ledger: Ledger) -> list[str]:
    return [key for key, _ in itertools.groupby(entry["kind"] for entry in ledger.entries)]


def test_what_is_bound_comes_back() -> None:
    assert ancestor_of(continuing(FIRST)) == FIRST
    assert ancestor_of(continuing(None)) is None
    assert PrivacyPlan.from_json(continuing(FIRST).to_json()) == continuing(FIRST)


def test_a_chain_of_three_on_three_corpora_claims_the_sum(tmp_path: Path) -> None:
    spent: list[float] = []
    deltas: list[float] = []
    former = None
    for number, epsilon in enumerate((1.0, 2.0, 3.0)):
        ledger = Ledger.register(tmp_path / f"{number}.jsonl", corpus=f"corpus {number}", **CAP)
        plan = continuing(former, epsilon)
        summary = trained(ledger, f"run-{number}", plan)
        spent.append(epsilon_after(plan, plan.steps))  # of this training alone
        deltas.append(plan.delta)
        assert summary["epsilon"] == pytest.approx(sum(spent), rel=1e-12)
        assert summary["delta"] == pytest.approx(sum(deltas), rel=1e-12)
        assert ledger.spent().epsilon == pytest.approx(sum(spent), rel=1e-12)
        assert claim_of(plan, summary) == (summary["epsilon"], summary["delta"])
        former = released(summary, plan, number + 1)
    assert summary["basis"] == "plan"
    assert 5.9 < summary["epsilon"] < 6.01
    assert ancestor_of(plan).trainings == 2


def test_the_charge_is_an_entry_of_its_own_before_the_reservation(ledger: Ledger) -> None:
    ledger.reserve("second", continuing(FIRST))
    assert kinds(ledger) == ["register", "import", "reserve"]
    charge = ledger.entries[1]
    assert charge["divergence"] == min(3.25, ledger.order * 3.25**2 / 2)
    assert charge["here"] is False
    assert ledger.left().delta == pytest.approx(1e-6 - 2e-7)
    ledger.verify()


def test_several_runs_that_continue_one_release_charge_it_once(ledger: Ledger) -> None:
    ledger.reserve("second", continuing(FIRST))
    ledger.reserve("second", continuing(FIRST))
    ledger.reserve("third", continuing(FIRST, 1.0))
    assert kinds(ledger) == ["register", "import", "reserve"]
    plans = [continuing(FIRST), continuing(FIRST, 1.0)]
    naive = min(3.25, ledger.order * 3.25**2 / 2)
    naive += sum(divergences(plan, ledger.order)[0] for plan in plans)
    assert ledger.spent().rdp == pytest.approx(naive)
    summary = ledger.summary("third")
    assert (summary["basis"], summary["epsilon"], summary["delta"]) == ("filter", 16, 1e-5)
    ledger.verify()


def test_a_release_told_with_more_is_charged_the_more_and_never_less(ledger: Ledger) -> None:
    ledger.reserve("second", continuing(FIRST))
    ledger.reserve("third", continuing(replace(FIRST, epsilon=4.0), 1.0))
    ledger.reserve("fourth", continuing(replace(FIRST, epsilon=1.0, delta=3e-7), 1.0))
    charges = [entry for entry in ledger.entries if entry["kind"] == "import"]
    assert [(one["epsilon"], one["delta"]) for one in charges] == [
        (3.25, 2e-7), (4.0, 2e-7), (4.0, 3e-7)
    ]  # fmt: skip
    assert len(ledger.imports) == 1
    ledger.verify()


def test_a_release_of_the_same_ledger_costs_nothing_more_and_the_cap_is_claimed(ledger) -> None:
    first = continuing(None, 2.0)
    former = released(trained(ledger, "first", first), first)
    before = ledger.spent().rdp
    second = continuing(former, 2.0)
    summary = trained(ledger, "second", second)
    assert ledger.imports[0]["here"] is True
    assert ledger.spent().rdp == pytest.approx(before + divergences(second, ledger.order)[0])
    assert (summary["epsilon"], summary["delta"]) == (16, 1e-5)
    assert claim_of(second, summary) == (16, 1e-5)
    assert summary["epsilon"] >= former.epsilon + epsilon_after(second, 20)
    assert "charged to the same ledger before" in statement(
        second, what="the model", summary=summary
    ).sentence  # fmt: skip
    ledger.verify()


@pytest.mark.parametrize("same", ["run_id", "plan"])
def test_a_release_that_only_looks_like_a_run_of_the_ledger_is_charged(ledger, same) -> None:
    first = continuing(None, 2.0)
    former = released(trained(ledger, "first", first), first)
    stranger = {"run_id": "another", "plan": "sha256:another"} | {same: getattr(former, same)}
    ledger.reserve("second", continuing(replace(former, **stranger), 2.0))
    assert ledger.imports[0]["here"] is False
    ledger.verify()


def test_the_cap_holds_the_sum_and_the_advice_is_taken(tmp_path: Path) -> None:
    ledger = Ledger.register(tmp_path / "tight.jsonl", epsilon=5.0, delta=1e-5, corpus="posts")
    ledger.refuse_unaffordable(continuing(None, 2.0))
    with pytest.raises(UserError, match=r"add up.*cap.*epsilon 5") as refused:
        ledger.reserve("second", continuing(FIRST, 2.0))
    assert kinds(ledger) == ["register"]
    advised = float(refused.value.next_step.split()[3])
    assert advised == 1.75
    summary = trained(ledger, "second", continuing(FIRST, advised))
    assert summary["epsilon"] <= 5.0
    with pytest.raises(UserError, match="left of the cap"):
        ledger.reserve("third", continuing(None, 1.0))


def test_deltas_add_up_under_the_cap_and_below_one_over_the_units(tmp_path: Path) -> None:
    ledger = Ledger.register(tmp_path / "tight.jsonl", epsilon=50.0, delta=1.1e-6, corpus="posts")
    with pytest.raises(UserError, match="delta 2e-07"):
        ledger.reserve("second", continuing(FIRST))
    ledger.reserve("second", continuing(replace(FIRST, delta=5e-8)))
    assert ledger.summary("second")["delta"] == pytest.approx(1.05e-6)
    with pytest.raises(UserError, match="deltas add up"):
        continuing(replace(FIRST, delta=1.995e-4))
    continuing(replace(FIRST, delta=1.9e-4))


def test_a_release_alone_above_the_cap_is_refused(ledger: Ledger) -> None:
    with pytest.raises(UserError, match="continue a release of less"):
        ledger.reserve("second", continuing(replace(FIRST, epsilon=17.0)))
    assert kinds(ledger) == ["register"]


def test_another_unit_is_refused(ledger: Ledger) -> None:
    ledger.reserve("second", continuing(FIRST))
    with pytest.raises(UserError, match="not bounded for one person"):
        ledger.reserve("third", continuing(None, 1.0, unit="person"))


def test_grids_count_the_release_once(ledger: Ledger) -> None:
    plans = [continuing(FIRST, 0.5)] * 3
    count, after = ledger.affordable(plans)
    assert count == 3
    for number, plan in enumerate(plans):
        ledger.reserve(f"run-{number}", plan)
    assert ledger.spent().rdp == pytest.approx(after.rdp)
    alone, _ = ledger.affordable([continuing(replace(FIRST, model="sha256:x", epsilon=15.0), 0.5)])
    assert alone == 0


def test_a_kill_between_charge_and_reservation_charges_once(ledger, path, monkeypatch) -> None:
    written = Ledger._write

    def killed(self, kind, **fields):
        if kind == "reserve":
            raise KeyboardInterrupt
        written(self, kind, **fields)

    monkeypatch.setattr(Ledger, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        ledger.reserve("second", continuing(FIRST))
    monkeypatch.undo()
    again = Ledger.open(path)
    assert again.spent().rdp > 0
    again.reserve("second", continuing(FIRST))
    assert kinds(again) == ["register", "import", "reserve"]
    again.verify()


def test_the_statement_says_what_it_adds_up(ledger: Ledger) -> None:
    plan = continuing(FIRST)
    told = statement(plan, what="the model", summary=trained(ledger, "second", plan))
    total = math.ceil((epsilon_after(plan, 20) + 3.25) * 1e4) / 1e4
    assert f"a factor e^{total:.4f}, plus 1.2e-06. Both hold, added up, epsilon 3.2500 and delta " \
        "2e-07 of the release that the training continued (sha256:release, 1 training)" \
        in told.sentence  # fmt: skip
    assert told.fields["continues"] == FIRST.to_json()
    assert told.fields["epsilon"] == total
    plain = plan_of()
    assert "continued" not in str(statement(plain, what="x", summary=_alone(plain)))


def _alone(plan: PrivacyPlan) -> dict:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.register(Path(folder) / "l.jsonl", corpus="posts", **CAP)
        return trained(ledger, "run", plan)


def _edited(summary: dict, **changes) -> dict:
    imports = [{**one, **changes} for one in summary["lineage"]["imports"]]
    return {**summary, "lineage": {**summary["lineage"], "imports": imports}}


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": 3.0}, {"delta": 1e-7}, {"model": "sha256:other"}, {"here": True},
        {"epsilon": -3.0}, {"epsilon": "inf"}, {"trainings": 0}, {"delta": True},
    ],
)  # fmt: skip
def test_a_summary_that_pays_for_less_claims_nothing(ledger: Ledger, changes) -> None:
    plan = continuing(FIRST)
    summary = trained(ledger, "second", plan)
    assert claim_of(plan, _edited(summary)) == (summary["epsilon"], summary["delta"])
    with pytest.raises((ValueError, KeyError, TypeError)):
        claim_of(plan, _edited(summary, **changes))


def test_a_summary_without_the_charge_claims_nothing(ledger: Ledger) -> None:
    plan = continuing(FIRST)
    summary = trained(ledger, "second", plan)
    for wrong in ([], None, {}, summary["lineage"]["imports"] * 2):
        with pytest.raises((ValueError, TypeError)):
            claim_of(plan, {**summary, "lineage": {**summary["lineage"], "imports": wrong}})


@pytest.mark.parametrize(
    ("bindings", "rule"),
    [
        ({"ancestor_epsilon": 1.0}, "whole of an ancestor"),
        ({**FIRST.bindings(), "ancestor_more": 1}, "whole of an ancestor"),
        ({**FIRST.bindings(), "ancestor_epsilon": "inf"}, "promises numbers"),
        ({**FIRST.bindings(), "ancestor_epsilon": 0.0}, "promises something"),
        ({**FIRST.bindings(), "ancestor_trainings": 0}, "trained at least once"),
        ({**FIRST.bindings(), "ancestor_release": "a\nb"}, "printable"),
        ({**FIRST.bindings(), "initial_model": "sha256:other"}, "release that is continued holds"),
    ],
)
def test_a_plan_binds_the_whole_of_what_it_starts_from(bindings, rule) -> None:
    with pytest.raises(UserError, match=rule):
        plan_of(bindings=bindings)


def forged(path: Path, *entries: tuple[str, dict]) -> None:
    journal = Journal(path, lambda entry: None, None)
    with journal.exclusive():
        for kind, fields in entries:
            journal.append(kind, fields)


def _charge(ledger: Ledger, **changes) -> tuple[str, dict]:
    cost = min(3.25, ledger.order * 3.25**2 / 2)
    own = {"unit": "document", "scope": "source corpus", "here": False, "divergence": cost}
    return "import", {**FIRST.to_json(), **own, **changes}


def _reservation(ledger: Ledger, plan: PrivacyPlan) -> tuple[str, dict]:
    whole, again = map(write_number, divergences(plan, ledger.order))
    fields = {"run_id": "r", "plan": plan.to_json(), "divergence": whole, "again": again}
    return "reserve", fields


def test_the_forger_can_write_a_sound_charge(ledger: Ledger, path: Path) -> None:
    """Else what follows would be found for another reason."""
    forged(path, _charge(ledger), _reservation(ledger, continuing(FIRST)))
    Ledger.open(path).verify()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"divergence": 0.1}, "not those of its release"),
        ({"here": True, "divergence": 0.0}, "no ledger writes this"),
        ({"here": "no"}, "no ledger writes this|makes no sense"),
        ({"epsilon": 17.0, "divergence": 17.0}, "never admitted"),
        ({"unit": "nobody"}, "makes no sense"),
        ({"unit": "person"}, "never admitted|makes no sense"),
        ({"divergence": "inf"}, "makes no sense"),
    ],
)
def test_a_forged_charge_is_found(ledger: Ledger, path: Path, changes, why) -> None:
    forged(path, _charge(ledger, **changes), _reservation(ledger, continuing(FIRST)))
    with pytest.raises(IntegrityError, match=why):
        Ledger.open(path).verify()


def test_a_run_that_continues_what_nobody_charged_is_found(ledger: Ledger, path: Path) -> None:
    forged(path, _reservation(ledger, continuing(FIRST)))
    with pytest.raises(IntegrityError, match="charged before the run"):
        Ledger.open(path).verify()


def test_a_charge_that_was_lowered_is_found(ledger: Ledger, path: Path) -> None:
    lower = _charge(ledger, epsilon=1.0, divergence=min(1.0, ledger.order / 2))
    forged(path, _charge(ledger), lower)
    with pytest.raises(IntegrityError, match="never lowered"):
        Ledger.open(path).verify()
