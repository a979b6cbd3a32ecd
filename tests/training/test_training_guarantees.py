"""The claim, measured: what releases of the real trainer tell about one unit.

Everything that privacy rests on is real (see `release_audit.Observer` for what is not): epsilon 1
has delta 0.127 at rate 1 after one step with sigma 1, and 0.510 with half the noise.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from release_audit import (
    EPSILON,
    Observer,
    Rows,
    all_drawn,
    claimed_delta,
    correlation,
    delta_shown,
    half_drawn,
    least_delta,
    observe,
    taking_turns,
)
from scipy import stats
from small_training import maskless

from dpmlm.clipping import clip_and_sum
from dpmlm.privacy import PoissonSampler, gaussian_noise
from dpmlm.training import loop, optimizer

WORLDS = {"all drawn": all_drawn, "half drawn": half_drawn, "taking turns": taking_turns}
FALSE_ALARM = 1e-9


@pytest.fixture
def observer(monkeypatch):
    return Observer(monkeypatch)


def halve_noise(monkeypatch):
    """Half the noise everywhere."""
    monkeypatch.setattr(
        optimizer, "gaussian_noise",
        lambda shape, std, *rest, **names: gaussian_noise(shape, std / 2, *rest, **names),
    )  # fmt: skip


def spare_one_parameter(monkeypatch):
    """No noise in the parameter numbered 5."""

    def noise(shape, std, *rest, label, **names):
        spared = label == "noise/5"
        return gaussian_noise(shape, 0.0 if spared else std, *rest, label=label, **names)

    monkeypatch.setattr(optimizer, "gaussian_noise", noise)


def share_the_loss(monkeypatch):
    """The loss averaged over the masked tokens of the batch, as Hugging Face does."""

    def shared(model, batch, bound, **more):
        weights = batch.masked_weights / batch.masked_weights.sum()
        return clip_and_sum(model, replace(batch, masked_weights=weights), bound, **more)

    monkeypatch.setattr(loop, "clip_and_sum", shared)


def clip_every_window(monkeypatch):
    """Each row clipped alone."""
    monkeypatch.setattr(
        loop, "clip_and_sum",
        lambda model, batch, *more, **names: clip_and_sum(
            model, replace(batch, unit_index=None), *more, **names
        ),
    )  # fmt: skip


def draw_twice_as_often(monkeypatch):
    """A sampler at twice the planned rate."""

    class Doubled(PoissonSampler):
        def __init__(self, units, rate, *, stream, **more):
            super().__init__(units, lambda step: min(1.0, 2 * rate(step)), stream=stream)

    monkeypatch.setattr(loop, "PoissonSampler", Doubled)


def forget_turns(monkeypatch):
    """Every unit may be drawn in every step, at the rate of those whose turn it is."""

    class Always(PoissonSampler):
        def __init__(self, units, rate, *, stream, **more):
            super().__init__(units, rate, stream=stream)

    monkeypatch.setattr(loop, "PoissonSampler", Always)


def check_delta(observer, world_name, runs):
    """No event shows more than the claim allows."""
    world = WORLDS[world_name]()
    shown, allowed = delta_shown(observe(observer, world, runs)), claimed_delta(world.plan)
    print(f"{world_name}, {runs} runs: at least {shown:.3f} shown, {allowed:.3f} claimed")
    assert shown <= allowed


def check_noise(observer, world_name="half drawn", steps=40):
    """A chi-square test of the variance of every parameter's noise, and a test of its mean.

    Correlated noise is made independent first: what the plan's matrix does not undo is left over.
    """
    plan = replace(WORLDS[world_name]().plan, steps=steps)
    noise = observer.releases(Rows([]), plan) / (plan.noise_multiplier * plan.max_grad_norm)
    noise = correlation(plan) @ noise
    neighbours = (noise[1:] * noise[:-1]).sum() / math.sqrt(noise[1:].size)
    assert abs(neighbours) < stats.norm.isf(FALSE_ALARM)
    for values in np.split(noise, np.cumsum(observer.sizes)[:-1], axis=1):
        upper = stats.chi2.sf((values**2).sum(), values.size)
        assert FALSE_ALARM < upper < 1 - FALSE_ALARM
        assert abs(values.mean()) * math.sqrt(values.size) < stats.norm.isf(FALSE_ALARM)


def check_inclusion(observer, steps=200, units=20):
    """A chi-square test of how often each unit was drawn, and of all together."""
    plan = replace(half_drawn().plan, units=80, expected_batch_size=20.0, steps=steps)
    rows = Rows([[example] for example in maskless(units)])
    observer.releases(rows, plan)
    rate = plan.sample_rate
    distances = (rows.drawn - steps * rate) ** 2 / (steps * rate * (1 - rate))
    assert FALSE_ALARM < stats.chi2.sf(distances.sum(), units) < 1 - FALSE_ALARM
    assert stats.binomtest(int(rows.drawn.sum()), units * steps, rate).pvalue > FALSE_ALARM


def test_the_deltas_are_those_of_the_literature():
    """For rate 1: Balle and Wang 2018, theorem 8."""
    for noise, delta in ((1.0, 0.127), (0.5, 0.510)):
        a, b = 1 / (2 * noise), EPSILON * noise
        exact = stats.norm.cdf(a - b) - math.exp(EPSILON) * stats.norm.cdf(-a - b)
        assert exact == pytest.approx(delta, abs=5e-4)
        plan = replace(all_drawn().plan, noise_multiplier=noise)
        assert claimed_delta(plan) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("world_name", WORLDS)
def test_the_unit_moves_the_sum_by_the_whole_bound(observer, world_name):
    """Else the claim is not put to the test; at the weights of later steps too."""
    world = WORLDS[world_name]()
    seen = observe(observer, world, 2)
    bound = world.plan.max_grad_norm
    assert seen.lengths == pytest.approx(np.full(world.plan.steps, bound), rel=1e-4)
    views = [[loop.View(example, 0) for example in world.unit]]
    free = clip_and_sum(observer.model, observer.recipe.batch(views), math.inf)
    assert float(free.norms[0]) > 1.5 * bound


@pytest.mark.parametrize(
    "world_name",
    ["all drawn", *(pytest.param(w, marks=pytest.mark.full) for w in WORLDS if w != "all drawn")],
)
def test_no_event_shows_more_than_the_claim(observer, world_name):
    check_delta(observer, world_name, 100)


@pytest.mark.full
@pytest.mark.parametrize("world_name", WORLDS)
def test_no_event_of_two_thousand_runs_shows_more_than_the_claim(observer, world_name):
    check_delta(observer, world_name, 2000)


@pytest.mark.parametrize("world_name", ["half drawn", "taking turns"])
def test_every_parameter_has_the_planned_noise(observer, world_name):
    check_noise(observer, world_name)


def test_every_unit_is_drawn_at_the_planned_rate(observer):
    check_inclusion(observer)


CAUGHT = [
    # So many runs that none of 10,000 simulated repetitions of a fault stays below the claim.
    pytest.param(halve_noise, check_delta, ("all drawn", 500), marks=pytest.mark.full),
    pytest.param(halve_noise, check_delta, ("half drawn", 1000), marks=pytest.mark.full),
    (halve_noise, check_noise, ()),
    (halve_noise, check_noise, ("taking turns",)),
    pytest.param(forget_turns, check_delta, ("taking turns", 300), marks=pytest.mark.full),
    (spare_one_parameter, check_noise, ()),
    (share_the_loss, check_delta, ("all drawn", 60)),
    pytest.param(clip_every_window, check_delta, ("all drawn", 200), marks=pytest.mark.full),
    pytest.param(draw_twice_as_often, check_delta, ("half drawn", 1000), marks=pytest.mark.full),
    (draw_twice_as_often, check_inclusion, (100,)),
]


@pytest.mark.parametrize(("fault", "check", "arguments"), CAUGHT)
def test_the_check_catches(observer, monkeypatch, fault, check, arguments):
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check(observer, *arguments)


def test_the_lower_bound_holds_at_its_confidence():
    """P = 0.3 and Q = 0.05 in 200 runs, ten thousand times."""
    rng = np.random.default_rng(1)
    true = 0.3 - math.exp(EPSILON) * 0.05
    often, seldom = rng.binomial(200, 0.3, 10_000), rng.binomial(200, 0.05, 10_000)
    above = sum(least_delta(int(a), int(b), 200, 0.9) > true for a, b in zip(often, seldom))
    assert above <= stats.binom.isf(FALSE_ALARM, 10_000, 0.1)
    assert least_delta(200, 0, 200, 0.999) > 0.8
