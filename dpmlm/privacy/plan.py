"""`PrivacyPlan`: what a run promises, fixed before its first batch."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from dpmlm.canonical import digest
from dpmlm.errors import UserError
from dpmlm.privacy.accountants import (
    ACCOUNTANTS,
    AccountantFailure,
    Composition,
    SampledGaussian,
    epsilon_of,
)
from dpmlm.privacy.calibration import calibrate
from dpmlm.privacy.noise import NOISE_SOURCES, NOISES, noise_source_of, refuse_noise

SCHEMA = "dpmlm.plan/1"
UNITS = ("document", "person")
SCOPES = ("source corpus", "deduplicated corpus")
SAMPLER = "Poisson"
TRUNCATED = "truncated Poisson"

MOST_PLATEAUS = 64
_EPSILONS = (0.05, 150.0)


@dataclass(frozen=True)
class AccountantTable:
    """The plan's epsilon at its last step, by every accountant."""

    prv: float | None
    """Upper bound of PRV in both directions; None where PRV fails on this plan."""
    pld: float
    """Pessimistic PLD, both directions."""
    rdp: float | None
    """Renyi bound, never below the other two; None where there is none."""
    claimed: float
    """Figure of the plan's own accountant."""


@dataclass(frozen=True)
class PrivacyPlan:
    """One run of DP-SGD: `steps` noisy sums over Poisson samples of `units`.

    Formal guarantee: the released weights are (`epsilon`, `delta`)-differentially private for
    adding or removing one `unit`, if each step draws every unit independently with probability
    `sample_rate`, clips each unit's gradient to `max_grad_norm` and adds Gaussian noise of
    standard deviation `noise_multiplier * max_grad_norm` to the sum (Abadi et al. 2016).
    """

    epsilon: float
    """Target; every accountant consulted stays at or below it. `inf`: no promise."""
    delta: float
    """In (0, 1/units)."""
    units: int
    """Public upper constant of the corpus, canaries included; never counted from private text."""
    unit: str
    """What is protected: "document" or "person"."""
    expected_batch_size: float
    """Mean number of units a step; also the divisor of the noisy sum. On a schedule, that of the
    first steps."""
    steps: int
    """Number of noisy steps, empty samples included."""
    max_grad_norm: float
    """Clipping norm of a unit's gradient; above 0, `inf` only without a promise."""
    accountant: str
    """"prv", "pld" or "rdp"."""
    noise_multiplier: float
    """Noise over clipping norm; 0 where epsilon is `inf`."""
    scope: str
    """Corpus that the promise is about: "source corpus" or "deduplicated corpus"."""
    bindings: Mapping[str, str | int | float | None] = field(default_factory=dict)
    """Settings of the run that the promise depends on, such as masked_slots and window."""
    batch_schedule: tuple[tuple[int, float], ...] = ()
    """(step, expected batch size from that step on), ascending from above 0; empty: constant."""
    max_batch_size: int | None = None
    """Units that a sample is cut to; None takes it as it falls."""
    sampler: str = SAMPLER
    """How units are drawn: "Poisson", or "truncated Poisson" with `max_batch_size`."""
    noise_source: str = NOISE_SOURCES["gaussian"]
    """Where the noise comes from; "none" where there is none."""
    noise: str = "gaussian"
    """"gaussian", rounded to float32, or "discrete_gaussian", on a grid and without rounding."""
    noise_seed: int | None = None
    """At least 0; makes samples and noise reproducible, and so the plan not private."""

    def __post_init__(self) -> None:
        schedule = tuple((step, float(batch)) for step, batch in self.batch_schedule)
        object.__setattr__(self, "batch_schedule", schedule)
        _check(self)
        object.__setattr__(self, "bindings", MappingProxyType(dict(self.bindings)))

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return PrivacyPlan.from_json, (self.to_json(),)

    @property
    def private(self) -> bool:
        """False for an honest run without privacy: no noise, or noise that can be drawn again."""
        return math.isfinite(self.epsilon) and self.noise_seed is None

    @property
    def unprotected(self) -> str:
        """Why nothing is promised; empty where something is."""
        if math.isinf(self.epsilon):
            return "epsilon inf"
        return "reproducible noise" if self.noise_seed is not None else ""

    @property
    def second_accountant(self) -> str:
        """What confirms the plan's figure: PLD, or RDP again where the noise is discrete."""
        return "rdp" if self.noise == "discrete_gaussian" else "pld"

    @property
    def sample_rate(self) -> float:
        """Probability of a unit to be in a step's sample; on a schedule, in the largest."""
        return self.largest_batch / self.units

    @property
    def largest_batch(self) -> float:
        """Expected units of the largest step."""
        return max(batch for _, batch in self.plateaus)

    @property
    def plateaus(self) -> tuple[tuple[int, float], ...]:
        """(steps, expected batch size), one after the other."""
        begins = [(0, self.expected_batch_size), *self.batch_schedule]
        ends = [begin for begin, _ in begins[1:]] + [self.steps]
        return tuple((end - begin, batch) for (begin, batch), end in zip(begins, ends))

    def batch_at(self, step: int) -> float:
        """Expected batch size of a step, counted from 0."""
        passed = [batch for begin, batch in self.batch_schedule if begin <= step]
        return passed[-1] if passed else self.expected_batch_size

    def rate_at(self, step: int) -> float:
        """Probability of a unit to be in the sample of a step, counted from 0."""
        return self.batch_at(step) / self.units

    @property
    def digest(self) -> str:
        """Identity of the plan, over every field."""
        return digest(self._fields())

    def composition(
        self, steps: int | None = None, *, noise_multiplier: float | None = None
    ) -> Composition:
        """What the accountants see after `steps` (all of them by default).

        More steps than planned, as when some were drawn again, count as steps of the largest
        batch. `noise_multiplier` asks about other noise.
        """
        sigma = self.noise_multiplier if noise_multiplier is None else noise_multiplier
        left = self.steps if steps is None else steps
        parts = [*self.plateaus, (max(0, left - self.steps), self.largest_batch)]
        found = []
        for length, batch in parts:
            taken = min(length, left)
            left -= taken
            part = SampledGaussian(
                sigma,
                batch / self.units,
                taken,
                largest=self.max_batch_size,
                units=self.units if self.max_batch_size else None,
                discrete=self.noise == "discrete_gaussian",
            )
            found.append(part)
        return tuple(part for part in found if part.steps)

    def largest_step(self) -> SampledGaussian:
        """One step of the largest batch: what a step that is drawn again costs at most."""
        return self.composition(self.steps + 1)[-1]

    def epsilon_spent(self, steps: int) -> float:
        """Epsilon after `steps` by the plan's accountant, at the plan's delta.

        Half a second for a new number of steps (answers are remembered): a loop logs it now and
        then, not every step. Where PRV fails on a short prefix the figure is PLD's.
        """
        return self._figure(self.accountant, self.composition(steps))

    def check(self) -> AccountantTable:
        """Compare the accountants on the whole plan.

        Raises UserError when PRV and PLD disagree by more than 2 % (at least 0.005, at most 0.1),
        or when the plan's own figure or RDP's is below PLD's by more than that: the claim rests on
        a number that a second implementation does not confirm. For discrete noise PRV and PLD are
        those of continuous noise of the same size: no bounds then, but close to the truth.
        """
        if not self.private:
            return AccountantTable(prv=math.inf, pld=math.inf, rdp=math.inf, claimed=math.inf)
        whole = self.composition()
        continuous = tuple(replace(part, discrete=False) for part in whole)
        pld = epsilon_of("pld", continuous, self.delta)
        rdp = _figure_or_none("rdp", whole, self.delta)
        prv = _figure_or_none("prv", continuous, self.delta)
        claimed = self._figure(self.accountant, whole)
        tolerance = min(max(0.02 * pld, 0.005), 0.1)
        if prv is not None and abs(prv - pld) > tolerance:
            raise UserError(
                f"accountants PRV {prv:.4f} and PLD {pld:.4f}",
                f"they must agree within {tolerance:.4f} before a plan is trusted",
                'use accountant "rdp", or change steps or expected_batch_size a little',
            )
        for name, figure in (("claimed epsilon", claimed), ("RDP's epsilon", rdp)):
            if figure is not None and figure < pld - tolerance:
                raise UserError(
                    f"{name} {figure:.4f}",
                    f"it must not be below PLD's {pld:.4f} by more than {tolerance:.4f}",
                    'use accountant "pld", or change steps or expected_batch_size a little',
                )
        return AccountantTable(prv=prv, pld=pld, rdp=rdp, claimed=claimed)

    def to_json(self) -> dict[str, Any]:
        """JSON object with derived numbers and the digest; `inf` is written "inf"."""
        return {**self._fields(), **self._derived(), "digest": self.digest}

    def _derived(self) -> dict[str, Any]:
        """What an auditor needs who knows nothing of schedules."""
        parts = [
            {"steps": steps, "sample_rate": batch / self.units} for steps, batch in self.plateaus
        ]
        return {"sample_rate": self.sample_rate, "plateaus": parts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PrivacyPlan":
        """Inverse of `to_json`. Raises UserError on other keys, values or a wrong digest."""
        names = {entry.name for entry in fields(cls)}
        expected = names | {"schema", "sample_rate", "plateaus", "digest"}
        if set(data) != expected or data["schema"] != SCHEMA:
            odd = sorted(set(data) ^ expected) or [f"schema {data.get('schema')!r}"]
            raise UserError(
                f"plan with {', '.join(odd)}",
                f"a plan has exactly the fields of {SCHEMA}",
                "use the plan.json that the run wrote",
            )
        values = {name: data[name] for name in names}
        for name in ("epsilon", "max_grad_norm"):
            values[name] = math.inf if values[name] == "inf" else values[name]
        plan = cls(**values)
        if plan.to_json() != data:
            raise UserError(
                f"plan {data['digest']}",
                "its fields must hash to its digest",
                "use the plan.json that the run wrote, unedited",
            )
        return plan

    def _fields(self) -> dict[str, Any]:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values["bindings"] = dict(self.bindings)
        values["batch_schedule"] = [list(begin) for begin in self.batch_schedule]
        for name in ("epsilon", "max_grad_norm"):
            values[name] = "inf" if math.isinf(values[name]) else values[name]
        return {"schema": SCHEMA, **values}

    def _figure(self, accountant: str, composition: Composition) -> float:
        if not self.private:
            return math.inf if composition else 0.0
        try:
            return epsilon_of(accountant, composition, self.delta)
        except AccountantFailure:
            if accountant == "pld":
                raise
            return epsilon_of("pld", composition, self.delta)


def _figure_or_none(accountant: str, composition: Composition, delta: float) -> float | None:
    try:
        return epsilon_of(accountant, composition, delta)
    except AccountantFailure:
        return None


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
    scope: str = "source corpus",
    bindings: Mapping[str, str | int | float | None] | None = None,
    adjacency: str = "add or remove",
    noise: str = "gaussian",
    noise_seed: int | None = None,
) -> PrivacyPlan:
    """Plan whose noise is the least that keeps epsilon at or below the target.

    The noise is calibrated with `accountant` and raised, if need be, until PLD agrees that the
    target holds. Where PRV cannot be computed a warning says so and the plan is accounted with
    PLD. `batch_schedule` maps a step to the expected batch size from there on: plateaus, as each
    different rate costs the accountant. `max_batch_size` cuts samples, and needs accountant
    "pld". `epsilon=inf` makes an honest plan without noise. `noise="discrete_gaussian"` needs
    `accountant="rdp"`, the only one that bounds it. With a `noise_seed` the noise is as large but
    can be drawn again, so the plan is not private.

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
        epsilon=_number("epsilon", epsilon),
        delta=_number("delta", delta),
        units=units,
        unit=unit,
        expected_batch_size=_number("expected_batch_size", expected_batch_size),
        steps=steps,
        max_grad_norm=_number("max_grad_norm", max_grad_norm),
        accountant=accountant,
        batch_schedule=tuple(sorted((batch_schedule or {}).items())),
        max_batch_size=max_batch_size,
        sampler=SAMPLER if max_batch_size is None else TRUNCATED,
        noise_multiplier=0.0 if epsilon == math.inf else 1.0,
        scope=scope,
        bindings=bindings or {},
        noise_source=noise_source_of(epsilon, noise, noise_seed),
        noise=noise,
        noise_seed=noise_seed,
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
    values = {entry.name: getattr(plan, entry.name) for entry in fields(plan)}
    plan = PrivacyPlan(**{**values, "noise_multiplier": sigma, "accountant": accountant})
    plan.check()
    return plan


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


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise UserError(f"{name} {value!r}", "it must be a number", f"give {name} as a number")
    return float(value)


def _check(plan: PrivacyPlan) -> None:
    """Every rule a plan can break by itself, in the order of its fields."""
    for name in ("epsilon", "delta", "expected_batch_size", "max_grad_norm", "noise_multiplier"):
        _number(name, getattr(plan, name))
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
    _check_batches(plan)
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
    _one_of("accountant", plan.accountant, ACCOUNTANTS)
    _one_of("sampler", plan.sampler, (SAMPLER if plan.max_batch_size is None else TRUNCATED,))
    _one_of("noise", plan.noise, NOISES)
    refuse_noise(plan.noise, plan.accountant, plan.noise_seed)
    source = noise_source_of(plan.epsilon, plan.noise, plan.noise_seed)
    _one_of("noise_source", plan.noise_source, (source,))
    for key, value in plan.bindings.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float | None):
            raise UserError(f"binding {key!r}", "it must be text, a number or null", "mend it")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"binding {key!r}", "its number must be finite", "write it as text")


def _check_batches(plan: PrivacyPlan) -> None:
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
        _number("expected_batch_size", batch)
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


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(
            f"{name} {value!r}", f"it must be one of {', '.join(allowed)}", f"choose a {name}"
        )


def _power_below(value: float) -> float:
    return float(10.0 ** math.floor(math.log10(value)))
