"""Epsilon of composed Poisson-subsampled Gaussian mechanisms, three ways behind one function.

* `prv`: numerical composition of privacy loss random variables (Gopi, Lee, Wutschitz 2021,
  arXiv 2106.02848) with the classes of Opacus. Opacus composes the direction "a unit is removed"
  alone; `_AddedUnit` is the other direction, and the larger epsilon of both is returned.
* `pld`: privacy loss distributions of dp-accounting, pessimistic estimate, both directions.
* `rdp`: Renyi DP (Mironov, Talwar, Zhang 2019, arXiv 1908.10530), looser, always quick.

Samples that are cut to a largest size are bounded by `pld` alone (arXiv 2508.15089). All three
bound the same adjacency: one unit added or removed.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

ORDERS: tuple[float, ...] = (
    *(1 + step / 20 for step in range(1, 20)),
    *(2 + step / 5 for step in range(20)),
    *(float(order) for order in (*range(6, 33), 36, 40, 48, 56, 64, 80, 96, 128, 192, 256, 512)),
)
"""Renyi orders tried by `rdp`; the filter of a ledger fixes one order of its own."""
WHOLE_ORDERS = tuple(order for order in ORDERS if order.is_integer())
"""Those of a bound that is only to begin from: a fractional order takes a hundred times as long."""

_FINEST_INTERVAL, _WIDEST_INTERVAL = 1e-4, 1e-3
"""Grids of privacy losses that `pld` computes on."""


class AccountantFailure(ArithmeticError):
    """The accountant gave no number that can be trusted at these parameters."""


@dataclass(frozen=True)
class SampledGaussian:
    """`steps` releases, each a Poisson sample's clipped sum plus Gaussian noise."""

    noise_multiplier: float
    """Standard deviation of the noise over the clipping norm; above 0."""
    sample_rate: float
    """Probability of each unit to be in a step's sample; in (0, 1]."""
    steps: int
    """Number of releases; 0 releases nothing."""
    largest: int | None = None
    """A larger sample is cut to so many units at random; None takes it as it falls."""
    units: int | None = None
    """With `largest`: a bound on the corpus, as one more unit pushes others out."""
    discrete: bool = False
    """Noise of whole numbers on sums of whole numbers; RDP at whole orders alone bounds it."""


Composition = tuple[SampledGaussian, ...]
"""One mechanism after the other, all parameters fixed beforehand."""


class _AddedUnit:
    """Privacy loss ln(Q/P) under Q = N(0, s^2), where P = (1-q) N(0, s^2) + q N(1, s^2).

    With z = ln((e^-t - 1 + q) / q) the loss is at most t when x >= s^2 z + 1/2, hence
    cdf(t) = Phi(-(s^2 z + 1/2) / s), and the loss never exceeds -ln(1-q).
    """

    def __init__(self, sample_rate: float, noise_multiplier: float) -> None:
        self.sample_rate, self.noise_multiplier = sample_rate, noise_multiplier

    def cdf(self, t: Any) -> NDArray[np.float64]:
        from scipy.special import ndtr

        q, s = self.sample_rate, self.noise_multiplier
        above = np.maximum(np.exp(-np.asarray(t, dtype=np.float64)) - 1 + q, 0.0)
        return np.asarray(ndtr(-(s * np.log(above / q) + 0.5 / s)), dtype=np.float64)


def _prv_once(composition: Composition, delta: float, eps_error: float) -> float:
    from opacus.accountants.analysis import prv as opacus_prv

    steps = [mechanism.steps for mechanism in composition]
    delta_error = delta / 1000
    removed: list[Any] = [
        opacus_prv.PoissonSubsampledGaussianPRV(m.sample_rate, m.noise_multiplier)
        for m in composition
    ]
    added = [_AddedUnit(m.sample_rate, m.noise_multiplier) for m in composition]
    edge = _safe_domain(composition, eps_error, delta_error)
    mesh = eps_error / math.sqrt(sum(steps) * math.log(12 / delta_error) / 2)
    if edge > 700 or edge / mesh > 3e7:
        raise AccountantFailure(f"a domain of +-{edge:.3g} at mesh {mesh:.2g} cannot be computed")
    domain = opacus_prv.Domain.create_aligned(-edge, edge, mesh)
    worst = 0.0
    for losses in (removed, added):
        cut = [
            opacus_prv.TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max)
            for loss in losses
        ]
        composed = opacus_prv.compose_heterogeneous(
            [opacus_prv.discretize(loss, domain) for loss in cut], steps
        )
        worst = max(worst, float(composed.compute_epsilon(delta, delta_error, eps_error)[2]))
    return worst


def _safe_domain(composition: Composition, eps_error: float, delta_error: float) -> float:
    """Largest privacy loss that need be told apart (arXiv 2106.02848, remark 5.6).

    The bounds are Renyi bounds, which hold for both directions (Mironov et al. 2019, theorem 5).
    """
    steps = sum(mechanism.steps for mechanism in composition)
    whole = rough_epsilon(composition, delta_error / 4)
    each = (
        rough_epsilon((replace(mechanism, steps=1),), delta_error / (8 * steps))
        for mechanism in composition
    )
    return max(whole, *each, eps_error) + 3


def _prv(composition: Composition, delta: float) -> float:
    """Upper bound of the PRV accountant; retried on finer meshes, since coarse ones can fail.

    The mesh error is a hundredth of an upper estimate of epsilon, between 0.001 and 0.01.
    """
    ceiling = rough_epsilon(composition, delta)
    first = min(max(ceiling / 500, 0.001), 0.01)
    reason = "no attempt"
    for eps_error in (first, first / 2, first / 4):
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                value = _prv_once(composition, delta, eps_error)
        except (RuntimeError, ValueError, FloatingPointError, IndexError, OverflowError) as error:
            reason = str(error) or type(error).__name__
            continue
        # RDP is an upper bound too: a larger or a missing number is a numerical accident.
        if 0 < value <= ceiling * 1.01 + 2 * eps_error:
            return value
        reason = f"epsilon {value:.4g} where RDP proves {ceiling:.4g}"
    raise AccountantFailure(reason)


def _pld(composition: Composition, delta: float) -> float:
    interval = _pld_interval(composition, delta)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        parts = [_losses(mechanism, interval) for mechanism in composition]
        # By pairs: each sum is of two of like size, and no distribution is convolved often.
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2])
            parts = [a.compose(b) for a, b in pairs] + parts[len(parts) & ~1 :]
        value = float(parts[0].get_epsilon_for_delta(delta))
    if math.isnan(value):
        raise AccountantFailure("PLD gave no number")
    return value


def _pld_interval(composition: Composition, delta: float) -> float:
    """Grid of losses whose rounding adds at most about two ten-thousandths of epsilon.

    Rounding is upwards on any grid, and adds at most 1.6 steps interval^2 to epsilon (measured);
    the time that a grid takes grows with 1 / interval. One of eight grids, so that the curves of a
    report, which ask for many deltas and numbers of steps, share what one step loses.
    """
    uncut = tuple(replace(mechanism, largest=None) for mechanism in composition)
    try:
        epsilon = rough_epsilon(uncut, delta)
    except AccountantFailure:
        return _FINEST_INTERVAL
    steps = sum(mechanism.steps for mechanism in composition)
    fitting = math.sqrt(1e-4 * epsilon / (1.6 * steps))
    if not fitting > _FINEST_INTERVAL:  # at large deltas RDP proves an epsilon of 0
        return _FINEST_INTERVAL
    steps_down = max(0, math.floor(2 * math.log2(_WIDEST_INTERVAL / fitting)))
    return float(_WIDEST_INTERVAL / math.sqrt(2) ** steps_down)


def _losses(mechanism: SampledGaussian, interval: float) -> Any:
    """Privacy loss distribution of all steps of one mechanism."""
    return _losses_of_a_step(replace(mechanism, steps=1), interval).self_compose(mechanism.steps)


@lru_cache(maxsize=32)
def _losses_of_a_step(mechanism: SampledGaussian, interval: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    if mechanism.largest is None:
        return pld.from_gaussian_mechanism(
            mechanism.noise_multiplier,
            sampling_prob=mechanism.sample_rate,
            value_discretization_interval=interval,
            pessimistic_estimate=True,
        )
    return pld.from_truncated_subsampled_gaussian_mechanism(
        dataset_size=mechanism.units,
        sampling_probability=mechanism.sample_rate,
        truncated_batch_size=mechanism.largest,
        noise_multiplier=mechanism.noise_multiplier,
        value_discretization_interval=interval,
    )


def _rdp(composition: Composition, delta: float) -> float:
    """The least over all orders, of which only those near the best whole one are computed."""
    whole = _rdp_by_order(composition, delta, WHOLE_ORDERS)
    best = min(whole, key=whole.__getitem__, default=WHOLE_ORDERS[0])
    low = max((order for order in whole if order < best), default=1.0)
    high = min((order for order in whole if order > best), default=best + 1)
    near = [order for order in ORDERS if low < order < high and not order.is_integer()]
    return _least({**whole, **_rdp_by_order(composition, delta, near)})


def _rdp_by_order(
    composition: Composition, delta: float, orders: Sequence[float]
) -> dict[float, float]:
    """Epsilon at rising `orders` that give a number, up to the first where it grows.

    With x = order - 1 the bound is (K(x) + c(x)) / x, where K, x times the divergence, is convex
    (a cumulant function), and c'' = 1 / (x (1 + x)): so it falls to its least and then grows
    (of discrete noise, at whole orders). Each order is a bound, whichever are left out.
    """
    found: dict[float, float] = {}
    last = math.inf
    for order in orders:
        try:
            divergence = renyi_divergence(composition, order)
        except AccountantFailure:
            continue
        found[order] = max(renyi_to_epsilon(divergence, order, delta), 0.0)
        if found[order] > last:
            break
        last = found[order]
    return found


def _least(by_order: dict[float, float]) -> float:
    least = min(by_order.values(), default=math.inf)
    if not math.isfinite(least):
        raise AccountantFailure("RDP is infinite at every order")
    return least


@lru_cache(maxsize=4096)
def rough_epsilon(composition: Composition, delta: float) -> float:
    """An upper bound like that of "rdp", a little larger, in a hundredth of the time."""
    return _least(_rdp_by_order(composition, delta, WHOLE_ORDERS))


def renyi_divergence(mechanisms: SampledGaussian | Composition, order: float) -> float:
    """Renyi divergence of `order` of all steps together (additive over adaptive steps).

    Mironov, Talwar, Zhang 2019, section 3.3, computed by Opacus. Raises AccountantFailure where
    the series for a fractional order cannot be summed. Discrete noise has this divergence at
    whole orders from 2 on, exactly (`grid.py` says why); others are rounded up, which is safe
    since divergence grows with its order.
    """
    parts = mechanisms if isinstance(mechanisms, tuple) else (mechanisms,)
    return sum(_divergence(part, order) for part in parts)


def _divergence(mechanism: SampledGaussian, order: float) -> float:
    if mechanism.steps == 0:
        return 0.0
    from opacus.accountants.analysis.rdp import compute_rdp

    if mechanism.largest is not None:
        raise AccountantFailure("a sample that is cut to a largest size has no Renyi bound")
    if mechanism.discrete:
        order = max(2, math.ceil(order))
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            value = compute_rdp(
                q=mechanism.sample_rate,
                noise_multiplier=mechanism.noise_multiplier,
                steps=mechanism.steps,
                orders=float(order),
            )
    except (ValueError, ArithmeticError) as error:
        raise AccountantFailure(str(error)) from error
    divergence = float(value)
    if math.isnan(divergence) or divergence < 0:
        raise AccountantFailure(f"no Renyi divergence at order {order}")
    return divergence


def renyi_to_epsilon(divergence: float, order: float, delta: float) -> float:
    """Epsilon of (order, divergence)-RDP at `delta` (Balle et al. 2020, theorem 21)."""
    return (
        divergence
        - (math.log(delta) + math.log(order)) / (order - 1)
        + math.log((order - 1) / order)
    )


_METHODS: dict[str, tuple[Callable[[Composition, float], float], str]] = {
    "prv": (_prv, "opacus"),
    "pld": (_pld, "dp-accounting"),
    "rdp": (_rdp, "opacus"),
}
ACCOUNTANTS: tuple[str, ...] = tuple(_METHODS)
"""Names that `epsilon_of` knows."""


@lru_cache(maxsize=4096)
def epsilon_of(accountant: str, mechanisms: SampledGaussian | Composition, delta: float) -> float:
    """Upper bound of epsilon at `delta` for one unit added or removed.

    `accountant` is one of `ACCOUNTANTS`. A few hundred steps cost about half a second with `prv`
    or `pld`; answers are remembered. Raises AccountantFailure when there is no trustworthy number.
    """
    whole = mechanisms if isinstance(mechanisms, tuple) else (mechanisms,)
    whole = tuple(mechanism for mechanism in whole if mechanism.steps)
    if not whole:
        return 0.0
    if any(mechanism.noise_multiplier == 0 for mechanism in whole):
        return math.inf
    if accountant != "rdp" and any(mechanism.discrete for mechanism in whole):
        raise AccountantFailure(f"{accountant.upper()} does not bound discrete noise")
    return _METHODS[accountant][0](whole, delta)


def describe(accountant: str) -> str:
    """Name and version as a statement prints them, `PRV (opacus 1.6.0)`."""
    package = _METHODS[accountant][1]
    return f"{accountant.upper()} ({package} {version(package)})"
