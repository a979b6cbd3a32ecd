"""Plans with a batch schedule and with cut samples: accounting, sampling, the ledger."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from dpmlm.errors import UserError
from dpmlm.privacy import (
    Ledger,
    PoissonSampler,
    PrivacyPlan,
    SampledGaussian,
    SecretStream,
    epsilon_of,
    make_plan,
    statement,
)
from dpmlm.privacy.accountants import AccountantFailure, renyi_divergence

DELTA = 1e-6
PLATEAUS = (SampledGaussian(1.1, 0.01, 40), SampledGaussian(1.1, 0.04, 60))


def a_plan(**changes):
    settings = {"epsilon": 4.0, "delta": DELTA, "units": 5000, "expected_batch_size": 50.0}
    settings |= {"steps": 100, "max_grad_norm": 1.0, "accountant": "pld"}
    return make_plan(**(settings | changes))


def dp_accounting_epsilon(accountant, events) -> float:
    """The other library's own composition of events."""
    for event, count in events:
        accountant.compose(event, count)
    return accountant.get_epsilon(DELTA)


def events(composition):
    return [
        (
            dp_event.PoissonSampledDpEvent(
                part.sample_rate, dp_event.GaussianDpEvent(part.noise_multiplier)
            ),
            part.steps,
        )
        for part in composition
    ]


def test_plateaus_compose_as_dp_accounting_composes_its_events() -> None:
    pld = dp_accounting_epsilon(PLDAccountant(), events(PLATEAUS))
    assert epsilon_of("pld", PLATEAUS, DELTA) == pytest.approx(pld, rel=1e-3)
    rdp = dp_accounting_epsilon(RdpAccountant(), events(PLATEAUS))
    assert epsilon_of("rdp", PLATEAUS, DELTA) == pytest.approx(rdp, rel=0.01)
    assert epsilon_of("prv", PLATEAUS, DELTA) == pytest.approx(pld, abs=0.04)


def test_equal_plateaus_are_one() -> None:
    one = SampledGaussian(1.1, 0.02, 100)
    for name in ("prv", "pld", "rdp"):
        split = (SampledGaussian(1.1, 0.02, 30), SampledGaussian(1.1, 0.02, 70))
        assert epsilon_of(name, split, DELTA) == pytest.approx(
            epsilon_of(name, one, DELTA), rel=5e-3
        )
    assert renyi_divergence(split, 4.0) == pytest.approx(renyi_divergence(one, 4.0))


def test_a_schedule_lies_between_its_smallest_and_its_largest_rate() -> None:
    plan = a_plan(batch_schedule={40: 200})
    low, high = (
        epsilon_of("pld", SampledGaussian(plan.noise_multiplier, rate, 100), DELTA)
        for rate in (0.01, 0.04)
    )
    assert low < epsilon_of("pld", plan.composition(), DELTA) < high
    assert epsilon_of("pld", plan.composition(), DELTA) <= 4.0


def test_what_a_schedule_is_at_each_step() -> None:
    plan = a_plan(batch_schedule={40: 200, 90: 25})
    assert plan.plateaus == ((40, 50.0), (50, 200.0), (10, 25.0))
    assert [plan.batch_at(step) for step in (0, 39, 40, 89, 90, 99)] == [50, 50, 200, 200, 25, 25]
    assert plan.rate_at(40) == 0.04
    assert plan.sample_rate == 0.04
    prefix = plan.composition(60)
    assert [(part.sample_rate, part.steps) for part in prefix] == [(0.01, 40), (0.04, 20)]
    more = plan.composition(103)
    assert [(p.sample_rate, p.steps) for p in more][-1] == (0.04, 3)


def test_a_schedule_survives_its_json() -> None:
    plan = a_plan(batch_schedule={40: 200}, max_batch_size=300)
    data = json.loads(json.dumps(plan.to_json()))
    assert PrivacyPlan.from_json(data) == plan
    assert data["plateaus"] == [
        {"steps": 40, "sample_rate": 0.01},
        {"steps": 60, "sample_rate": 0.04},
    ]
    data["plateaus"][0]["sample_rate"] = 0.001
    with pytest.raises(UserError, match="hash to its digest"):
        PrivacyPlan.from_json(data)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({0: 20}, "above step 0"),
        ({100: 20}, "below the 100"),
        ({50: 6000}, "sampling rate"),
        ({50: 0}, "sampling rate"),
        ({1.5: 20}, "whole"),
        (dict.fromkeys(range(1, 70), 20), "plateaus"),
    ],
)
def test_schedules_that_make_no_sense(schedule, words) -> None:
    with pytest.raises(UserError, match=words):
        a_plan(batch_schedule=schedule)


def test_cut_samples_cost_more_and_rise_with_the_bound_on_the_corpus() -> None:
    plain = epsilon_of("pld", SampledGaussian(0.9, 0.051, 150), DELTA)
    cut = [
        epsilon_of("pld", SampledGaussian(0.9, 0.051, 150, largest=600, units=units), DELTA)
        for units in (10_000, 11_000)
    ]
    assert plain < cut[0] < cut[1]
    assert cut[0] < plain + 0.5 < cut[1]


@pytest.mark.full
def test_the_facts_that_the_design_gives_for_cut_samples() -> None:
    """q 0.051, 150 steps, at most 600: 8.4 at 10,000 units, 18.4 at 11,000."""
    sigma = a_plan(
        epsilon=8.0, units=10_000, expected_batch_size=510.0, steps=150, delta=1e-6
    ).noise_multiplier
    found = [
        epsilon_of("pld", SampledGaussian(sigma, 0.051, 150, largest=600, units=units), 1e-6)
        for units in (10_000, 11_000)
    ]
    assert found[0] == pytest.approx(8.4, abs=0.2)
    assert found[1] == pytest.approx(18.4, abs=1.0)


@pytest.mark.parametrize("name", ["prv", "rdp"])
def test_only_pld_bounds_cut_samples(name) -> None:
    with pytest.raises(AccountantFailure):
        epsilon_of(name, SampledGaussian(1.0, 0.01, 10, largest=90, units=5000), DELTA)
    with pytest.raises(UserError, match="accountant"):
        a_plan(max_batch_size=90, accountant=name)


def test_a_plan_of_cut_samples() -> None:
    plan = a_plan(max_batch_size=80)
    plain = a_plan()
    assert plan.sampler == "truncated Poisson"
    assert plan.noise_multiplier > plain.noise_multiplier
    table = plan.check()
    assert table.prv is None
    assert table.rdp is None
    assert plan.epsilon * 0.99 < table.pld <= plan.epsilon


def test_a_cut_sample_is_a_random_subset_of_the_poisson_sample() -> None:
    seen: Counter[int] = Counter()
    for step in range(3000):
        key = step.to_bytes(32, "big")
        whole = PoissonSampler(20, 0.5, stream=SecretStream(key)).draw(0)
        cut = PoissonSampler(20, 0.5, stream=SecretStream(key), largest=8).draw(0)
        assert cut == sorted(cut)
        assert set(cut) <= set(whole)
        assert len(cut) == min(8, len(whole))
        if len(whole) > 8:
            seen.update(cut)
    counts = np.array([seen[unit] for unit in range(20)], dtype=float)
    expected = counts.mean()
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


def test_the_rate_of_a_step_is_that_of_its_plateau() -> None:
    rates = {0: 0.1, 1: 0.6}
    sampler = PoissonSampler(20_000, lambda step: rates[step], stream=SecretStream.from_os())
    for step, rate in rates.items():
        assert len(sampler.draw(step)) / 20_000 == pytest.approx(rate, abs=0.02)
    with pytest.raises(ValueError, match="rate"):
        PoissonSampler(5, lambda step: 1.5, stream=SecretStream.from_os()).draw(0)
    with pytest.raises(ValueError, match="at least one"):
        PoissonSampler(5, 0.5, stream=SecretStream.from_os(), largest=0)


def test_the_ledger_bills_every_plateau_and_a_repeat_at_the_largest(tmp_path: Path) -> None:
    plan = a_plan(batch_schedule={40: 200}, epsilon=2.0)
    ledger = Ledger.register(tmp_path / "ledger.jsonl", epsilon=8.0, delta=1e-5, corpus="c")
    ledger.reserve("run", plan)
    whole = renyi_divergence(plan.composition(), ledger.order)
    assert ledger.spent().rdp == pytest.approx(whole)
    for attempt, steps in ((1, range(100)), (2, range(90, 95))):
        assert ledger.begin_attempt("run", steps[0]) == attempt
        for step in steps:
            ledger.charge("run", attempt, step)
    again = 5 * renyi_divergence(SampledGaussian(plan.noise_multiplier, 0.04, 1), ledger.order)
    assert ledger.spent().rdp == pytest.approx(whole + again)
    ledger.verify()
    ledger.commit("run", 60, 2)
    assert ledger.summary("run")["epsilon"] == pytest.approx(
        epsilon_of("pld", plan.composition(100), plan.delta)
    )


@pytest.mark.full
def test_cut_samples_need_the_ledger_alone(tmp_path: Path) -> None:
    plan = a_plan(max_batch_size=80, epsilon=2.0)
    ledger = Ledger.register(tmp_path / "ledger.jsonl", epsilon=8.0, delta=1e-5, corpus="c")
    ledger.reserve("run", plan)
    ledger.verify()
    with pytest.raises(UserError, match="left"):
        ledger.reserve("other", a_plan(epsilon=0.5))


def test_the_sentence_names_schedule_and_cut(tmp_path: Path) -> None:
    plan = a_plan(batch_schedule={40: 200}, max_batch_size=260)
    ledger = Ledger.register(tmp_path / "ledger.jsonl", epsilon=8.0, delta=1e-5, corpus="c")
    ledger.reserve("run", plan)
    sentence = statement(plan, what="the weights", summary=ledger.summary("run")).sentence
    assert "probability 0.01 for 40 steps, then 0.04 for 60 steps" in sentence
    assert "of more than 260 as many at random, in a corpus of at most 5000" in sentence
