"""What an observer of every release tells about one unit, measured on the trainer itself.

Two neighbouring corpora differ by one unit whose gradient is longer than the clipping norm. Both
are trained many times by `dpmlm.training.train`; the releases are read off the weights, and a
fixed event {log-likelihood ratio > epsilon} is counted. Whatever the event, its probabilities P
and Q under the two corpora obey P - e^epsilon Q <= delta if the claim holds.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from dp_accounting.pld import privacy_loss_distribution
from scipy import stats
from small_training import Charges, a_model, a_plan, a_recipe

from dpmlm.masking import Example, MaskingSpec
from dpmlm.privacy import PrivacyPlan, band_coefficients, groups_of
from dpmlm.training import loop, train
from dpmlm.training.units import View

EPSILON = 1.0
MOVE = 1e-4
"""Standard deviation of a weight's movement in a step: large against float32 rounding of a weight
near 1 (6e-8), small enough that the gradients of later steps are those of the first weights."""


class Unrecorded:
    """Checkpoints of a run that nobody resumes."""

    def load(self, model, optimizer):
        return None

    def take_up(self):
        return None

    def prepare(self, model, optimizer, progress):
        return lambda: None


class Rows:
    """Units of given rows; counts how often each was drawn."""

    def __init__(self, units: Sequence[Sequence[Example]]):
        self._units = units
        self.names = [f"u{index}" for index in range(len(units))]
        self.drawn = np.zeros(len(units), dtype=int)

    def views(self, index, step, count):
        self.drawn[index] += 1
        return [View(example, step) for example in self._units[index]]


@dataclass(frozen=True)
class World:
    """A plan and two corpora: `others`, and the same with `unit` at the end."""

    plan: PrivacyPlan
    unit: list[Example]
    others: list[list[Example]]

    @property
    def std(self) -> float:
        return self.plan.noise_multiplier * self.plan.max_grad_norm


def alike(name: str, token: int, length: int) -> Example:
    """One token repeated: the gradients of such texts point the same way."""
    return Example(name, np.full(length, token))


def all_drawn() -> World:
    """Rate 1, one step, sigma 1. The unit has three rows of many masks, beside it stand eight
    units of one mask. The bound is below every unit's norm, and near that of a unit whose loss is
    divided by the masks of the whole batch."""
    plan = a_plan(
        units=9, expected_batch_size=9.0, steps=1, noise_multiplier=1.0, max_grad_norm=1.75
    )
    unit = [alike(f"unit {row}", 30, 14) for row in range(3)]
    return World(plan, unit, [[alike(f"other {index}", 7, 3)] for index in range(8)])


def half_drawn() -> World:
    """Rate 1/2, three steps, sigma 1; nobody else is there."""
    plan = a_plan(
        units=2, expected_batch_size=1.0, steps=3, noise_multiplier=1.0, max_grad_norm=0.1
    )
    return World(plan, [alike("unit", 30, 14)], [])


def taking_turns() -> World:
    """Four bands, so that the unit may be drawn in two of eight steps, with probability 0.8; its
    noise is correlated, sigma 1.5; nobody else is there."""
    plan = a_plan(
        units=5, expected_batch_size=1.0, steps=8, noise_multiplier=1.5, max_grad_norm=0.1,
        bands=4, coefficients=band_coefficients(4, 8), sampler="cyclic Poisson",
    )  # fmt: skip
    return World(plan, [alike("unit", 30, 14)], [])


def correlation(plan: PrivacyPlan) -> np.ndarray:
    """float64 [steps, steps]: the matrix that turns a run's noise back into independent normals."""
    found = np.zeros((plan.steps, plan.steps))
    for place, weight in enumerate(plan.coefficients):
        found += weight * np.eye(plan.steps, k=-place)
    return found


class Observer:
    """Trains a small model again and again from the same weights.

    Real: `train` with its loop and step, `PoissonSampler`, `SecretStream` under a key of the
    operating system, `clip_and_sum`, `SecureDPOptimizer`. Replaced: AdamW by SGD at a constant
    rate, so that a movement is the noisy sum; checkpoints and ledger by none; the check of the
    model, which says the same of one model every time, by its first answer.
    """

    def __init__(self, monkeypatch):
        self.model = a_model().eval()
        self._start = [p.detach().clone() for p in self.model.parameters()]
        self.sizes = [p.numel() for p in self._start]
        self.recipe = a_recipe(masking=MaskingSpec("token", 0.4, 1.0, 0.0), checkpoint_minutes=1e9)
        checked = loop.refuse_inexact(self.model, self.recipe.table.vocab_size, window=16)
        answer = SimpleNamespace(padding_matters=checked.padding_matters)
        monkeypatch.setattr(loop, "refuse_inexact", lambda *_, **__: answer)
        monkeypatch.setattr(
            loop, "adamw", lambda model, lr, decay: torch.optim.SGD(model.parameters(), lr=lr)
        )
        monkeypatch.setattr(loop, "learning_rate_at", lambda *_, **__: self._rate)
        self._rate = 0.0

    def releases(self, units: Rows, plan: PrivacyPlan) -> np.ndarray:
        """float64 [steps, weights]: the noisy sum of every step of one training."""
        self._rewind()
        step_size = MOVE / (plan.noise_multiplier * plan.max_grad_norm)
        self._rate = step_size * plan.expected_batch_size
        seen = [self._weights()]
        train(
            self.model, units, plan, self.recipe, charges=Charges(), checkpoints=Unrecorded(),
            report=lambda done, total: seen.append(self._weights()),
        )  # fmt: skip
        return (torch.stack(seen[:-1]) - torch.stack(seen[1:])).numpy() / step_size

    def clipped_sum(self, units: Sequence[Sequence[Example]], step: int, bound: float):
        """float64 [weights]: what the loop's `clip_and_sum` leaves, without noise, at the start."""
        self._rewind()
        self.model.zero_grad(set_to_none=True)
        if units:
            views = [[View(example, step) for example in unit] for unit in units]
            loop.clip_and_sum(self.model, self.recipe.batch(views), bound)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.model.parameters()]
        return torch.cat([grad.flatten() for grad in grads]).double().numpy()

    def _weights(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()]).double()

    def _rewind(self) -> None:
        with torch.no_grad():
            for param, start in zip(self.model.parameters(), self._start):
                param.copy_(start)


@dataclass(frozen=True)
class Suspect:
    """A mechanism for which an event is the most telling; the planned one, or a faulty one."""

    noise: float = 1.0
    """Its noise, as a multiple of the planned."""
    rate: float = 1.0
    """Its sampling rate, as a multiple of the planned."""
    always: bool = False
    """Whether it draws a unit in any step, whosever turn it is."""


SUSPECTS = (Suspect(), Suspect(noise=0.5), Suspect(rate=2.0))


def suspects(plan: PrivacyPlan) -> tuple[Suspect, ...]:
    """Mechanisms whose most telling events are tried."""
    return SUSPECTS if plan.bands == 1 else (*SUSPECTS, Suspect(always=True))


@dataclass(frozen=True)
class Seen:
    """What the observer keeps of `runs` trainings under each corpus."""

    world: World
    lengths: np.ndarray
    """[steps]: how far the unit moves the clipped sum."""
    present: np.ndarray
    """[runs, steps]: releases of the corpus with the unit, along that movement, in noise stds."""
    absent: np.ndarray
    """The same of the corpus without it."""
    inclusions: int
    """How often the unit was drawn."""
    turns: np.ndarray
    """Steps in which the unit may be drawn."""

    def ratios(self, releases: np.ndarray, suspect: Suspect) -> np.ndarray:
        """[runs]: log-likelihood ratio of present to absent under the suspected mechanism."""
        std, length = suspect.noise * self.world.std, self.lengths
        rate = min(1.0, self.world.plan.rate_at(0) * suspect.rate)
        turns = np.ones_like(self.turns) if suspect.always else self.turns
        # In the releases, their noise made independent, a draw at a step adds that step's column.
        matrix = correlation(self.world.plan)
        total = np.full(len(releases), -np.inf)
        for drawn in itertools.product([0.0, 1.0], repeat=int(turns.sum())):
            pattern = np.zeros(len(turns))
            pattern[turns] = drawn
            moved = matrix @ (pattern * length)
            chance = math.prod(rate if one else 1 - rate for one in drawn)
            if chance:
                ratio = (releases @ matrix.T @ moved - moved @ moved / 2) / std**2
                total = np.logaddexp(total, math.log(chance) + ratio)
        return total


def observe(observer: Observer, world: World, runs: int) -> Seen:
    """Train `runs` times with the unit and `runs` times without it."""
    bound, steps = world.plan.max_grad_norm, range(world.plan.steps)
    base = np.stack([observer.clipped_sum(world.others, step, bound) for step in steps])
    both = [*world.others, world.unit]
    moved = np.stack([observer.clipped_sum(both, step, bound) for step in steps]) - base
    if world.plan.sample_rate < 1:
        assert not world.others, "a mixture over the others' samples has another ratio"
    lengths = np.linalg.norm(moved, axis=1)
    directions = moved / lengths[:, None]
    found, rows = [], Rows(both)
    for units in (rows, Rows(world.others)):
        along = [
            ((observer.releases(units, world.plan) - base) * directions).sum(1) for _ in range(runs)
        ]
        found.append(np.stack(along))
    group = groups_of(rows.names[-1:], world.plan.bands, observer.recipe.mask_seed)[0]
    turns = np.arange(world.plan.steps) % world.plan.bands == group
    return Seen(world, lengths, found[0], found[1], int(rows.drawn[-1]), turns)


def least_delta(often: int, seldom: int, runs: int, confidence: float) -> float:
    """Lower bound of P - e^EPSILON Q from `often` and `seldom` of `runs` (Clopper and Pearson)."""
    error = (1 - confidence) / 2
    low = stats.beta.ppf(error, often, runs - often + 1) if often else 0.0
    high = stats.beta.ppf(1 - error, seldom + 1, runs - seldom) if seldom < runs else 1.0
    return float(low - math.exp(EPSILON) * high)


def delta_shown(seen: Seen, confidence: float = 0.999) -> float:
    """The largest delta that these runs prove at EPSILON, over all suspects and both directions."""
    runs = len(seen.present)
    tried = suspects(seen.world.plan)
    each = 1 - (1 - confidence) / (2 * len(tried))
    shown = []
    for suspect in tried:
        present, absent = (seen.ratios(of, suspect) for of in (seen.present, seen.absent))
        for one, other in ((present, absent), (-absent, -present)):
            often, seldom = int((one > EPSILON).sum()), int((other > EPSILON).sum())
            shown.append(least_delta(often, seldom, runs, each))
    return max(shown)


def claimed_delta(plan: PrivacyPlan) -> float:
    """Delta of the plan at EPSILON, by PLD, the larger of both directions.

    With bands as published (arXiv 2306.08153, theorem 1): fewer steps at a higher rate.
    """
    one_step = privacy_loss_distribution.from_gaussian_mechanism(
        plan.noise_multiplier,
        sampling_prob=plan.bands * plan.sample_rate,
        value_discretization_interval=1e-4,
        pessimistic_estimate=True,
    )
    return float(one_step.self_compose(-(-plan.steps // plan.bands)).get_delta_for_epsilon(EPSILON))
