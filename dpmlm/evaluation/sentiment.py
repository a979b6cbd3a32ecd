"""The sentiment probe: can a linear classifier tell two kinds of documents by a frozen encoder?"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpmlm.errors import UserError
from dpmlm.evaluation.features import Linear, features_of
from dpmlm.evaluation.intervals import RESAMPLES, Estimate, percentiles
from dpmlm.evaluation.measurement import Report
from dpmlm.masking import TokenTable
from dpmlm.masking.spec import SPECIALS_PER_ROW

FOLDS = 5
ROWS_PER_DOCUMENT = 4
"""A document's first rows stand for it."""


def refuse_unfit_labels(labels: Sequence[str | None], given: str) -> None:
    """Raise UserError unless there are two labels, each on enough documents for every fold."""
    counts = {label: labels.count(label) for label in set(labels)}
    if None in counts or len(counts) != 2 or min(counts.values()) < FOLDS:
        raise UserError(
            f"{given} with {len(counts)} labels",
            f"a document has one of two labels, and each label is on {FOLDS} documents or more",
            "give a file whose rows have the fields text and label",
        )


def pooled(
    model: Any,
    documents: Sequence[np.ndarray],
    table: TokenTable,
    window: int,
    report: Report = lambda done, total: None,
) -> np.ndarray:
    """Mean of the last hidden layer over a document's first rows, [D, H]; empty ones are 0."""
    room = window - SPECIALS_PER_ROW
    rows, owner = [], []
    for number, tokens in enumerate(documents):
        for begin in range(0, len(tokens), room)[:ROWS_PER_DOCUMENT]:
            rows.append(tokens[begin : begin + room])
            owner.append(number)
    found = features_of(model, rows, table, report)
    if not found:
        raise UserError(
            "a probe without a token", "its documents hold text", "give another file to --probe"
        )
    sums = np.zeros((len(documents), found[0].shape[1]))
    counts = np.zeros(len(documents))
    for number, hidden in zip(owner, found, strict=True):
        sums[number] += hidden.sum(axis=0)
        counts[number] += len(hidden)
    return sums / np.maximum(counts, 1)[:, None]


def sentiment(
    features: Mapping[str, np.ndarray], labels: Sequence[str], texts: Sequence[str]
) -> tuple[dict[str, Estimate], Estimate | None]:
    """Area under the ROC curve by model, over five folds, and the change with two models.

    `features` are `pooled` by model. Every document is scored by a classifier that was fitted to
    the other folds; documents go to folds by a hash of their text. Intervals resample documents
    within folds, the same for all models; they leave out what the choice of folds does.
    """
    positive = np.array([label == max(labels) for label in labels])
    fold = _folds(positive, texts)
    scores = {name: _scored(each, positive, fold) for name, each in features.items()}
    values = {name: _mean_area(each, positive, fold) for name, each in scores.items()}
    drawn: dict[str, list[float]] = {name: [] for name in scores}
    rng = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        weights = _resampled(fold, rng)
        for name, each in scores.items():
            drawn[name].append(_mean_area(each, positive, fold, weights))
    found = {name: _estimate(values[name], np.array(drawn[name])) for name in scores}
    if len(scores) != 2:
        return found, None
    first, second = scores
    change = np.array(drawn[second]) - np.array(drawn[first])
    return found, _estimate(values[second] - values[first], change)


def area_under_curve(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Probability that a positive scores above a negative, ties half; nan if there is one kind.

    `weights` say how often each counts.
    """
    often = np.ones(len(scores)) if weights is None else weights
    _, level = np.unique(scores, return_inverse=True)
    ups = np.bincount(level, weights=often * positive)
    downs = np.bincount(level, weights=often * ~positive)
    if not ups.sum() or not downs.sum():
        return float("nan")
    below = np.cumsum(downs) - downs
    return float((ups * (below + downs / 2)).sum() / (ups.sum() * downs.sum()))


def _folds(positive: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Number of each document's fold; both kinds are spread evenly, equal texts stay together."""
    keys = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for text in texts]
    fold = np.zeros(len(keys), dtype=np.int64)
    for kind in (True, False):
        distinct = sorted({key for key, is_up in zip(keys, positive, strict=True) if is_up == kind})
        place = {key: number % FOLDS for number, key in enumerate(distinct)}
        for number, key in enumerate(keys):
            if positive[number] == kind:
                fold[number] = place[key]
    return fold


def _scored(features: np.ndarray, positive: np.ndarray, fold: np.ndarray) -> np.ndarray:
    scores = np.zeros(len(features))
    for number in range(FOLDS):
        held = fold == number
        if held.any():
            linear = Linear(features[~held], positive[~held].astype(int), 2)
            out = linear.scores(features[held])
            scores[held] = out[:, 1] - out[:, 0]
    return scores


def _mean_area(
    scores: np.ndarray, positive: np.ndarray, fold: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean over the folds that hold both kinds: scores of two classifiers are not compared."""
    areas = []
    for number in range(FOLDS):
        held = fold == number
        often = None if weights is None else weights[held]
        areas.append(area_under_curve(scores[held], positive[held], often))
    told = [area for area in areas if not np.isnan(area)]
    return float(np.mean(told)) if told else float("nan")


def _resampled(fold: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    weights = np.zeros(len(fold))
    for number in range(FOLDS):
        place = np.flatnonzero(fold == number)
        if len(place):
            drawn = rng.integers(0, len(place), len(place))
            weights[place] = np.bincount(drawn, minlength=len(place))
    return weights


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    return Estimate(value, *(percentiles(drawn) or (None, None)))
