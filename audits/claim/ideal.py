"""Ideal canaries: what the best attack on one run could score, drawn from the mechanism itself.

An ideal canary's gradient stands at right angles to all others, and the attacker sees its
projection on every noised sum. The score is the log-likelihood ratio of "in" against "out", summed
over steps. No attack on the finished model is stronger, so what is not caught here is not caught
at all. No model is trained: the distribution of the sum is computed, and scores are drawn from it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import ndtr

from audits.claim.gating import check_plan, plateaus
from dpmlm.artifacts import UserError

_CELLS = 10_000
"""Of the projection of one step."""
_PER_DEVIATION = 16
"""Cells of the score in one standard deviation of a step's: its variance grows by 0.1 % at most."""
_MOST_CELLS = 2**18
"""Where a score spans more, canaries in and out are so far apart that no cell matters."""
_TAIL = 1e-14
"""Of the score's distribution: what lies beyond is left out."""
_DRAWN_AT_ONCE = 2_000_000
"""Scores in memory, 8 bytes each."""


@dataclass(frozen=True)
class IdealCanaries:
    """How the scores of canaries in and out of training are distributed."""

    scores: np.ndarray
    """float64 [N], increasing: log-likelihood ratios, nats."""
    inside: np.ndarray
    """float64 [N], probability of each score for a canary that was trained on."""
    outside: np.ndarray
    """float64 [N], of one that was not."""

    def epsilon(self, delta: float) -> float:
        """Of the mechanism, add or remove, at a `delta` of 1e-9 or more (an estimate, no bound)."""
        low, high = 0.0, max(abs(float(self.scores[0])), float(self.scores[-1]), 1e-9)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self._delta(middle) > delta else (low, middle)
        return high

    def _delta(self, epsilon: float) -> float:
        """Hockey-stick divergence, the larger of both directions."""
        gain = -np.expm1(np.minimum(epsilon - self.scores, 0.0))
        loss = -np.expm1(np.minimum(epsilon + self.scores, 0.0))
        return float(max(gain @ self.inside, loss @ self.outside))

    def accuracy(self, share: float) -> float:
        """Expected rate of right guesses when the top `share` is guessed in, the bottom one out."""
        both = (self.inside + self.outside) / 2
        top = _mass_below(both[::-1], self.inside[::-1], share)
        bottom = _mass_below(both, self.outside, share)
        return (top + bottom) / (4 * share)

    def right_guesses(
        self, canaries: int, per_side: int, trials: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Right guesses in each of `trials` runs with fair coins, int64 [trials].

        The `per_side` highest scores are guessed in, the lowest out. Raises UserError when there
        are fewer canaries than guesses.
        """
        if not 1 <= per_side <= canaries // 2:
            raise UserError(
                f"{per_side} guesses a side on {canaries} canaries",
                "at most half of the canaries are guessed a side, and at least one",
                "guess 10 % of the canaries a side",
            )
        sums = [np.cumsum(masses) / masses.sum() for masses in (self.outside, self.inside)]
        rows = max(1, _DRAWN_AT_ONCE // canaries)
        return np.concatenate(
            [
                _right(sums, canaries, per_side, min(rows, trials - done), rng)
                for done in range(0, trials, rows)
            ]
        )


def ideal_canaries(
    plan: Mapping[str, Any], *, noise: float = 1.0, copies: int = 1
) -> IdealCanaries:
    """Of the plan's Poisson-subsampled Gaussian mechanism, with a share `noise` of its noise.

    Score of a step: log sum_k w_k exp((k x - k^2/2)/sigma^2), x the projection of the noised sum in
    units of the clipping norm, w = Bin(copies, q); for one copy log(1 - q + q exp((x - 1/2) /
    sigma^2)). Steps add up: their distribution is the product of Fourier transforms, cells of the
    score split so that each step keeps its mean. With `noise` 0, a canary is known as soon as it
    was drawn once. The largest sample of a plan (`max_batch_size`) is left out: cutting samples
    only makes canaries weaker. Raises UserError on an unfit plan, noise or copies.
    """
    check_plan(plan)
    if not 0 <= noise < math.inf or copies < 1:
        raise UserError(
            f"a share {noise} of the noise, {copies} copies",
            "the share is a number of 0 and more, copies are 1 and more",
            "pass 0.5 for a run with half the noise",
        )
    sigma = float(plan["noise_multiplier"]) * noise
    parts = [(float(part["sample_rate"]), int(part["steps"])) for part in plateaus(plan)]
    if sigma == 0:
        return _without_noise(parts, copies)
    steps = [(_step(sigma, rate, copies), count) for rate, count in parts]
    low, high = _range(steps)
    finest = min(_deviation(step, "outside") for step, _ in steps) / _PER_DEVIATION
    cell = max(finest, (high - low) / _MOST_CELLS)
    # Splitting a score between two cells spreads the sum by half a cell a step at most.
    spread = 4 * math.sqrt(sum(count for _, count in steps))
    first = math.floor(low / cell - spread)
    cells = 2 ** math.ceil(math.log2(high / cell + spread - first + 1))
    summed = [_composed(steps, side, cell, first, cells) for side in ("inside", "outside")]
    return IdealCanaries((first + np.arange(cells)) * cell, *summed)


def _without_noise(parts: Sequence[tuple[float, int]], copies: int) -> IdealCanaries:
    """Two scores: never drawn, drawn."""
    never = math.prod((1 - rate) ** (count * copies) for rate, count in parts)
    return IdealCanaries(np.array([0.0, 1.0]), np.array([never, 1 - never]), np.array([1.0, 0.0]))


def _step(sigma: float, rate: float, copies: int) -> IdealCanaries:
    """One step: scores at the middle of cells of the projection, which runs past nine sigma."""
    held = np.arange(copies + 1)
    weights = stats.binom.pmf(held, copies, rate)
    edges = np.linspace(-9 * sigma, copies + 9 * sigma, _CELLS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    powers = (held[:, None] * middle - held[:, None] ** 2 / 2) / sigma**2
    scores = _log_mean(powers, weights)
    outside = _normal_masses(edges / sigma)
    inside = sum(weight * _normal_masses((edges - k) / sigma) for k, weight in enumerate(weights))
    return IdealCanaries(scores, np.asarray(inside), outside)


def _log_mean(powers: np.ndarray, weights: np.ndarray) -> Any:
    """log sum_k weights[k] exp(powers[k]), without overflow."""
    most = powers.max(axis=0)
    return most + np.log(weights @ np.exp(powers - most))


def _normal_masses(edges: np.ndarray) -> np.ndarray:
    """Of the standard normal between edges; taken from the nearer tail, so none is lost."""
    left, right = edges[:-1], edges[1:]
    return np.where(left > 0, ndtr(-left) - ndtr(-right), ndtr(right) - ndtr(left))


def _deviation(step: IdealCanaries, side: str) -> float:
    mass = getattr(step, side)
    variance = float(((step.scores - step.scores @ mass) ** 2) @ mass)
    return max(math.sqrt(variance), 1e-9)  # next to no noise: outside, a score never moves


def _range(steps: Sequence[tuple[IdealCanaries, int]]) -> tuple[float, float]:
    """Where all but _TAIL of the sum lies, by Chernoff's bound on each side."""
    ends = []
    for sign, side in ((-1.0, "outside"), (1.0, "inside")):
        scale = max(_deviation(step, side) * math.sqrt(count) for step, count in steps)
        bounds = []
        for power in np.geomspace(0.1, 100, 16) / scale:
            grown = sum(
                count * _log_mean(sign * power * step.scores, getattr(step, side))
                for step, count in steps
            )
            bounds.append((grown - math.log(_TAIL)) / power)
        ends.append(sign * min(bounds))
    return ends[0], ends[1]


def _composed(
    steps: Sequence[tuple[IdealCanaries, int]], side: str, cell: float, first: int, cells: int
) -> np.ndarray:
    """Probabilities of the sum at (first + i) * cell, float64 [cells]."""
    product: Any = 1.0
    for step, count in steps:
        at = step.scores / cell
        low = np.floor(at)
        masses = np.zeros(cells)
        share, mass = at - low, getattr(step, side)
        for offset, part in ((0, 1 - share), (1, share)):
            cell_of = ((low + offset) % cells).astype(np.int64)
            masses += np.bincount(cell_of, part * mass, cells)
        product = product * np.fft.rfft(masses) ** count
    summed = np.maximum(np.fft.irfft(product, cells), 0.0)
    found: np.ndarray = np.roll(summed, -(first % cells))
    return found / found.sum()


def _mass_below(both: np.ndarray, own: np.ndarray, share: float) -> float:
    """Mass of `own` where the mass of `both`, from the start on, comes to `share`."""
    start = np.zeros(1)
    sums = [np.concatenate([start, np.cumsum(masses)]) for masses in (both, own)]
    return float(np.interp(share, sums[0], sums[1]))


def _right(
    sums: Sequence[np.ndarray], canaries: int, per_side: int, runs: int, rng: np.random.Generator
) -> np.ndarray:
    """Right guesses of `runs` runs; ties inside a cell are broken by chance."""
    coins = rng.random((runs, canaries)) < 0.5
    chance, drawn = rng.random((2, runs, canaries))
    for side, total in zip((~coins, coins), sums):
        drawn[side] += np.searchsorted(total, chance[side], side="right")
    order = np.argpartition(drawn, (per_side, canaries - per_side - 1), axis=1)
    top = np.take_along_axis(coins, order[:, canaries - per_side :], axis=1)
    bottom = np.take_along_axis(coins, order[:, :per_side], axis=1)
    return np.asarray(top.sum(axis=1) + (~bottom).sum(axis=1), dtype=np.int64)
