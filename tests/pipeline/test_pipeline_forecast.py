"""What `dpmlm plan` foresees: signal, cost, and other ways to spend the same compute."""

import math
from dataclasses import replace

import pytest
from small_run import write_corpus, write_run_file

from dpmlm.config import load_config
from dpmlm.pipeline.forecast import FEWEST_STEPS, Spending, forecast, spendings
from dpmlm.pipeline.models import plan_of
from dpmlm.privacy import SampledGaussian, epsilon_of, make_plan


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forecast")
    write_corpus(folder)
    changes = {"training__steps": 30, "training__windows_per_draw": 3, "privacy__accountant": "rdp"}
    return load_config(write_run_file(folder, **changes))


def test_it_counts_what_the_plan_expects(config):
    plan = plan_of(config)
    found = forecast(config, plan)
    assert found.rows == plan.steps * plan.expected_batch_size * 3
    assert found.seconds == pytest.approx(
        found.rows * found.seconds_a_row + plan.steps * found.seconds_a_step
    )
    assert 0 < found.seconds_a_row < 1
    # 128 wide, two layers, as many lines as the vocabulary has: the published size of a tiny BERT
    words = config.tokens.train.size
    assert found.parameters == pytest.approx(128 * words + 2 * 198_272 + 128 * 48, rel=0.25)
    noise = plan.noise_multiplier * math.sqrt(found.parameters)
    assert found.signal_to_noise == pytest.approx(plan.expected_batch_size / noise)


def test_a_stop_that_takes_longer_than_half_of_what_is_granted_is_foretold(config):
    found = forecast(config, plan_of(config))
    rows = config.training.physical_batch_size
    assert found.seconds_to_stop == pytest.approx(rows * found.seconds_a_row + found.seconds_a_step)
    for seconds, told in ((14.0, False), (16.0, True)):
        lines = "\n".join(replace(found, seconds_to_stop=seconds).lines())
        assert ("training.physical_batch_size" in lines) is told


def test_the_same_compute_in_other_batches_keeps_the_claim():
    plan = make_plan(
        epsilon=4.0, delta=1e-6, units=5000, expected_batch_size=64, steps=200, max_grad_norm=1.0
    )
    ways = spendings(plan)
    assert len(ways) > 3
    for way in ways:
        assert way.steps * way.expected_batch_size == pytest.approx(64 * 200, rel=0.05)
        mechanism = SampledGaussian(way.noise_multiplier, way.expected_batch_size / 5000, way.steps)
        assert 3.9 < epsilon_of("rdp", mechanism, 1e-6) <= 4.0
    noises = [way.noise_per_step for way in ways]
    assert noises == sorted(noises, reverse=True)
    assert all(way.expected_batch_size <= 5000 for way in ways)


@pytest.mark.full
def test_the_suggestion_leaves_enough_steps(config):
    plan = plan_of(config)
    found = forecast(config, plan)
    assert found.suggested is None or found.suggested.steps >= FEWEST_STEPS
    text = "\n".join(found.lines())
    assert f"{found.rows:,.0f} rows" in text
    assert Spending(10, 5, 2.0).noise_per_step == 0.2
