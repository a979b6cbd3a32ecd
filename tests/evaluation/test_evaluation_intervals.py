"""Intervals over units and figures by group, against loops."""

import math

import numpy as np
import pytest
from small_measurement import made

from dpmlm.errors import UserError
from dpmlm.evaluation import (
    Measurement,
    by_group,
    calibration,
    changes,
    differences,
    estimates,
    gap,
)
from dpmlm.evaluation.calibration import BINS
from dpmlm.evaluation.intervals import RESAMPLES, resamples


def by_hand(m, values, seed=0):
    """Percentile bootstrap of a mean over tokens, unit by unit, in Python lists."""
    names = sorted(set(m.units))
    tokens = {name: [] for name in names}
    for place, value in zip(m.document.tolist(), values.tolist()):
        tokens[m.units[place]].append(value)
    drawn = []
    for weights in resamples(len(names), seed=seed):
        total = sum(w * sum(tokens[name]) for w, name in zip(weights.tolist(), names))
        count = sum(w * len(tokens[name]) for w, name in zip(weights.tolist(), names))
        drawn.append(total / count)
    drawn.sort()
    return drawn[round(0.025 * (len(drawn) - 1))], drawn[round(0.975 * (len(drawn) - 1))]


def test_intervals_equal_their_naive_twin():
    m = made(1)
    found = estimates(m)
    for name, values in (("loss", m.loss), ("top1", m.first), ("top5", m.five)):
        low, high = by_hand(m, values)
        assert found[name].value == pytest.approx(values.mean())
        assert found[name].low == pytest.approx(low, abs=0.002 * abs(high))
        assert found[name].high == pytest.approx(high, abs=0.002 * abs(high))
        assert found[name].low < found[name].value < found[name].high
    bits = found["loss"].value / 5 / math.log(2)
    assert found["bits_per_byte"].value == pytest.approx(bits) == pytest.approx(m.bits_per_byte)
    assert "bits_per_byte" not in estimates(made(1, bytes=False))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Over 40 held-out sets of the same kind; a wrong tail or a draw of tokens misses."""
    held = [estimates(made(seed, units=40))["top1"] for seed in range(40)]
    inside = sum(each.low <= 0.3 <= each.high for each in held)
    assert 33 <= inside <= 40


def test_units_are_resampled_and_not_tokens():
    """Units that are all right or all wrong: as wide as 30 draws of a coin, not 600."""
    m = made(3)
    unit = np.array([int(m.units[d][1:]) for d in m.document])
    coin = unit % 2 == 0
    alike = Measurement(**{**vars(m), "first": coin, "five": coin})
    top1 = estimates(alike)["top1"]
    assert 0.25 < top1.high - top1.low < 0.5


def test_changes_are_paired_by_unit():
    """The same noise in both models cancels; the change alone is left."""
    before = made(4)
    better = before.loss - 0.1
    after = Measurement(**{**vars(before), "loss": better})
    change = changes(before, after)["loss"]
    assert (change.value, change.low, change.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert change.told_apart
    same = changes(before, made(4))
    assert not same["top1"].told_apart
    with pytest.raises(UserError, match="different units"):
        changes(before, made(4, units=29))


def test_a_unit_that_one_vocabulary_asks_nothing_of_is_in_neither_side():
    """A document of one token may be a special one for the other vocabulary."""
    before, after = made(4), made(5, right=0.5)
    silent = without(after, "u7")
    found = changes(before, silent)
    assert found == changes(without(before, "u7"), silent) != changes(before, after)
    assert set(found) == {"loss", "top1", "top5", "bits_per_byte"}
    assert found["top1"].told_apart
    every = [f"u{n}" for n in range(30)]
    assert changes(before, without(after, *every)) == {}
    halves = without(before, *every[:15]), without(after, *every[15:])
    assert changes(*halves) == {}


def without(m, *units):
    """No masked token in documents of these units, which stay documents of the measurement."""
    kept = np.array([m.units[d] not in units for d in m.document], dtype=bool)
    names = ("document", "bucket", "loss", "first", "five", "confidence")
    return Measurement(**{**vars(m), **{name: getattr(m, name)[kept] for name in names}})


def test_few_units_have_no_interval_and_lost_models_no_ends():
    few = estimates(made(5, units=9))["top1"]
    assert few.low is few.high is None
    assert not few.told_apart
    m = made(6)
    lost = Measurement(**{**vars(m), "loss": np.where(m.document == 0, np.nan, m.loss)})
    found = estimates(lost)
    assert found["loss"].low is None
    assert found["top1"].low is not None
    nothing = made(7, units=0)
    assert estimates(nothing) == changes(nothing, nothing) == {}


def test_resamples_are_the_same_every_time():
    first, again = (list(resamples(12)) for _ in range(2))
    assert len(first) == RESAMPLES
    np.testing.assert_array_equal(first, again)
    assert all(weights.sum() == 12 for weights in first)
    assert {tuple(weights) for weights in first} != {(1,) * 12}


def test_groups_equal_their_naive_twin():
    before, after = made(8, units=36), made(9, units=36, right=0.5)
    groups = {f"d{i}": ("large", "small", "tiny")[min(2, i // 30)] for i in range(66)}
    found = {group.name: group for group in by_group(after, groups, before)}
    assert set(found) == {"large", "small", "tiny", "(none)"}
    for name, group in found.items():
        ids = [i for i, d in enumerate(after.documents) if groups.get(d, "(none)") == name]
        hits = [bool(f) for f, d in zip(after.first, after.document) if d in ids]
        earlier = [bool(f) for f, d in zip(before.first, before.document) if d in ids]
        assert group.documents == len(ids)
        assert group.units == len({after.units[i] for i in ids})
        assert group.figures.top1 == pytest.approx(np.mean(hits))
        change = np.mean(hits) - np.mean(earlier)
        assert group.changes["top1"].value == pytest.approx(change)
        assert (group.changes["top1"].low is None) == (group.units < 10)
    least, most = gap(list(found.values()))
    told = {name: found[name].changes["top1"].value for name in ("large", "small")}
    assert told[least.name] == min(told.values())
    assert told[most.name] == max(told.values())
    assert gap([found["tiny"], found["large"]]) is None


def naive_calibration(confidence, right):
    """Expected calibration error over bins of like size, by loops over sorted pairs."""
    pairs = sorted(zip(confidence, right), key=lambda pair: pair[0])
    bins = min(BINS, len(pairs))
    size, more = divmod(len(pairs), bins)
    error, at = 0.0, 0
    for number in range(bins):
        part = pairs[at : at + size + (number < more)]
        at += len(part)
        said = sum(c for c, _ in part) / len(part)
        was = sum(bool(r) for _, r in part) / len(part)
        error += len(part) / len(pairs) * abs(said - was)
    return error, sum((c - bool(r)) ** 2 for c, r in pairs) / len(pairs)


def test_calibration_equals_its_naive_twin():
    rng = np.random.default_rng(1)
    for count in (1, 7, 15, 100, 1001):
        confidence, right = rng.random(count), rng.random(count) < 0.4
        ours = calibration(confidence, right)
        error, brier = naive_calibration(confidence.tolist(), right.tolist())
        assert (ours.error, ours.brier) == pytest.approx((error, brier))
        assert ours.confidence == pytest.approx(confidence.mean())


def test_an_honest_model_is_told_from_one_that_boasts():
    rng = np.random.default_rng(2)
    confidence = rng.random(20_000)
    right = rng.random(20_000) < confidence
    assert calibration(confidence, right).error < 0.02
    assert calibration(confidence**0.25, right).error > 0.2
    assert calibration(np.zeros(0), np.zeros(0, dtype=bool)) is None
    assert calibration(np.array([0.5, np.nan]), np.array([True, False])) is None


def test_differences_of_other_units_equal_their_naive_twin():
    trained_on, held_out = made(7, right=0.5, loss=2.0), made(8, units=25)
    found = differences(trained_on, held_out)
    for name, of in (("loss", lambda m: m.loss), ("top1", lambda m: m.first)):
        drawn = []
        for seeds in zip(means(trained_on, of, 0), means(held_out, of, 1)):
            drawn.append(seeds[1] - seeds[0])
        low, high = np.percentile(drawn, [2.5, 97.5])
        assert found[name].value == pytest.approx(of(held_out).mean() - of(trained_on).mean())
        assert (found[name].low, found[name].high) == pytest.approx((low, high))
        assert found[name].told_apart
    assert not differences(made(9), made(10))["loss"].told_apart
    assert differences(made(9, units=9), made(10))["loss"].low is None


def means(m, of, seed):
    """The mean over tokens in every resample of units, token by token."""
    names = sorted(set(m.units))
    for weights in resamples(len(names), seed=seed):
        often = dict(zip(names, weights.tolist()))
        tokens = [often[m.units[document]] for document in m.document.tolist()]
        yield sum(w * float(v) for w, v in zip(tokens, of(m).tolist())) / sum(tokens)
