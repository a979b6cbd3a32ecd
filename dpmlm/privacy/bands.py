"""Correlated noise: banded matrix factorisation (Choquette-Choo et al. 2023, arXiv 2306.08153).

A step's noise takes back part of what the steps before it added, so that the sum over all steps,
which is what the weights are, carries less. With C lower triangular, Toeplitz, with b = `bands`
diagonals c_0 .. c_{b-1} and columns of norm at most 1, the mechanism releases the clipped sums plus
C^-1 Z, Z of independent normals of noise_multiplier * max_grad_norm. A unit takes part in every
b-th step at most (`sampling.py`), its columns are then orthogonal, and the run is accounted for as
DP-SGD of ceil(steps / b) steps at b times the rate.

**An attempt that resumes begins a new chain.** C is then block-diagonal and its columns no longer,
so the account stands; and no checkpoint holds noise, which would be a secret as long as the weights
it went into. Steps drawn again after a crash are billed whole, not in b-ths (`plan.composition`).
"""

import math
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]


@lru_cache(maxsize=64)
def band_coefficients(bands: int, steps: int) -> tuple[float, ...]:
    """c_0 .. c_{bands-1} of norm 1 with the least mean squared error on all sums of `steps` steps.

    Minimised numerically by L-BFGS over b - 1 numbers, from the truncated series of
    (1 - x)^(-1/2), the square root of the sums' own matrix; a second's work for thousands of steps.
    """
    from scipy.optimize import minimize

    if bands == 1:
        return (1.0,)
    root = np.cumprod([1.0, *((k - 0.5) / k for k in range(1, bands))])
    found = minimize(
        lambda tail: _log_error(tail, steps),
        root[1:],
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500},
    )
    best = np.array([1.0, *found.x])
    return tuple(float(value) for value in best / np.linalg.norm(best))


def error_of_sums(coefficients: Sequence[float], steps: int) -> float:
    """Root mean square, over the sums after 1 .. `steps` steps, of the standard deviation of their
    noise; 1 stands for noise_multiplier * max_grad_norm. Independent noise: sqrt((steps + 1) / 2).
    """
    summed = np.cumsum(_inverse(np.asarray(coefficients), steps))
    return math.sqrt(float(np.arange(steps, 0, -1) @ summed**2) / steps)


def error_of_steps(coefficients: Sequence[float], steps: int) -> float:
    """Root mean square, over `steps` steps, of the standard deviation of a step's own noise; 1
    stands for noise_multiplier * max_grad_norm, as of independent noise."""
    column = _inverse(np.asarray(coefficients), steps)
    return math.sqrt(float(np.arange(steps, 0, -1) @ column**2) / steps)


class BandedNoise:
    """Turns each step's independent normals into the noise of that step."""

    def __init__(self, coefficients: Sequence[float]) -> None:
        self._first, *self._rest = coefficients
        self._past: dict[str, deque[Tensor]] = {}

    def correlate(self, fresh: "Tensor", label: str) -> "Tensor":
        """The noise y_t with c_0 y_t + c_1 y_(t-1) + ... = z_t, where z_t = `fresh`, float32.

        One call a step and `label`, in order. `fresh` is overwritten, returned and kept: of each
        label the last bands - 1 are held, on its device.
        """
        past = self._past.setdefault(label, deque(maxlen=len(self._rest)))
        for weight, earlier in zip(self._rest, past):
            fresh.sub_(earlier, alpha=weight)
        fresh.div_(self._first)
        past.appendleft(fresh)
        return fresh


def _inverse(coefficients: Floats, steps: int, of: Floats | None = None) -> Floats:
    """First column of C^-1, or C^-1 times `of`; float64 [steps]."""
    from scipy.signal import lfilter

    if of is None:
        of = np.zeros(steps)
        of[0] = 1.0
    return np.asarray(lfilter([1.0], coefficients, of))


def _log_error(tail: Floats, steps: int) -> tuple[float, Any]:
    """ln(squared error of the sums * squared norm of c) at c = (1, *tail), and its gradient.

    The product does not change with the length of c, so that c_0 = 1 takes nothing away.
    """
    c = np.array([1.0, *tail])
    weights = np.arange(steps, 0, -1.0)
    with np.errstate(all="ignore"):
        column = _inverse(c, steps)
        summed = np.cumsum(column)
        error = float(weights @ summed**2)
        if not math.isfinite(error):  # a root of c inside the unit circle
            return 1e6, np.zeros_like(tail)
        # d summed / d c_k is minus C^-1 summed, k steps later.
        moved = _inverse(c, steps, summed)
        slopes = np.array(
            [-2 * float((weights * summed)[k:] @ moved[: steps - k]) for k in range(1, len(c))]
        )
    norm = float(c @ c)
    return math.log(error) + math.log(norm), slopes / error + 2 * tail / norm
