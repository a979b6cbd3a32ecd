"""`make_plan`: from a budget to the plan with the least noise that keeps it."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace

from dpmlm.errors import UserError
from dpmlm.privacy.accountants import AccountantFailure, epsilon_of
from dpmlm.privacy.bands import band_coefficients
from dpmlm.privacy.calibration import calibrate
from dpmlm.privacy.noise import noise_source_of
from dpmlm.privacy.plan import PrivacyPlan
from dpmlm.privacy.rules import SCOPES, SEQUENCES, as_number
from dpmlm.privacy.sampling import sampler_of


def make_plan(
    *,
    epsilon: float,
    delta: float,
    units: int,
    expected_batch_size: float,
    steps: int,
    max_grad_norm: float,
    unit: str = "document",
    accountant: str = "prv",
    batch_schedule: Mapping[int, float] | None = None,
    max_batch_size: int | None = None,
    scope: str | None = None,
    bindings: Mapping[str, str | int | float | None] | None = None,
    adjacency: str = "add or remove",
    noise: str = "gaussian",
    noise_seed: int | None = None,
    bands: int = 1,
) -> PrivacyPlan:
    """Plan whose noise is the least that keeps epsilon at or below the target.

    The noise is calibrated with `accountant` and raised, if need be, until PLD agrees that the
    target holds. Where PRV cannot be computed a warning says so and the plan is accounted with
    PLD. `batch_schedule` maps a step to the expected batch size from there on: plateaus, as each
    different rate costs the accountant. `max_batch_size` cuts samples, and needs accountant
    "pld". `epsilon=inf` makes an honest plan without noise. `noise="discrete_gaussian"` needs
    `accountant="rdp"`, the only one that bounds it. With a `noise_seed` the noise is as large but
    can be drawn again, so the plan is not private. `bands` above 1 correlates the noise of so
    many steps (`bands.py`). `scope` None is the source corpus, or, of unit "sequence", the
    sequences that text was cut into.

    Raises UserError for delta not below 1/units, a sampling rate above 1, an unknown unit, scope,
    accountant or noise, an adjacency other than "add or remove", and an epsilon out of reach.
    """
    if adjacency != "add or remove":
        raise UserError(
            f"adjacency {adjacency!r}",
            'the accountants here bound "add or remove" one unit; "replace" is another, larger '
            "number",
            'use adjacency "add or remove"',
        )
    plan = PrivacyPlan(
        epsilon=as_number("epsilon", epsilon),
        delta=as_number("delta", delta),
        units=units,
        unit=unit,
        expected_batch_size=as_number("expected_batch_size", expected_batch_size),
        steps=steps,
        max_grad_norm=as_number("max_grad_norm", max_grad_norm),
        accountant=accountant,
        batch_schedule=tuple(sorted((batch_schedule or {}).items())),
        max_batch_size=max_batch_size,
        sampler=sampler_of(max_batch_size, bands),
        noise_multiplier=0.0 if epsilon == math.inf else 1.0,
        scope=scope or (SEQUENCES if unit == "sequence" else SCOPES[0]),
        bindings=bindings or {},
        noise_source=noise_source_of(epsilon, noise, noise_seed),
        noise=noise,
        noise_seed=noise_seed,
        bands=bands,
        coefficients=_coefficients(bands, steps),
    )
    if math.isinf(plan.epsilon):
        return plan
    try:
        accountant, sigma = _noise_for(plan)
    except AccountantFailure as failure:
        raise UserError(
            f"epsilon {plan.epsilon:g} with {steps} steps at rate {plan.sample_rate:.4g}",
            f"no accountant finds a noise multiplier ({failure})",
            "choose another epsilon, fewer steps or a smaller batch",
        ) from failure
    plan = replace(plan, noise_multiplier=sigma, accountant=accountant)
    plan.check()
    return plan


def _coefficients(bands: int, steps: int) -> tuple[float, ...]:
    sound = type(bands) is int and type(steps) is int and 1 <= bands <= steps
    return band_coefficients(bands, steps) if sound else (1.0,)  # the plan refuses the rest


def _noise_for(plan: PrivacyPlan) -> tuple[str, float]:
    name = plan.accountant
    try:
        sigma = _calibrated(name, plan)
    except AccountantFailure as failure:
        if name != "prv":
            raise
        warnings.warn(
            f"PRV cannot be computed for this plan ({failure}); it is accounted with PLD",
            stacklevel=3,
        )
        name, sigma = "pld", _calibrated("pld", plan)
    whole = plan.composition(noise_multiplier=sigma)
    second = plan.second_accountant
    if name != second and epsilon_of(second, whole, plan.delta) > plan.epsilon:
        sigma = max(sigma, _calibrated(second, plan))
    return name, sigma


def _calibrated(accountant: str, plan: PrivacyPlan) -> float:
    return calibrate(
        accountant,
        lambda sigma: plan.composition(noise_multiplier=sigma),
        epsilon=plan.epsilon,
        delta=plan.delta,
    )
