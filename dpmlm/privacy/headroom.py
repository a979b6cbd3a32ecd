"""What steps of a plan cost, and how many of them, or how much of it, fits a budget."""

import math
from functools import lru_cache

from dpmlm.privacy.accountants import AccountantFailure, epsilon_of, renyi_divergence
from dpmlm.privacy.plan import PrivacyPlan


def pld_epsilon(plan: PrivacyPlan, steps: int) -> float:
    """PLD's epsilon after `steps` of the plan, at its delta; `inf` without privacy.

    RDP's where the noise is discrete, which PLD does not bound.
    """
    if not plan.private:
        return math.inf
    return epsilon_of(plan.second_accountant, plan.composition(steps), plan.delta)


def epsilon_after(plan: PrivacyPlan, steps: int) -> float:
    """The larger epsilon after `steps` of the plan's own accountant and PLD."""
    return max(plan.epsilon_spent(steps), pld_epsilon(plan, steps))


@lru_cache(maxsize=64)
def steps_within(plan: PrivacyPlan, epsilon: float) -> int:
    """Largest number of steps, from the plan's own on, at which PLD stays within `epsilon`.

    About a dozen runs of PLD; answers are remembered. The plan's own steps must fit.
    """
    low, high = plan.steps, 2 * plan.steps
    while pld_epsilon(plan, high) <= epsilon:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if pld_epsilon(plan, middle) <= epsilon else (low, middle)
    return low


def fitting_epsilon(plan: PrivacyPlan, divergence: float, order: float) -> float | None:
    """Epsilon of the plan with as much noise as makes it cost `divergence`; None beyond 1000."""

    def fits(sigma: float) -> bool:
        try:
            whole = renyi_divergence(plan.composition(noise_multiplier=sigma), order)
        except AccountantFailure:
            return False
        return whole <= divergence

    low, high = plan.noise_multiplier, 1000.0
    if not fits(high):
        return None
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    whole = plan.composition(noise_multiplier=high)
    epsilon = epsilon_of(plan.second_accountant, whole, plan.delta)
    return math.floor(epsilon * 0.99 * 100) / 100 or None
