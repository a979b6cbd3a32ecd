"""Learning rates against values counted by hand, their ends and their areas."""

import math
from itertools import pairwise

import numpy as np
import pytest

from dpmlm.errors import UserError
from dpmlm.training.schedules import learning_rate_at, refuse_shares

SHAPES = ["linear", "cosine", "constant", "wsd"]


def rates(shape, steps=200, warmup=0.1, decay=0.2, peak=1.0):
    return [
        learning_rate_at(s, steps=steps, peak=peak, warmup=warmup, shape=shape, decay=decay)
        for s in range(steps)
    ]


def naive(shape, steps, rising, falling):
    """Corners of the curve, and numpy's interpolation between them."""
    at = np.arange(steps)
    up = (at + 1) / rising
    if shape == "constant":
        after = np.ones(steps)
    elif shape == "wsd":
        after = np.interp(at, [steps - falling - 1, steps], [1, 0])
    else:
        after = np.interp(at, [rising - 1, steps], [1, 0])
        if shape == "cosine":
            after = np.cos((1 - after) * np.pi) / 2 + 0.5
    return np.where(at < rising, up, after)


@pytest.mark.parametrize("shape", SHAPES)
def test_rates_are_those_between_the_corners(shape):
    assert rates(shape) == pytest.approx(naive(shape, 200, rising=20, falling=40).tolist())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 1.0), (2, 0.5), (7, 0.0), (7, 1.0)])
def test_every_step_has_a_rate_above_zero_and_none_above_the_peak(shape, steps, warmup):
    found = rates(shape, steps, warmup, decay=min(0.2, 1 - warmup), peak=3.0)
    assert all(0 < rate <= 3.0 for rate in found)
    assert max(found) == 3.0


@pytest.mark.parametrize(
    ("shape", "area"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1.0), ("wsd", 0.9)]
)
def test_areas_without_warmup_are_those_of_the_shapes(shape, area):
    assert math.fsum(rates(shape, 4000, warmup=0.0)) / 4000 == pytest.approx(area, abs=1e-3)


def test_wsd_stays_until_its_last_share():
    found = rates("wsd", steps=100, warmup=0.1, decay=0.3)
    assert set(found[9:70]) == {1.0}
    assert all(later < earlier for earlier, later in pairwise(found[69:]))


def test_shares_of_wsd_that_overlap_are_refused():
    refuse_shares("wsd", 0.5, 0.5)
    refuse_shares("linear", 0.9, 0.2)
    with pytest.raises(UserError, match="rises and falls in shares of the same steps"):
        refuse_shares("wsd", 0.9, 0.2)
