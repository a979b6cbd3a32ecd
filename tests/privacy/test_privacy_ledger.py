"""The ledger's rules: what is charged, what is admitted, and by whom at once."""

import math
from pathlib import Path

import pytest
from small_ledger import INF, PLAN, plan_of

from dpmlm.errors import UserError
from dpmlm.privacy import Ledger, PrivacyPlan, RenyiFilter, epsilon_of, headroom, statement
from dpmlm.privacy import filter as filter_module
from dpmlm.privacy.accountants import renyi_divergence


def test_a_run_from_reservation_to_commit(ledger: Ledger, path: Path) -> None:
    assert ledger.spent().epsilon == 0
    assert ledger.left().epsilon == 16
    ledger.reserve("run", PLAN)
    before = ledger.spent()
    assert before.epsilon == pytest.approx(PLAN.epsilon_spent(20), abs=0.02)
    assert before.rdp == pytest.approx(renyi_divergence(PLAN.composition(), ledger.order))
    attempt = ledger.begin_attempt("run")
    for step in range(20):
        ledger.charge("run", attempt, step)
    ledger.commit("run", 20, attempt)
    ledger.commit("run", 20, attempt)
    assert ledger.charged_steps("run") == ledger.committed_steps("run") == 20
    assert ledger.spent() == before
    kinds = [entry["kind"] for entry in ledger.entries]
    assert kinds == ["register", "reserve", "attempt", *["charge"] * 20, "commit"]
    summary = Ledger.open(path).summary("run")
    assert summary["epsilon"] == PLAN.epsilon_spent(20)
    assert summary["basis"] == "plan"
    assert summary["intact"] is True
    assert summary["delta"] == 1e-6
    assert ledger.cap == (16, 1e-5)
    assert ledger.corpus == "posts"
    assert ledger.run_ids == ["run"]


def test_a_reservation_is_made_once_and_fixed(ledger: Ledger) -> None:
    ledger.reserve("run", PLAN)
    ledger.reserve("run", PLAN)
    assert len(ledger.entries) == 2
    with pytest.raises(UserError, match="plan is fixed"):
        ledger.reserve("run", plan_of(1.0))
    assert len(ledger.entries) == 2


def test_order_of_calls(ledger: Ledger) -> None:
    with pytest.raises(UserError, match="no reservation"):
        ledger.begin_attempt("run")
    ledger.reserve("run", PLAN)
    with pytest.raises(UserError, match="latest"):
        ledger.charge("run", 1, 0)
    assert ledger.begin_attempt("run") == 1
    ledger.charge("run", 1, 0)
    before = len(ledger.entries)
    for step in (0, 2, -1, 0.5, 1.0, True, "1", 10**6):
        with pytest.raises(ValueError, match=r"in one attempt|whole number"):
            ledger.charge("run", 1, step)
        with pytest.raises((ValueError, UserError), match=r"older copy|whole number"):
            ledger.begin_attempt("run", step if step != 0 else -2)
    for steps in (-1, 0.5, True):
        with pytest.raises(ValueError, match="whole number"):
            ledger.keep("run", 1, steps)
        with pytest.raises(ValueError, match="whole number"):
            ledger.commit("run", steps, 1)
    assert len(ledger.entries) == before
    Ledger.open(ledger._journal.path).verify()
    with pytest.raises(UserError, match="1 different steps"):
        ledger.commit("run", 2, 1)
    assert ledger.begin_attempt("run") == 2
    with pytest.raises(UserError, match="took the run over"):
        ledger.charge("run", 1, 1)
    with pytest.raises(UserError, match="took the run over"):
        ledger.commit("run", 1, 1)


def test_steps_beyond_the_plan_are_refused(ledger: Ledger) -> None:
    ledger.reserve("run", PLAN)
    ledger.begin_attempt("run")
    for step in range(20):
        ledger.charge("run", 1, step)
    with pytest.raises(UserError, match="its plan has 20 steps"):
        ledger.charge("run", 1, 20)


def test_steps_drawn_again_are_charged_again(ledger: Ledger) -> None:
    ledger.reserve("run", PLAN)
    reserved = ledger.spent()
    for charged in (range(12), range(8, 20)):
        attempt = ledger.begin_attempt("run", charged[0])
        for step in charged:
            ledger.charge("run", attempt, step)
    ledger.commit("run", 20, 2)
    assert ledger.charged_steps("run") == 24
    assert ledger.committed_steps("run") == 20
    assert ledger.spent().rdp == pytest.approx(reserved.rdp * 24 / 20)
    summary = ledger.summary("run")
    assert summary["epsilon"] == max(
        PLAN.epsilon_spent(20), epsilon_of("pld", PLAN.composition(20), 1e-6)
    )
    assert summary["lineage"]["epsilon"] == pytest.approx(
        max(PLAN.epsilon_spent(24), epsilon_of("pld", PLAN.composition(24), 1e-6))
    )


@pytest.mark.parametrize("pld", [0.001, 1.7])
def test_no_accountant_says_more_than_is_claimed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, pld: float
) -> None:
    ledger.reserve("run", PLAN)
    attempt = ledger.begin_attempt("run")
    for step in range(10):
        ledger.charge("run", attempt, step)
    ledger.commit("run", 10, attempt)
    own = PLAN.epsilon_spent(10)
    assert 0.001 < own < 1.7
    counts = []

    def instead(plan: PrivacyPlan, steps: int) -> float:
        counts.append(steps)
        return pld

    monkeypatch.setattr(headroom, "pld_epsilon", instead)
    summary = ledger.summary("run")
    assert summary["epsilon"] == max(own, pld)
    assert summary["lineage"]["epsilon"] == ledger.spent().epsilon == PLAN.epsilon_spent(20)
    assert set(counts) == {10, 20}


def test_two_commits_count_every_charged_step(ledger: Ledger) -> None:
    ledger.reserve("run", PLAN)
    for attempt in (1, 2):
        ledger.begin_attempt("run")
        for step in range(10):
            ledger.charge("run", attempt, step)
        ledger.commit("run", 10, attempt)
    assert ledger.committed_steps("run") == 20


def test_a_lost_checkpoint_makes_every_billed_step_count(ledger: Ledger) -> None:
    """Ten steps were there to be seen, then drawn again from the start."""
    ledger.reserve("run", PLAN)
    attempt = ledger.begin_attempt("run")
    for step in range(10):
        ledger.charge("run", attempt, step)
    ledger.keep("run", attempt, 10)
    attempt = ledger.begin_attempt("run", from_step=0)
    for step in range(20):
        ledger.charge("run", attempt, step)
    ledger.commit("run", 20, attempt)
    summary = ledger.summary("run")
    assert (summary["claimed_steps"], summary["charged_steps"]) == (30, 30)
    assert summary["epsilon"] == pytest.approx(
        max(epsilon_of(name, PLAN.composition(30), 1e-6) for name in ("prv", "pld"))
    )
    assert "a checkpoint was lost" in statement(PLAN, what="it", summary=summary).note


def test_a_checkpoint_that_is_gone_on_from_makes_none_count_twice(ledger: Ledger) -> None:
    ledger.reserve("run", PLAN)
    attempt = ledger.begin_attempt("run")
    for step in range(13):
        ledger.charge("run", attempt, step)
        if step == 9:
            ledger.keep("run", attempt, 10)
            ledger.keep("run", attempt, 10)
    attempt = ledger.begin_attempt("run", from_step=10)
    for step in range(10, 20):
        ledger.charge("run", attempt, step)
    ledger.commit("run", 20, attempt)
    summary = ledger.summary("run")
    assert (summary["claimed_steps"], summary["charged_steps"]) == (20, 23)
    assert [entry["kind"] for entry in ledger.entries].count("keep") == 1


@pytest.mark.parametrize(("source", "claimed"), [(1, 25), (2, 20), (None, 20)])
def test_going_on_beside_what_a_later_attempt_left_makes_every_billed_step_count(
    ledger: Ledger, source: int | None, claimed: int
) -> None:
    """Attempt 1 sealed 12 steps where nobody saw them, attempt 2 drew some of these again."""
    ledger.reserve("run", PLAN)
    begun = {1: (0, 12, 7), 2: (7, 12, 11)}
    for attempt, (start, end, kept) in begun.items():
        assert ledger.begin_attempt("run", start, attempt - 1) == attempt
        for step in range(start, end):
            ledger.charge("run", attempt, step)
            if step + 1 == kept:
                ledger.keep("run", attempt, kept)
    ledger.begin_attempt("run", 12, source)
    for step in range(12, 20):
        ledger.charge("run", 3, step)
    ledger.commit("run", 20, 3)
    summary = ledger.summary("run")
    assert (summary["claimed_steps"], summary["charged_steps"]) == (claimed, 25)
    ledger.verify()


@pytest.mark.parametrize(("begun", "source"), [(15, 2), (13, 1), (14, 3)])
def test_what_follows_is_told_by_where_each_attempt_began(
    ledger: Ledger, begun: int, source: int
) -> None:
    """Attempts 2 and 3 went on from two checkpoints of attempt 1, and nobody saw what 2 drew."""
    ledger.reserve("run", PLAN)
    for attempt, (start, end) in enumerate(((0, 13), (7, 16), (12, 15)), start=1):
        ledger.begin_attempt("run", start, min(1, attempt - 1))
        for step in range(start, end):
            ledger.charge("run", attempt, step)
    ledger.begin_attempt("run", begun, source)
    for step in range(begun, 20):
        ledger.charge("run", 4, step)
    ledger.commit("run", 20, 4)
    summary = ledger.summary("run")
    repeats = summary["charged_steps"] - 20
    assert summary["claimed_steps"] == (20 + repeats if source == 2 else 20)
    ledger.verify()


def test_an_attempt_goes_on_from_an_earlier_one(ledger: Ledger) -> None:
    ledger.reserve("run", PLAN)
    for source in (-1, True, 0.0, "0"):
        with pytest.raises(ValueError, match="whole number"):
            ledger.begin_attempt("run", 0, source)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="0 steps of 0 attempts: it is an older copy"):
        ledger.begin_attempt("run", 0, 1)
    assert ledger.begin_attempt("run", 0, 0) == 1


@pytest.mark.parametrize(("steps", "attempt"), [(4, 1), (3, 2)])
def test_a_ledger_older_than_the_checkpoint_is_refused(
    ledger: Ledger, steps: int, attempt: int
) -> None:
    """Restored from a backup, it would count too few steps."""
    ledger.reserve("run", PLAN)
    ledger.begin_attempt("run", 0, 0)
    for step in range(3):
        ledger.charge("run", 1, step)
    before = len(ledger.entries)
    for call in (ledger.begin_attempt, ledger.take_over):
        given = (steps, attempt) if call == ledger.begin_attempt else (attempt, steps)
        with pytest.raises(UserError, match="older copy") as caught:
            call("run", *given)
        assert "restore the ledger" in caught.value.next_step
    assert len(ledger.entries) == before


def test_what_is_forgone_is_charged_once(ledger: Ledger) -> None:
    """Steps of an earlier attempt are not billed again, however small the cap."""
    ledger.reserve("run", PLAN)
    for attempt, (start, end) in enumerate(((0, 15), (5, 8)), start=1):
        ledger.begin_attempt("run", start, attempt - 1)
        for step in range(start, end):
            ledger.charge("run", attempt, step)
        ledger.keep("run", attempt, (5, 8)[attempt - 1])
    ledger.forgo("run", 2)
    ledger.forgo("run", 2)
    assert [entry["kind"] for entry in ledger.entries].count("forgo") == 1
    with pytest.raises(UserError, match="its plan has 20 steps"):
        ledger.charge("run", 2, 20)
    with pytest.raises(ValueError, match="in one attempt"):
        ledger.charge("run", 2, 8)
    ledger.commit("run", 6, 2)
    summary = ledger.summary("run")
    assert (summary["claimed_steps"], summary["charged_steps"]) == (20, 23)
    assert summary["epsilon"] == PLAN.epsilon_spent(20)
    ledger.verify()
    with pytest.raises(UserError, match="latest"):
        ledger.forgo("run", 1)


def test_what_an_attempt_went_on_from_or_committed_was_there(ledger: Ledger) -> None:
    """A checkpoint of which the ledger was not told before the crash, and a finished training."""
    ledger.reserve("run", PLAN)
    for begun, end in ((0, 10), (10, 10), (0, 20), (0, 20)):
        attempt = ledger.begin_attempt("run", begun)
        for step in range(begun, end):
            ledger.charge("run", attempt, step)
        if end == 20:
            ledger.commit("run", 20, attempt)
            summary = ledger.summary("run")
            assert summary["claimed_steps"] == summary["charged_steps"]
    assert summary["charged_steps"] == 50


def test_a_commit_of_less_than_was_charged_claims_all_of_it(ledger: Ledger) -> None:
    ledger.reserve("run", PLAN)
    attempt = ledger.begin_attempt("run")
    for step in range(20):
        ledger.charge("run", attempt, step)
    ledger.commit("run", 1, attempt)
    assert ledger.summary("run")["claimed_steps"] == 20
    with pytest.raises(UserError, match="different steps were charged"):
        ledger.keep("run", attempt, 21)


def test_repeats_of_a_large_plateau_are_billed_at_once(path: Path) -> None:
    """Twenty large steps, then many small ones that nobody takes: six attempts at the large."""
    plan = plan_of(2.0, steps=60, expected_batch_size=1000, batch_schedule={20: 10})
    ledger = Ledger.register(path, epsilon=60, delta=1e-5, corpus="posts")
    ledger.reserve("run", plan)
    for _ in range(6):
        attempt = ledger.begin_attempt("run")
        for step in range(20):
            ledger.charge("run", attempt, step)
    large = renyi_divergence(plan.largest_step(), ledger.order)
    whole = renyi_divergence(plan.composition(), ledger.order)
    assert ledger.spent().rdp >= 6 * 20 * large
    assert ledger.spent().rdp == pytest.approx(whole + 5 * 20 * large)


def test_repeats_stop_at_the_cap_of_the_filter(path: Path) -> None:
    ledger = Ledger.register(path, epsilon=4.0, delta=1e-5, corpus="posts")
    ledger.reserve("first", PLAN)
    ledger.reserve("second", plan_of(0.5))
    step_cost = renyi_divergence(PLAN.composition(1), ledger.order)
    allowed = 1 + int(ledger.left().rdp / step_cost)
    assert 20 < allowed < 200
    for _ in range(allowed):
        ledger.charge("first", ledger.begin_attempt("first"), 0)
    attempt = ledger.begin_attempt("first")
    with pytest.raises(UserError, match="charged again, and no budget is left"):
        ledger.charge("first", attempt, 0)
    assert ledger.charged_steps("first") == allowed


def test_one_plan_alone_may_use_the_whole_cap_and_closes_it(path: Path) -> None:
    ledger = Ledger.register(path, epsilon=2.0, delta=1e-6, corpus="posts")
    assert renyi_divergence(PLAN.composition(), ledger.order) > ledger.left().rdp
    ledger.reserve("run", PLAN)
    with pytest.raises(UserError, match="nothing fits any more"):
        ledger.reserve("more", plan_of(0.1))
    with pytest.raises(UserError, match="are left"):
        ledger.spend("vocabulary", epsilon=0.01)
    assert ledger.left().rdp == 0
    ledger.begin_attempt("run")
    for step in range(20):
        ledger.charge("run", 1, step)
    ledger.begin_attempt("run")
    step = 0
    while epsilon_of("pld", PLAN.composition(21 + step), 1e-6) <= 2.0:
        ledger.charge("run", 2, step)
        step += 1
    with pytest.raises(UserError, match="no budget is left"):
        ledger.charge("run", 2, step)
    billed = ledger.charged_steps("run")
    assert epsilon_of("pld", PLAN.composition(billed), 1e-6) <= 2.0
    assert epsilon_of("pld", PLAN.composition(billed + 1), 1e-6) > 2.0


def test_a_larger_budget_than_the_cap_is_refused(path: Path) -> None:
    ledger = Ledger.register(path, epsilon=1.0, delta=1e-6, corpus="posts")
    with pytest.raises(UserError, match=r"set privacy\.epsilon to 1 or less"):
        ledger.reserve("run", PLAN)
    with pytest.raises(UserError, match="a plan of epsilon 2"):
        ledger.refuse_unaffordable(PLAN)
    assert len(ledger.entries) == 1


def test_the_advice_of_a_refusal_fits(path: Path) -> None:
    ledger = Ledger.register(path, epsilon=4.0, delta=1e-5, corpus="posts")
    ledger.reserve("first", plan_of(3.0))
    with pytest.raises(UserError, match=r"is left of the cap 4 .*; lower privacy\.epsilon") as no:
        ledger.reserve("second", plan_of(3.0))
    fits = float(no.value.next_step.split(" to ")[1].split(" ")[0])
    assert fits > 0.5
    ledger.reserve("second", plan_of(fits))


def test_delta_above_the_ledgers_is_refused(path: Path) -> None:
    ledger = Ledger.register(path, epsilon=16, delta=1e-7, corpus="posts")
    with pytest.raises(UserError, match=r"lower privacy\.delta"):
        ledger.reserve("run", PLAN)


def test_several_runs_claim_the_cap(ledger: Ledger) -> None:
    ledger.reserve("a", PLAN)
    ledger.reserve("b", plan_of(3.0))
    summary = ledger.summary("a")
    assert (summary["epsilon"], summary["delta"], summary["basis"]) == (16, 1e-5, "filter")
    assert summary["accountant"].startswith("Renyi filter of order")
    total = ledger.spent()
    assert total.rdp == pytest.approx(
        sum(renyi_divergence(p.composition(), ledger.order) for p in (PLAN, plan_of(3.0)))
    )
    assert total.epsilon + ledger.left().epsilon == pytest.approx(16)


def test_a_run_without_privacy_needs_a_ledger_without_a_cap(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="register this one with epsilon inf"):
        ledger.reserve("control", INF)
    free = Ledger.register(tmp_path / "free.jsonl", epsilon=math.inf, delta=1e-5, corpus="p")
    free.reserve("dp", PLAN)
    assert free.spent().epsilon < 2.1
    assert free.summary("dp")["epsilon"] == PLAN.epsilon_spent(20)
    free.reserve("control", INF)
    assert free.spent().epsilon == math.inf
    assert free.left().epsilon == math.inf
    for run in ("dp", "control"):
        assert free.summary(run)["epsilon"] == "inf"
    again = Ledger.open(tmp_path / "free.jsonl")
    attempt = again.begin_attempt("control")
    for step in range(20):
        again.charge("control", attempt, step)
    again.begin_attempt("control")
    again.charge("control", 2, 0)
    again.verify()


def test_several_runs_without_a_cap_claim_nothing(tmp_path: Path) -> None:
    free = Ledger.register(tmp_path / "free.jsonl", epsilon=math.inf, delta=1e-5, corpus="p")
    free.reserve("a", PLAN)
    free.reserve("b", PLAN)
    assert free.summary("a")["epsilon"] == "inf"
    assert math.isfinite(free.spent().epsilon)


def test_other_mechanisms(ledger: Ledger) -> None:
    ledger.spend("vocabulary", epsilon=0.5, delta=5e-7)
    assert ledger.spent().rdp == pytest.approx(min(0.5, ledger.order * 0.125))
    assert ledger.left().delta == pytest.approx(5e-7)
    with pytest.raises(UserError, match="are left"):
        ledger.spend("vocabulary", epsilon=0.5, delta=6e-7)
    with pytest.raises(UserError, match="are left"):
        ledger.spend("vocabulary", epsilon=100.0)
    for epsilon in (0.0, math.inf, -1.0):
        with pytest.raises(UserError, match="finite"):
            ledger.spend("x", epsilon=epsilon)
    ledger.reserve("run", PLAN)
    assert ledger.summary("run")["basis"] == "filter"


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0, 1e-5), (-1, 1e-5), (1, 0), (1, 1), (0.001, 1e-9)]
)
def test_caps_that_make_no_sense(path: Path, epsilon: float, delta: float) -> None:
    with pytest.raises(UserError, match="cap"):
        Ledger.register(path, epsilon=epsilon, delta=delta, corpus="posts")
    assert not path.exists()


@pytest.mark.parametrize(("epsilon", "delta"), [(16.0, 1e-5), (1.0, 1e-6), (0.2, 1e-8), (50, 1e-5)])
def test_the_filter_converts_to_its_cap(epsilon: float, delta: float) -> None:
    cap = RenyiFilter.of(epsilon, delta)
    a, part = cap.order, delta * 0.9
    naive = cap.rdp + math.log((a - 1) / a) - (math.log(part) + math.log(a)) / (a - 1)
    assert naive == pytest.approx(epsilon)
    assert cap.rdp > 0
    assert part + cap.column == pytest.approx(delta)
    for order in filter_module.ORDERS:
        assert RenyiFilter(epsilon, delta, order).rdp / order <= cap.rdp / cap.order
