"""What tells members from others without the model: a leak is only what an attack adds to that.

Where membership follows a date, a hospital or a style, the text alone gives it away and an attack
on the model looks strong (Mireshghallah et al. 2022: the reference model alone has an area of
0.81). Each baseline may learn from labels, but is scored on units it did not learn from.
"""

from collections.abc import Callable, Sequence

import numpy as np

FOLDS = 5
"""Parts of the units; a part is scored by what the other parts taught."""

Fit = Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]
"""From indices of records that may be learnt from to a scorer of other indices."""


def bag_of_words(
    rows: Sequence[Sequence[int]], member: np.ndarray, units: np.ndarray, *, seed: int
) -> np.ndarray:
    """Held-out log-odds of a multinomial naive Bayes on token ids, without prior; float64 [N].

    Laplace smoothing over the ids that occur; the mean over a row's tokens, so that length is a
    baseline of its own.
    """
    vocabulary, flat = np.unique(np.concatenate([np.asarray(r) for r in rows]), return_inverse=True)
    owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    counts = np.zeros((len(rows), len(vocabulary)), dtype=np.float32)
    np.add.at(counts, (owner, flat), 1)

    def fit(known: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        logs = []
        for label in (True, False):
            total = counts[known[member[known] == label]].sum(axis=0, dtype=np.float64) + 1
            logs.append(np.log(total / total.sum()))
        odds = logs[0] - logs[1]
        return lambda asked: counts[asked] @ odds / counts[asked].sum(axis=1)

    return held_out(fit, member, units, seed=seed)


def directed(
    feature: np.ndarray, member: np.ndarray, units: np.ndarray, *, seed: int
) -> np.ndarray:
    """One number a record, its sign learnt from other units: more or less of it means member."""

    def fit(known: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        inside, outside = (feature[known[member[known] == label]] for label in (True, False))
        sign = 1.0 if inside.mean() >= outside.mean() else -1.0
        centre = float(np.median(feature))
        return lambda asked: sign * (feature[asked] - centre)

    return held_out(fit, member, units, seed=seed)


def held_out(fit: Fit, member: np.ndarray, units: np.ndarray, *, seed: int) -> np.ndarray:
    """Scores of every record by a fit on the units of other folds; float64 [N].

    Units are never split; members and others are dealt over the folds apart, so that every fold
    has the same share of both.
    """
    fold = np.empty(len(units), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for label in (True, False):
        names = np.unique(units[member == label])
        dealt = dict(zip(names.tolist(), (rng.permutation(len(names)) % FOLDS).tolist()))
        mine = np.flatnonzero(member == label)
        fold[mine] = [dealt[unit] for unit in units[mine].tolist()]
    result = np.empty(len(units), dtype=np.float64)
    for part in range(FOLDS):
        asked = np.flatnonzero(fold == part)
        if len(asked):
            result[asked] = fit(np.flatnonzero(fold != part))(asked)
    return result
