"""What training further cost, beside a margin, against a loop."""

import random
from dataclasses import replace

import numpy as np
import pytest
from small_measurement import made

from dpmlm.evaluation import FORGOT, KEPT, UNDECIDED, Estimate, Forgetting, forgetting


def worse(m, share, seed=0):
    """The same questions with a share of the right first guesses lost."""
    lost = np.random.default_rng(seed).random(len(m.first)) < share
    return replace(m, first=m.first & ~lost, loss=m.loss + 0.1)


def by_hand(before, after):
    """Points lost and their 95 % percentile interval, unit by unit, in Python lists."""
    tokens = {name: [] for name in sorted(set(before.units))}
    for place, old, new in zip(before.document, before.first, after.first, strict=True):
        tokens[before.units[place]].append(100 * (int(old) - int(new)))
    rng, drawn = random.Random(1), []
    for _ in range(4000):
        some = [tokens[name] for name in rng.choices(list(tokens), k=len(tokens))]
        drawn.append(sum(map(sum, some)) / sum(map(len, some)))
    drawn.sort()
    whole = [one for unit in tokens.values() for one in unit]
    return sum(whole) / len(whole), drawn[100], drawn[3900]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_loss_and_its_interval_equal_their_naive_twin(share):
    before = made(4, units=60)
    after = worse(before, share)
    found = forgetting(before, after, text="sha256:x", margin=2)
    value, low, high = by_hand(before, after)
    assert found.lost.value == pytest.approx(value)
    assert found.lost.low == pytest.approx(low, abs=0.35)
    assert found.lost.high == pytest.approx(high, abs=0.35)
    assert found.lost.low <= found.lost.value <= found.lost.high
    assert found.bits.value > 0
    assert found.documents == len(before.documents)


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (-1.0, 1.9, 2.0, KEPT),
        (-1.0, 2.0, 2.0, KEPT),
        (-1.0, 2.1, 2.0, UNDECIDED),
        (2.0, 3.0, 2.0, UNDECIDED),
        (2.1, 3.0, 2.0, FORGOT),
        (-3.0, -1.0, 0.0, KEPT),
        (None, None, 2.0, UNDECIDED),
    ],
)
def test_the_whole_interval_decides(low, high, margin, verdict):
    found = Forgetting("sha256:x", margin, 300, Estimate(1.0, low, high), None)
    assert found.verdict == verdict
    assert Forgetting.from_json(found.to_json()) == found
    assert found.lines()[-1].strip().startswith(verdict.upper())


def test_a_mean_within_the_margin_of_few_documents_proves_nothing():
    before = made(5, units=4)
    found = forgetting(before, before, text="sha256:x", margin=2)
    assert (found.lost.value, found.verdict) == (0, UNDECIDED)
    assert "no interval" in found.lines()[1]
