"""How well a score tells members from others: area under the curve, and hits at few false alarms.

Records of one unit are not independent, so every variance here is over units: the placements of
DeLong, DeLong, Clarke-Pearson 1988, summed by unit as in Obuchowski 1997. With one record a unit
both are the same. Shapes: M positives (members), N negatives; a higher score says "member".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from audits.statistics import clopper_pearson
from dpmlm.artifacts import UserError

LEAST_UNITS = 30
"""Units a side below which an interval by DeLong is not trusted."""


@dataclass(frozen=True)
class Scores:
    """Scores of members and others, and whose records they are."""

    positive: np.ndarray
    """float64 [M], of members."""
    negative: np.ndarray
    """float64 [N], of records that were held out."""
    positive_units: np.ndarray
    """int64 [M], the unit of each."""
    negative_units: np.ndarray
    """int64 [N], the unit of each; no unit is on both sides."""

    @classmethod
    def of(
        cls,
        positive: Sequence[float] | np.ndarray,
        negative: Sequence[float] | np.ndarray,
        positive_units: Sequence[Any] | None = None,
        negative_units: Sequence[Any] | None = None,
    ) -> "Scores":
        """Check and convert; without units each record is its own. Raises UserError when scores
        are missing, not finite, or not as many as their units."""
        sides = []
        for scores, units in ((positive, positive_units), (negative, negative_units)):
            values = np.asarray(scores, dtype=np.float64)
            labels = np.arange(len(values)) if units is None else _numbered(units)
            if not len(values) or len(labels) != len(values) or not np.isfinite(values).all():
                raise UserError(
                    f"{len(values)} scores of {len(labels)} records",
                    "each side has at least one record, and each record one finite score",
                    "leave out records that could not be scored",
                )
            sides.append((values, labels))
        return cls(sides[0][0], sides[1][0], sides[0][1], sides[1][1])

    def by_unit(self) -> "Scores":
        """One score a unit: the mean over its records."""
        return Scores.of(
            _means(self.positive, self.positive_units), _means(self.negative, self.negative_units)
        )

    def first_of_each_unit(self) -> "Scores":
        """One record a unit, the first: which one is first has nothing to do with its score."""
        first = [np.unique(u, return_index=True)[1] for u in self._units]
        return Scores.of(self.positive[first[0]], self.negative[first[1]])

    @property
    def fewest_units(self) -> int:
        """Units on the side that has fewer."""
        return min(len(np.unique(units)) for units in self._units)

    @property
    def _units(self) -> tuple[np.ndarray, np.ndarray]:
        return self.positive_units, self.negative_units


def auc(scores: Scores) -> float:
    """P[a member scores higher than another] + P[they tie]/2 (Mann-Whitney)."""
    return float(_placements(scores)[0].mean())


def auc_interval(scores: Scores, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided DeLong interval on the logit scale, which stays inside (0, 1).

    At 0 or 1 DeLong's variance is 0. There the limit is exact: k disjoint pairs of units are k
    independent trials, all of which were right, so the area is at least (tail)^(1/k).
    """
    tail = (1 - confidence) / 2
    area = auc(scores)
    if area in (0.0, 1.0):
        limit = tail ** (1 / scores.fewest_units)
        return (limit, 1.0) if area else (0.0, 1 - limit)
    error = math.sqrt(_variance(*_deviations(scores), scores)) / (area * (1 - area))
    centre, reach = math.log(area / (1 - area)), float(stats.norm.isf(tail)) * error
    return _logistic(centre - reach), _logistic(centre + reach)


def gain(
    attack: Scores, rival: Scores | None, confidence: float = 0.95
) -> tuple[float, tuple[float, float], float]:
    """Area of an attack less a rival's on the same records; (difference, interval, p-value).

    The p-value is one-sided, for the attack being no better. DeLong's paired test: both curves
    share their records, and their covariance is in it. No rival: chance, an area of 1/2.
    """
    deviations = _deviations(attack)
    difference = auc(attack) - 0.5
    if rival is not None:
        others = _deviations(rival)
        deviations = (deviations[0] - others[0], deviations[1] - others[1])
        difference = auc(attack) - auc(rival)
    error = math.sqrt(_variance(*deviations, attack))
    if error < 1e-12:
        # Neither curve has any spread: by disjoint pairs of units, each right with chance 1/2.
        p_value = 0.5**attack.fewest_units if difference > 0 else 1.0
        return difference, (difference, difference), p_value
    reach = float(stats.norm.isf((1 - confidence) / 2)) * error
    p_value = float(stats.norm.sf(difference / error))
    return difference, (difference - reach, difference + reach), p_value


def tpr_at(scores: Scores, rate: float, *, seed: int, confidence: float = 0.95) -> dict[str, Any]:
    """Share of members found at a false-alarm rate, threshold and share from different records.

    One record a unit. A half of the non-members, drawn with `seed` and at least 1/rate of them,
    fixes the threshold: their k-th highest score, k = floor(rate (n + 1)), which another
    non-member exceeds with probability k/(n + 1) at most. Members are counted above it
    (Clopper-Pearson), and so are the other non-members, as the rate that was realised. Not
    applicable, with the number missing, below 1/rate non-members.
    """
    single = scores.first_of_each_unit()
    total, needed = len(single.negative), math.ceil(1 / rate - 1e-9)
    if total < needed:
        return {
            "applicable": False,
            "reason": f"a false-alarm rate of {rate:g} needs {needed} non-members that are "
            f"independent; there are {total}",
            "missing": needed - total,
        }
    order = np.random.default_rng(seed).permutation(total)
    fixing = max(needed, (total + 1) // 2)
    kept, rest = single.negative[order[:fixing]], single.negative[order[fixing:]]
    threshold = np.sort(kept)[-math.floor(rate * (fixing + 1))]
    hits, alarms = int((single.positive > threshold).sum()), int((rest > threshold).sum())
    members = len(single.positive)
    checked = clopper_pearson(alarms, len(rest), confidence) if len(rest) else None
    return {
        "applicable": True,
        "tpr": hits / members,
        "hits": hits,
        "members": members,
        "interval": clopper_pearson(hits, members, confidence),
        "threshold_from": fixing,
        "false_alarms": alarms,
        "checked_on": len(rest),
        "false_alarm_interval": checked,
    }


def _placements(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """For each member the share of others below it, for each other that of members above it."""
    count = len(scores.positive)
    both = np.concatenate([scores.positive, scores.negative])
    ranks = stats.rankdata(both)
    inside = stats.rankdata(scores.positive), stats.rankdata(scores.negative)
    below = (ranks[:count] - inside[0]) / len(scores.negative)
    above = 1 - (ranks[count:] - inside[1]) / count
    return below, above


def _deviations(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    below, above = _placements(scores)
    return below - below.mean(), above - above.mean()


def _variance(positive: np.ndarray, negative: np.ndarray, scores: Scores) -> float:
    """Variance of an area whose placements deviate so, over units (Obuchowski 1997, eq. 5)."""
    total = 0.0
    sides = (positive, scores.positive_units), (negative, scores.negative_units)
    for deviations, units in sides:
        sums = np.bincount(_numbered(units), weights=deviations)
        if len(sums) < 2:
            raise UserError(
                "one unit on a side",
                "a variance over units needs two",
                "give records of more units",
            )
        total += len(sums) / (len(sums) - 1) * float((sums**2).sum()) / len(deviations) ** 2
    return total


def _means(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    numbers = _numbered(units)
    return np.asarray(np.bincount(numbers, weights=values) / np.bincount(numbers))


def _numbered(units: Sequence[Any] | np.ndarray) -> np.ndarray:
    return np.asarray(np.unique(np.asarray(units), return_inverse=True)[1], dtype=np.int64)


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
