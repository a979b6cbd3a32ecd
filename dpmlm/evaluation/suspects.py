"""Which parts of a corpus are unlike the others: scores that one bad part cannot hide behind.

A part's figure is the mean over its documents. Its score is the distance from the median of all
parts in units of their spread, which is the median absolute deviation (consistent for normal
values), the standard error of the part's own mean and a floor, added as squares. A part is a
suspect above the largest score that equally good parts reach in one of a hundred corpora: found by
drawing normal parts, shared out over all figures (Bonferroni).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

FEWEST_PARTS = 5
"""With fewer, a spread of good parts cannot be told."""
FEWEST_DOCUMENTS = 10
"""With fewer, the mean of a part says nothing."""
LEVEL = 0.01
"""Corpora without a bad part in which some part is called a suspect, at most."""
_CONSISTENT = 1.4826
_DRAWS = 20_000


@dataclass(frozen=True)
class Score:
    """One figure of one part."""

    value: float
    low: float | None
    """95 % interval of the mean over documents of its kind; None with too few."""
    high: float | None
    score: float
    """Distance from the median part, in spreads; above 0 is worse."""


def scores(values: Sequence[np.ndarray], floor: float) -> list[Score]:
    """Of each part, from the figure of each of its documents; nan for a part without any."""
    means = np.array([part.mean() if len(part) else np.nan for part in values])
    errors = np.array(
        [part.std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else np.inf for part in values]
    )
    middle = np.nanmedian(means)
    spread = _CONSISTENT * np.nanmedian(np.abs(means - middle))
    found = []
    for part, mean, error in zip(values, means, errors, strict=True):
        whole = len(part) >= FEWEST_DOCUMENTS
        low, high = float(mean - 1.96 * error), float(mean + 1.96 * error)
        score = (mean - middle) / np.sqrt(spread**2 + error**2 + floor**2) if len(part) else 0.0
        found.append(
            Score(float(mean), low if whole else None, high if whole else None, float(score))
        )
    return found


@cache
def limit(parts: int, figures: int) -> float:
    """The score above which a part is a suspect; infinite with too few parts."""
    if parts < FEWEST_PARTS:
        return float("inf")
    drawn = np.random.default_rng(0).standard_normal((_DRAWS, parts))
    away = drawn - np.median(drawn, axis=1, keepdims=True)
    spread = _CONSISTENT * np.median(np.abs(away), axis=1)
    return float(np.quantile(away.max(axis=1) / spread, 1 - LEVEL / figures))


def suspicious(score: Score, bar: float) -> bool:
    """Whether a part with enough documents lies above the limit."""
    return score.low is not None and score.score > bar


def worst(of: Mapping[str, Score]) -> str:
    """The figure in which a part is farthest from the others."""
    return max(of, key=lambda name: of[name].score)
