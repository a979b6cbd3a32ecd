"""`PrivacyPlan`: what a run promises, fixed before its first batch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from dpmlm.canonical import digest
from dpmlm.errors import UserError
from dpmlm.privacy.accountants import (
    AccountantFailure,
    Composition,
    SampledGaussian,
    epsilon_of,
)
from dpmlm.privacy.noise import NOISE_SOURCES
from dpmlm.privacy.rules import check_plan
from dpmlm.privacy.sampling import POISSON

SCHEMA = "dpmlm.plan/1"


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
    standard deviation `noise_multiplier * max_grad_norm` to the sum (Abadi et al. 2016). With
    `bands` above 1: if each step draws so from one group of units in turn, and the noise is
    correlated by `coefficients` (Choquette-Choo et al. 2023).
    """

    epsilon: float
    """Target; every accountant consulted stays at or below it. `inf`: no promise."""
    delta: float
    """In (0, 1/units)."""
    units: int
    """Public upper constant of the corpus, canaries included; never counted from private text."""
    unit: str
    """What is protected: "document", "person", or "sequence", a row of tokens."""
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
    """Corpus that the promise is about: "source corpus", "deduplicated corpus", or, of unit
    "sequence", the sequences that text was cut into."""
    bindings: Mapping[str, str | int | float | None] = field(default_factory=dict)
    """Settings of the run that the promise depends on, such as masked_slots and window."""
    batch_schedule: tuple[tuple[int, float], ...] = ()
    """(step, expected batch size from that step on), ascending from above 0; empty: constant."""
    max_batch_size: int | None = None
    """Units that a sample is cut to; None takes it as it falls."""
    sampler: str = POISSON
    """How units are drawn: "Poisson", "truncated Poisson" with `max_batch_size`, "cyclic Poisson"
    with `bands`."""
    noise_source: str = NOISE_SOURCES["gaussian"]
    """Where the noise comes from; "none" where there is none."""
    noise: str = "gaussian"
    """"gaussian", rounded to float32, or "discrete_gaussian", on a grid and without rounding."""
    noise_seed: int | None = None
    """At least 0; makes samples and noise reproducible, and so the plan not private."""
    bands: int = 1
    """Steps over which noise is correlated, and groups of units that take turns; 1: each step's
    noise alone."""
    coefficients: tuple[float, ...] = (1.0,)
    """First column of the matrix that correlates it (`bands.py`): `bands` numbers, norm 1."""

    def __post_init__(self) -> None:
        schedule = tuple((step, float(batch)) for step, batch in self.batch_schedule)
        object.__setattr__(self, "batch_schedule", schedule)
        object.__setattr__(self, "coefficients", tuple(self.coefficients))
        check_plan(self)
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
        """Probability of a unit whose turn it is to be in the sample of a step, counted from 0."""
        return self.batch_at(step) * self.bands / self.units

    @property
    def digest(self) -> str:
        """Identity of the plan, over every field."""
        return digest(self._fields())

    def composition(
        self, steps: int | None = None, *, noise_multiplier: float | None = None
    ) -> Composition:
        """What the accountants see after `steps` (all of them by default).

        Of `bands` steps one touches a unit, at `bands` times the rate. More steps than planned, as
        when some were drawn again, count as steps of the largest batch that touch everybody.
        `noise_multiplier` asks about other noise.
        """
        sigma = self.noise_multiplier if noise_multiplier is None else noise_multiplier
        left = self.steps if steps is None else steps
        turns = [(*plateau, self.bands) for plateau in self.plateaus]
        again = (max(0, left - self.steps), self.largest_batch, 1)
        found = []
        for length, batch, groups in (*turns, again):
            taken = min(length, left)
            left -= taken
            part = SampledGaussian(
                sigma,
                batch * self.bands / self.units,
                math.ceil(taken / groups),
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
        values["coefficients"] = list(self.coefficients)
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
