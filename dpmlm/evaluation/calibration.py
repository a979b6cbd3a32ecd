"""Whether a model is right as often as it says it is."""

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Calibration:
    """How sure a model was of its first guesses, and how often they were right."""

    confidence: float
    """Mean probability that it gave its first guess."""
    error: float
    """Expected calibration error: mean over bins of |right share - mean confidence|, 0 to 1."""
    brier: float
    """Mean of (confidence - right)^2 over first guesses, 0 to 1."""


def calibration(confidence: np.ndarray, right: np.ndarray) -> Calibration | None:
    """Of first guesses made with `confidence`, float [N], that were `right`, bool [N].

    15 bins hold as many guesses each (as in Kumar, Liang and Ma 2019, 1909.10155). None without
    guesses and where a confidence is no number.
    """
    if len(confidence) == 0 or not np.isfinite(confidence).all():
        return None
    order = np.argsort(confidence, kind="stable")
    said, was = confidence[order], right[order].astype(float)
    bins = np.array_split(np.arange(len(order)), min(BINS, len(order)))
    gaps = [len(part) * abs(was[part].mean() - said[part].mean()) for part in bins]
    brier = float(((said - was) ** 2).mean())
    return Calibration(float(said.mean()), float(sum(gaps) / len(order)), brier)
