"""Checks: what is measured on the running code, beside what audits see of the finished model.

Each answers with words for what it found wrong, or nothing. False alarms are rarer than
`FALSE_ALARM` a test; the sensitivity, the doctor and the accountant have none.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from scipy import stats

from dpmlm.clipping import check_model
from dpmlm.masking import Example
from dpmlm.pipeline.selftest.world import People, World, without_noise
from dpmlm.privacy import PrivacyPlan, epsilon_of

FALSE_ALARM = 1e-7
SLACK = 1e-3
"""Relative: of a length that is read off float32 weights."""
TOLERANCE = 0.02
"""Relative: by so much two accountants may differ (`PrivacyPlan.check`)."""
BOUNDS = (0.25, 0.5, 1.0, 2.0)
"""Clipping norms that are tried, as multiples of the planned one: a unit that shortens the others'
gradients does so most where they are about as long as the bound."""
STEPS, RUNS, OTHERS = 3, 2, 8


def doctor(world: World, plan: PrivacyPlan) -> str:
    """`dpmlm doctor`: norms and sum against one-unit-at-a-time autograd."""
    model = copy.deepcopy(world.start)
    found = check_model(model, len(world.tokenizer), window=world.size.window)
    return "" if found.exact else found.reason


def sensitivity(world: World, plan: PrivacyPlan) -> str:
    """How far one person moves the sum of a step, over the clipping norm: at most 1.

    One step at sampling rate 1 is taken with and without the person, who has as many documents as
    a draw takes, all alike, so that their gradients add up. Beside them stand people who wrote one
    word.
    """
    first = int(np.flatnonzero(~world.table.special)[0])
    room, count = world.size.window - 2, world.size.documents
    long = [Example(f"long {row}", np.full(room, first + 1)) for row in range(count)]
    short = [[Example(f"short {n}", np.full(1, first + 2))] for n in range(OTHERS)]
    everybody = replace(
        without_noise(plan), steps=1, expected_batch_size=float(plan.units), batch_schedule=()
    )
    moved = 0.0
    for multiple in BOUNDS:
        one = replace(everybody, max_grad_norm=multiple * plan.max_grad_norm)
        sums = [world.releases(People(people), one)[0] for people in ([*short, long], short)]
        moved = max(moved, float((sums[0] - sums[1]).norm()) / one.max_grad_norm)
    return "" if moved <= 1 + SLACK else f"one person moves the sum by {moved:.2f} of the bound"


def noise(world: World, plan: PrivacyPlan) -> str:
    """The noise of steps on text without a word that could be masked, over two trainings.

    Its size by a chi-square test for every parameter, its freshness by the correlation of any two
    steps.
    """
    nobody = [[Example(f"empty {n}", np.zeros(0, dtype=np.int64))] for n in range(OTHERS)]
    brief = replace(plan, steps=STEPS)
    std = plan.noise_multiplier * plan.max_grad_norm
    steps = torch.cat([world.releases(People(nobody), brief) for _ in range(RUNS)]) / std
    # Sharing first: steps that share noise are too few for the chi-square below.
    limit = float(stats.norm.isf(FALSE_ALARM / 2))
    for (a, one), (b, other) in combinations(enumerate(steps), 2):
        if abs(float(one @ other)) > limit * math.sqrt(len(one)):
            where = "two trainings" if a // STEPS != b // STEPS else "two steps"
            return f"{where} share it"
    sizes = [p.numel() for p in world.start.parameters()]
    for values in steps.split(sizes, dim=1):
        above = float(stats.chi2.sf(float(values.square().sum()), values.numel()))
        if not FALSE_ALARM < above < 1 - FALSE_ALARM:
            return f"its deviation is {float(values.std()):.2f} of the planned"
    return ""


def sampling(people: People, plan: PrivacyPlan) -> str:
    """How often people were drawn in the training itself, against the planned rate."""
    chances = len(people.names) * plan.steps
    if stats.binomtest(people.draws, chances, plan.sample_rate).pvalue > FALSE_ALARM:
        return ""
    return f"drawn at rate {people.draws / chances:.3g}, planned {plan.sample_rate:.3g}"


def accountant(plan: PrivacyPlan) -> str:
    """Epsilon from noise, rate and steps, by PLD (the release rule dp.accounted), against the
    claim. The audits have an implementation of their own."""
    again = epsilon_of("pld", plan.composition(), plan.delta)
    if again <= (1 + TOLERANCE) * plan.epsilon:
        return ""
    return f"epsilon {again:.2f} by PLD, claimed {plan.epsilon:g}"


OF_CODE: dict[str, Callable[[World, PrivacyPlan], str]] = {
    "doctor": doctor,
    "sensitivity": sensitivity,
    "noise": noise,
}
"""Checks that run pieces of the trainer, while the fault is planted."""
CHECKS = (*OF_CODE, "sampling", "accountant")
