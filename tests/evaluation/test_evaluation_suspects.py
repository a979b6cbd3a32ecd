"""Which part of a corpus is unlike the others: by hand, by chance, and where two are bad."""

import statistics

import numpy as np
import pytest
from variants import rest_in_full

from dpmlm.evaluation.suspects import FEWEST_PARTS, limit, scores, suspicious, worst


def parts(rng, count, *, spread=0.1, documents=40):
    return [rng.normal(5 + rng.normal(0, spread), 1, documents) for _ in range(count)]


def naive_score(values, place, floor):
    means = [statistics.fmean(part) for part in values]
    middle = statistics.median(means)
    mad = 1.4826 * statistics.median(abs(mean - middle) for mean in means)
    error = statistics.stdev(values[place]) / len(values[place]) ** 0.5
    return (means[place] - middle) / (mad**2 + error**2 + floor**2) ** 0.5


def test_scores_are_those_of_the_formula_by_hand():
    values = parts(np.random.default_rng(0), 7)
    found = scores(values, 0.05)
    for place, one in enumerate(found):
        assert one.score == pytest.approx(naive_score(values, place, 0.05))
        assert one.low < one.value < one.high


@pytest.mark.parametrize("count", rest_in_full([5, 8, 20], [5, 8]))
def test_equally_good_parts_are_rarely_suspects(count):
    rng = np.random.default_rng(count)
    bar = limit(count, 5)
    named = sum(
        any(suspicious(one, bar) for _ in range(5) for one in scores(parts(rng, count), 0.05))
        for _ in range(200)
    )
    assert named <= 8  # one in a hundred is promised: 2 of 200


@pytest.mark.parametrize("bad", [1, 2])
def test_two_bad_parts_of_nine_do_not_hide_one_another(bad):
    rng = np.random.default_rng(bad)
    values = parts(rng, 9)
    for place in range(bad):
        values[place] = values[place] + 8
    bar = limit(9, 5)
    found = [one.score > bar for one in scores(values, 0.05)]
    assert found == [place < bad for place in range(9)]


def test_a_difference_below_the_floor_and_a_part_without_documents_are_none():
    values = [np.zeros(40) for _ in range(8)]
    values[2] = np.full(40, 0.004)
    values.append(np.zeros(0))
    found = scores(values, 0.01)
    assert found[2].score == pytest.approx(0.4)
    assert not any(one.score > limit(9, 5) for one in found)
    assert found[-1].low is None
    assert worst({"a": found[0], "b": found[2]}) == "b"


def test_too_few_parts_name_nobody():
    values = [np.zeros(40) for _ in range(FEWEST_PARTS - 1)]
    values[0] = values[0] + 100
    bar = limit(len(values), 5)
    assert not any(suspicious(one, bar) for one in scores(values, 0.01))
