"""What a plan may hold: every rule that a `PrivacyPlan` can break by itself."""

import math
from typing import TYPE_CHECKING

from dpmlm.errors import UserError
from dpmlm.privacy.accountants import ACCOUNTANTS
from dpmlm.privacy.ancestor import check_ancestor
from dpmlm.privacy.noise import NOISES, noise_source_of, refuse_noise
from dpmlm.privacy.sampling import sampler_of

if TYPE_CHECKING:
    from dpmlm.privacy.plan import PrivacyPlan

UNITS = ("document", "person", "sequence")
SEQUENCES = "sequences that the prepared text was cut into"
SCOPES = ("source corpus", "deduplicated corpus", SEQUENCES)
MOST_PLATEAUS = 64
_EPSILONS = (0.05, 150.0)
LEAST_DELTA = 1e-10
"""Of a plan with noise: PLD was found below the truth from 1e-12 down (tests)."""
LARGEST_NORM = 1e6
"""Of a clipping bound: squares of sums stay far inside float32."""


def as_number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise UserError(f"{name} {value!r}", "it must be a number", f"give {name} as a number")
    return float(value)


def check_plan(plan: "PrivacyPlan") -> None:
    """Raises UserError for the first rule that a field breaks, in the order of the fields."""
    for name in ("epsilon", "delta", "expected_batch_size", "max_grad_norm", "noise_multiplier"):
        as_number(name, getattr(plan, name))
    for name in ("units", "steps"):
        value = getattr(plan, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} {value!r}", "it must be a whole number above 0", f"set {name}")
    low, high = _EPSILONS
    noised = math.isfinite(plan.epsilon)
    if noised and not low <= plan.epsilon <= high:
        raise UserError(
            f"epsilon {plan.epsilon:g}",
            f"it must lie between {low:g} and {high:g}, or be inf",
            "choose a budget in that range, or inf for a run without privacy",
        )
    if not 0 < plan.delta < 1 / plan.units:
        raise UserError(
            f"delta {plan.delta:g}",
            f"it must be above 0 and below 1/units = {1 / plan.units:.3g}: a larger delta allows "
            "to publish one unit as it is",
            f"set delta to {_power_below(0.1 / plan.units):g} or less",
        )
    if noised and plan.delta < LEAST_DELTA:
        raise UserError(
            f"delta {plan.delta:g}",
            f"below {LEAST_DELTA:g} the accountants' Fourier transforms round away what they count",
            f"set delta to {LEAST_DELTA:g} or more, and units so that it is below 1/units",
        )
    _check_batches(plan)
    if not plan.max_grad_norm <= LARGEST_NORM and math.isfinite(plan.max_grad_norm):
        raise UserError(
            f"max_grad_norm {plan.max_grad_norm:g}",
            f"above {LARGEST_NORM:g} sums leave the range of 32-bit numbers",
            "set max_grad_norm to about 1.0",
        )
    if plan.max_grad_norm <= 0 or (noised and math.isinf(plan.max_grad_norm)):
        raise UserError(
            f"max_grad_norm {plan.max_grad_norm:g}",
            "it must be above 0, and finite unless epsilon is inf",
            "set max_grad_norm to about 1.0",
        )
    if (plan.noise_multiplier > 0) is not noised or math.isinf(plan.noise_multiplier):
        raise UserError(
            f"noise_multiplier {plan.noise_multiplier:g} with epsilon {plan.epsilon:g}",
            "a finite epsilon needs finite noise above 0, and inf has none",
            "make the plan with make_plan",
        )
    _one_of("unit", plan.unit, UNITS)
    _one_of("scope", plan.scope, SCOPES)
    if (plan.unit == "sequence") is not (plan.scope == SEQUENCES):
        raise UserError(
            f"unit {plan.unit} with scope {plan.scope!r}",
            "where sequences begin and end depends on the text before them, so that a promise "
            "about one sequence is about the sequences as they were cut, and no other is",
            "make the plan with make_plan, without a scope",
        )
    _one_of("accountant", plan.accountant, ACCOUNTANTS)
    _check_bands(plan)
    _one_of("sampler", plan.sampler, (sampler_of(plan.max_batch_size, plan.bands),))
    _one_of("noise", plan.noise, NOISES)
    refuse_noise(plan.noise, plan.accountant, plan.noise_seed)
    source = noise_source_of(plan.epsilon, plan.noise, plan.noise_seed)
    _one_of("noise_source", plan.noise_source, (source,))
    for key, value in plan.bindings.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float | None):
            raise UserError(f"binding {key!r}", "it must be text, a number or null", "mend it")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"binding {key!r}", "its number must be finite", "write it as text")
    check_ancestor(plan)


def _check_batches(plan: "PrivacyPlan") -> None:
    begins = [step for step, _ in plan.batch_schedule]
    if any(type(step) is not int for step in begins) or begins != sorted(set(begins)):
        raise UserError(
            f"batch_schedule from steps {begins}", "steps are whole and ascend", "mend the schedule"
        )
    if begins and not 0 < begins[0] <= begins[-1] < plan.steps:
        raise UserError(
            f"batch_schedule from steps {begins}",
            f"each begins above step 0 and below the {plan.steps} of the plan",
            "mend the schedule; the batch of the first steps is expected_batch_size",
        )
    if len(begins) >= MOST_PLATEAUS:
        raise UserError(
            f"batch_schedule of {len(begins) + 1} plateaus",
            f"at most {MOST_PLATEAUS} can be accounted for in reasonable time",
            "take fewer and longer ones",
        )
    for _, batch in plan.plateaus:
        as_number("expected_batch_size", batch)
        if not 0 < batch <= plan.units:
            raise UserError(
                f"expected_batch_size {batch:g} of {plan.units} units",
                "the sampling rate must be above 0 and at most 1",
                "lower expected_batch_size",
            )
    largest = plan.max_batch_size
    if largest is None:
        return
    if type(largest) is not int or largest < 1:
        raise UserError(f"max_batch_size {largest!r}", "it is a whole number above 0", "mend it")
    if plan.accountant != "pld":
        raise UserError(
            f"max_batch_size {largest} with accountant {plan.accountant}",
            "PLD alone bounds samples that are cut to a largest size",
            "set accountant to pld",
        )


def _check_bands(plan: "PrivacyPlan") -> None:
    bands = plan.bands
    if type(bands) is not int or not 1 <= bands <= plan.steps:
        raise UserError(
            f"bands {bands!r}",
            f"it is a whole number from 1 to the {plan.steps} steps of the plan",
            "lower bands",
        )
    numbers = [as_number("coefficients", value) for value in plan.coefficients]
    if len(numbers) != bands or not numbers[0] > 0 or sum(c * c for c in numbers) > 1 + 1e-9:
        raise UserError(
            f"{len(numbers)} coefficients of {bands} bands",
            "there is one a band, the first above 0, and their squares add up to 1 at most",
            "make the plan with make_plan",
        )
    if bands == 1:
        return
    if bands * plan.largest_batch > plan.units:
        raise UserError(
            f"bands {bands} at {plan.largest_batch:g} of {plan.units} units a step",
            "units take turns, so the rate within a group is bands times as high, and at most 1",
            f"lower bands to {int(plan.units // plan.largest_batch)} or less, or the batch",
        )
    if plan.max_batch_size is not None or plan.noise != "gaussian":
        other = f"noise {plan.noise}" if plan.max_batch_size is None else "max_batch_size"
        raise UserError(
            f"bands {bands} with {other}",
            "correlated noise is accounted for with Gaussian noise and samples as they fall",
            "use one of the two",
        )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(
            f"{name} {value!r}", f"it must be one of {', '.join(allowed)}", f"choose a {name}"
        )


def _power_below(value: float) -> float:
    return float(10.0 ** math.floor(math.log10(value)))
