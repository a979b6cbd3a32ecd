"""The smallest noise multiplier, or the most steps, whose epsilon stays at or below a target."""

import math
from collections.abc import Callable
from dataclasses import replace

from dpmlm.privacy.accountants import (
    AccountantFailure,
    Composition,
    SampledGaussian,
    epsilon_of,
    rough_epsilon,
)

SLACK = 0.003
"""A calibrated epsilon lies in [(1 - SLACK) target, target]."""

_SMALLEST, _LARGEST = 0.05, 1e5
_EVALUATIONS = 16


Noised = Callable[[float], Composition]
"""Noise multiplier -> all that is released with it."""


def calibrate(accountant: str, noised: Noised, *, epsilon: float, delta: float) -> float:
    """Noise multiplier for which `accountant` gives an epsilon just below `epsilon`.

    RDP at whole orders, which is cheap and never below the truth, says where to begin; the
    accountant itself then takes a few secant steps in log-log scale, where the curve is nearly
    straight. The result has five significant digits, so that a plan prints exactly. Samples that
    are cut to a largest size RDP does not bound: there it starts from samples that are not cut.
    Raises AccountantFailure when the accountant fails or the target is out of reach.
    """

    def uncut(sigma: float) -> Composition:
        return tuple(replace(mechanism, largest=None) for mechanism in noised(sigma))

    sigma = _enough_roughly(uncut, epsilon, delta)
    slope = _slope(uncut, sigma, delta)
    low, high = 0.0, math.inf  # noise known to be too little, known to be enough
    best, aim = math.inf, math.log(epsilon * (1 - SLACK / 3))
    previous: tuple[float, float] | None = None
    for _ in range(_EVALUATIONS):
        value = epsilon_of(accountant, noised(sigma), delta)
        if not 0 < value < math.inf:
            raise AccountantFailure(f"{accountant} gives epsilon {value:g} at noise {sigma:g}")
        if value <= epsilon:
            best = high = min(high, sigma)
            if value >= epsilon * (1 - SLACK):
                break
        else:
            low = max(low, sigma)
        point = (math.log(sigma), math.log(value))
        if previous is not None and abs(point[0] - previous[0]) > 1e-9:
            measured = (point[1] - previous[1]) / (point[0] - previous[0])
            slope = measured if measured < -0.1 else slope
        previous = point
        following = _round_up(math.exp(point[0] + (aim - point[1]) / slope))
        if not low < following < high:
            following = _round_up(math.sqrt(low * high) if low and high < math.inf else sigma / 2)
        if following in (low, high):
            break
        sigma = following
    if not math.isfinite(best):
        raise AccountantFailure(f"{accountant} reached no noise for epsilon {epsilon:g}")
    return best


def calibrate_steps(
    accountant: str, step: SampledGaussian, *, epsilon: float, delta: float, most: int = 10**7
) -> int:
    """Most steps like `step` for which `accountant` stays at or below `epsilon`; 0 if one is over.

    RDP, which never counts too little, gives steps that surely fit; from there the range is
    doubled and halved with the accountant itself. Stops at `most`. Raises AccountantFailure where
    the accountant gives no number.
    """

    def fits(count: int, by: str) -> bool:
        return epsilon_of(by, (replace(step, steps=count),), delta) <= epsilon

    def last(by: str, low: int) -> int:
        high = max(1, low)
        while high <= most and fits(high, by):
            low, high = high, 2 * high
        high = min(high, most + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle, by) else (low, middle)
        return low

    try:
        sure = last("rdp", 0)
    except AccountantFailure:
        sure = 0
    return sure if accountant == "rdp" else last(accountant, sure)


def _round_up(sigma: float) -> float:
    digits = 4 - math.floor(math.log10(sigma))
    rounded = round(sigma, digits)
    return rounded if rounded >= sigma else round(sigma + 10.0**-digits, digits)


def _enough_roughly(noised: Noised, epsilon: float, delta: float) -> float:
    """Noise that suffices by `rough_epsilon`, to a twentieth."""

    def enough(sigma: float) -> bool:
        try:
            return rough_epsilon(noised(sigma), delta) <= epsilon
        except AccountantFailure:
            return False

    high = 1.0
    while not enough(high):
        high *= 2
        if high > _LARGEST:
            raise AccountantFailure(f"no noise up to {_LARGEST:g} reaches epsilon {epsilon:g}")
    low = high / 2
    while low > _SMALLEST and enough(low):
        low, high = low / 2, low
    while high / low > 1.05:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return _round_up(high)


def _slope(noised: Noised, sigma: float, delta: float) -> float:
    """d ln epsilon / d ln sigma of the rough bound: a first guess of the accountant's own."""
    here, more = (rough_epsilon(noised(sigma * factor), delta) for factor in (1.0, 1.05))
    return min(math.log(more / here) / math.log(1.05), -0.3)
