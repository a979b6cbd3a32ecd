"""Areas under the curve and their variances against naive second ways; false alarms of both."""

import numpy as np
import pytest

from audits.statistics import clopper_pearson
from audits.text.roc import Scores, auc, auc_interval, gain, tpr_at
from dpmlm.artifacts import UserError


def all_pairs(positive, negative) -> float:
    wins = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    return sum(wins) / len(wins)


def clustered(rng, units, shift, spread=1.0):
    """Scores of one to four records a unit, alike within it, and the units."""
    sizes = rng.integers(1, 5, units)
    means = np.repeat(rng.normal(shift, spread, units), sizes)
    return means + rng.normal(0, 0.5, len(means)), np.repeat(np.arange(units), sizes)


def bootstrap(statistic, scores, rounds, rng):
    """Standard deviation of a statistic of unit indices drawn anew on both sides."""
    found = []
    sides = (scores.positive_units, scores.negative_units)
    members = [[np.flatnonzero(units == u) for u in np.unique(units)] for units in sides]
    for _ in range(rounds):
        picks = [
            np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
            for groups in members
        ]
        found.append(statistic(*picks))
    return np.std(found, ddof=1)


def test_area_is_that_of_all_pairs_ties_counted_half():
    rng = np.random.default_rng(1)
    for count in (1, 7, 40):
        positive, negative = rng.integers(0, 9, count), rng.integers(0, 7, 31)
        expected = all_pairs(positive, negative)
        assert auc(Scores.of(positive, negative)) == pytest.approx(expected, abs=1e-12)
    assert auc(Scores.of([1, 1], [1, 1, 1])) == 0.5


def test_interval_is_delongs_where_each_record_is_a_unit():
    """The variance by its definition, in loops: one sum of squares a side over count - 1."""
    rng = np.random.default_rng(2)
    positive, negative = rng.normal(0.8, 1, 35).round(1), rng.normal(0, 1, 50).round(1)
    area = all_pairs(positive, negative)
    below = [all_pairs([p], negative) for p in positive]
    above = [all_pairs(positive, [n]) for n in negative]
    variance = sum((v - area) ** 2 for v in below) / 34 / 35
    variance += sum((v - area) ** 2 for v in above) / 49 / 50
    low, high = auc_interval(Scores.of(positive, negative))
    logit = np.log(area / (1 - area))
    reach = 1.959964 * np.sqrt(variance) / (area * (1 - area))
    assert low == pytest.approx(1 / (1 + np.exp(reach - logit)), abs=1e-6)
    assert high == pytest.approx(1 / (1 + np.exp(-reach - logit)), abs=1e-6)


def test_variance_over_units_is_that_of_a_bootstrap_over_units():
    rng = np.random.default_rng(3)
    (positive, ours), (negative, theirs) = clustered(rng, 80, 0.7), clustered(rng, 90, 0.0)
    scores = Scores.of(positive, negative, ours, theirs)
    blind = Scores.of(positive + rng.normal(0, 1, len(positive)), negative, ours, theirs)

    def area(p, n):
        return auc(Scores.of(positive[p], negative[n]))

    def difference(p, n):
        return area(p, n) - auc(Scores.of(blind.positive[p], blind.negative[n]))

    for statistic, rival in ((area, None), (difference, blind)):
        expected = bootstrap(statistic, scores, 600, np.random.default_rng(4))
        _, (low, high), _ = gain(scores, rival)
        assert (high - low) / 2 / 1.959964 == pytest.approx(expected, rel=0.12)
    # Taken record by record it would be far too small.
    _, (low, high), _ = gain(Scores.of(positive, negative), None)
    assert (high - low) / 2 / 1.959964 < 0.8 * bootstrap(area, scores, 200, rng)


def test_intervals_of_scores_without_signal_miss_one_half_as_often_as_they_say():
    """200 null simulations at 95 %: 22 misses or fewer with probability above 99.9 %."""
    rng = np.random.default_rng(5)
    missed = refuted = 0
    for _ in range(200):
        (positive, ours), (negative, theirs) = clustered(rng, 60, 0), clustered(rng, 60, 0)
        scores = Scores.of(positive, negative, ours, theirs)
        low, high = auc_interval(scores)
        missed += not low <= 0.5 <= high
        refuted += gain(scores, None)[2] < 0.05
    assert missed <= 22
    assert refuted <= 22


def test_a_perfect_area_has_an_exact_limit():
    perfect = Scores.of(np.arange(40) + 100, np.arange(60))
    low, high = auc_interval(perfect)
    assert (low, high) == (pytest.approx(clopper_pearson(40, 40)[0]), 1.0)
    opposite = Scores.of(np.arange(40), np.arange(60) + 100)
    assert auc_interval(opposite) == (0.0, pytest.approx(1 - low))
    assert gain(perfect, None)[2] == 0.5**40
    assert gain(opposite, None)[2] == gain(perfect, perfect)[2] == 1.0


def test_threshold_is_from_non_members_that_are_not_counted():
    rng = np.random.default_rng(6)
    positive, negative = rng.normal(2, 1, 300), rng.normal(0, 1, 401)
    found = tpr_at(Scores.of(positive, negative), 0.01, seed=7)
    order = np.random.default_rng(7).permutation(401)
    threshold = sorted(negative[order[:201]], reverse=True)[1]  # floor(0.01 * 202) = 2
    assert found["hits"] == sum(score > threshold for score in positive)
    assert found["tpr"] == found["hits"] / 300
    assert found["interval"] == clopper_pearson(found["hits"], 300)
    assert (found["threshold_from"], found["checked_on"]) == (201, 200)
    assert found["false_alarms"] == sum(score > threshold for score in negative[order[201:]])


def test_realised_false_alarms_are_the_rate_asked_for():
    """Mean over 400 draws of 200 non-members: k/(n + 1) = 1/101 for a threshold from 100."""
    rng = np.random.default_rng(8)
    alarms = sum(
        tpr_at(Scores.of([0.0], rng.normal(size=200)), 0.01, seed=i)["false_alarms"]
        for i in range(400)
    )
    # Alarms of one draw share a threshold: their number has a variance of about 2.
    assert abs(alarms - 40_000 / 101) < 3.3 * np.sqrt(400 * 2)


def test_too_few_non_members_for_a_rate_are_told():
    rng = np.random.default_rng(9)
    for rate, count, missing in ((0.01, 99, 1), (0.001, 100, 900), (0.001, 999, 1)):
        found = tpr_at(Scores.of(rng.normal(size=50), rng.normal(size=count)), rate, seed=0)
        assert found["applicable"] is False
        assert found["missing"] == missing
        assert str(count) in found["reason"]
    enough = tpr_at(Scores.of(rng.normal(size=50), rng.normal(size=100)), 0.01, seed=0)
    assert enough["applicable"] is True
    assert enough["false_alarm_interval"] is None
    # Records of one person count once.
    of_persons = Scores.of(rng.normal(size=50), rng.normal(size=150), None, np.arange(150) // 2)
    assert tpr_at(of_persons, 0.01, seed=0)["missing"] == 25


def test_scores_that_are_not_numbers_are_refused():
    for positive, negative in (([1.0, np.nan], [0.0]), ([], [1.0]), ([1.0], [np.inf])):
        with pytest.raises(UserError, match="finite"):
            Scores.of(positive, negative)
    with pytest.raises(UserError, match="one finite score"):
        Scores.of([1.0, 2.0], [0.0], ["a"], ["b"])
