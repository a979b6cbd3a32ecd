"""Intervals by resampling units: how much the figures owe to who happened to be held out.

Masked tokens of one unit are alike, so that whole units are drawn, with replacement: the percentile
bootstrap of Efron (1979). It says nothing of another training with other noise.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dpmlm.errors import UserError
from dpmlm.evaluation.measurement import Measurement

RESAMPLES = 1000
FEWEST_UNITS = 10
"""With fewer, resampling them tells nothing: no interval is given."""
TOO_FEW = f"fewer than {FEWEST_UNITS} units: no interval"
CONFIDENCE = 0.95
NAMES = ("loss", "top1", "top5", "bits_per_byte")

Statistic = Callable[[np.ndarray], np.ndarray]
"""From sums over units, [S], to figures, [F]."""


@dataclass(frozen=True)
class Estimate:
    """A figure and where it would lie with other units of the same kind."""

    value: float
    low: float | None
    """2.5 % of the resampled figures are below; None where there are too few units, or where a
    figure is no number."""
    high: float | None

    @property
    def told_apart(self) -> bool:
        """Of a difference: whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def estimates(measurement: Measurement, chosen: np.ndarray | None = None) -> dict[str, Estimate]:
    """Loss, top-1, top-5 and bits per byte with intervals; `chosen`, bool [N], picks tokens.

    Bits per byte stands for all tokens of the documents and is left out where some are picked, or
    where bytes are not known. Empty without masked tokens.
    """
    _, sums = _unit_sums(measurement, chosen)
    if not sums.size or not sums[0].sum():
        return {}
    return _estimated(sums, _figures)


def changes(
    before: Measurement,
    after: Measurement,
    chosen: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Estimate]:
    """After minus before, on the same units resampled together (paired).

    `chosen` picks the tokens of each. A unit without a masked token in one of the two is in
    neither: a document may have one for one vocabulary and none for the other. Raises UserError
    where the two are not of the same units.
    """
    if set(before.units) != set(after.units):
        raise UserError(
            "two measurements of different units",
            "models are compared on the same held-out units",
            "measure both on the same text",
        )
    picked = chosen or (None, None)
    first, old = _unit_sums(before, picked[0])
    second, new = _unit_sums(after, picked[1])
    _, mine, others = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    old, new = old[:, mine], new[:, others]
    if not old.size or not old[0].sum() or not new[0].sum():
        return {}
    half = len(old)
    return _estimated(
        np.concatenate([old, new]), lambda sums: _figures(sums[half:]) - _figures(sums[:half])
    )


def differences(first: Measurement, second: Measurement) -> dict[str, Estimate]:
    """Second minus first of one model, on different units, each side resampled by itself."""
    (_, one), (_, other) = _unit_sums(first, None), _unit_sums(second, None)
    if not one.size or not other.size or not one[0].sum() or not other[0].sum():
        return {}
    with np.errstate(invalid="ignore", over="ignore"):
        return _compared(one, other)


def resamples(units: int, *, seed: int = 0, count: int = RESAMPLES) -> Iterator[np.ndarray]:
    """How often each unit is in each of `count` resamples, int [U]; a function of the seed."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield np.bincount(rng.integers(0, units, units), minlength=units)


def percentiles(values: np.ndarray) -> tuple[float, float] | None:
    """The ends of the middle 95 % of resampled figures, [R]; None where one is no number."""
    if not np.isfinite(values).all():
        return None
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _unit_sums(m: Measurement, chosen: np.ndarray | None) -> tuple[list[str], np.ndarray]:
    """Names of the units with a masked token among the chosen, sorted, and sums over each of its
    tokens, losses, hits of the first and of five guesses, content tokens and bytes: [6, U]."""
    picked = np.ones(len(m.loss), dtype=bool) if chosen is None else chosen
    names, of_document = np.unique(np.array(m.units, dtype=object).astype(str), return_inverse=True)
    unit = of_document[m.document[picked]]
    columns = (np.ones(len(unit)), m.loss[picked], m.first[picked], m.five[picked])
    sums = [np.bincount(unit, weights=column, minlength=len(names)) for column in columns]
    whole = (m.bytes > 0) if chosen is None else np.zeros(len(m.bytes), dtype=bool)
    sums += [
        np.bincount(of_document, weights=np.where(whole, column, 0), minlength=len(names))
        for column in (m.content, m.bytes)
    ]
    asked = sums[0] > 0
    return names[asked].tolist(), np.array(sums)[:, asked]


def _figures(sums: np.ndarray) -> np.ndarray:
    """Loss, top-1, top-5, bits per byte (nan without bytes) from the sums of `_unit_sums`."""
    tokens, loss, first, five, content, size = sums
    mean = loss / tokens if tokens else np.nan
    bits = mean * content / size / np.log(2) if size else np.nan
    return np.array([mean, first / tokens, five / tokens, bits]) if tokens else np.full(4, np.nan)


def _estimated(sums: np.ndarray, statistic: Statistic) -> dict[str, Estimate]:
    units = sums.shape[1]
    with np.errstate(invalid="ignore", over="ignore"):
        values = statistic(sums.sum(axis=1))
        drawn = (
            [statistic(sums @ weights) for weights in resamples(units)]
            if units >= FEWEST_UNITS
            else None
        )
    return _named(values, drawn)


def _compared(one: np.ndarray, other: np.ndarray) -> dict[str, Estimate]:
    drawn = None
    if min(one.shape[1], other.shape[1]) >= FEWEST_UNITS:
        pairs = zip(resamples(one.shape[1]), resamples(other.shape[1], seed=1), strict=True)
        drawn = [_figures(other @ b) - _figures(one @ a) for a, b in pairs]
    return _named(_figures(other.sum(axis=1)) - _figures(one.sum(axis=1)), drawn)


def _named(values: np.ndarray, drawn: Sequence[np.ndarray] | None) -> dict[str, Estimate]:
    """Figures, [F], and those of each resample, by name."""
    found = {}
    for place, name in enumerate(NAMES):
        if name == "bits_per_byte" and np.isnan(values[place]) and not np.isnan(values[1]):
            continue  # bytes are not known
        ends = percentiles(np.array(drawn)[:, place]) if drawn is not None else None
        found[name] = Estimate(float(values[place]), *(ends or (None, None)))
    return found
