"""Bands and buckets against a naive search, and what they may miss."""

import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from scipy.stats import binom

from dpmlm.dedup import bands as module
from dpmlm.dedup.bands import MISS, Buckets, bands_for
from dpmlm.dedup.signatures import signatures


def random_values(seed: int, count: int = 40) -> np.ndarray:
    """Signatures of a few families: many bands are shared, most are not."""
    draw = np.random.default_rng(seed)
    families = draw.integers(0, 2**32, (6, 128), dtype=np.uint32)
    values = families[draw.integers(0, 6, count)]
    changed = draw.random(values.shape) < draw.choice([0.02, 0.2, 0.6], count)[:, None]
    return np.where(changed, draw.integers(0, 2**32, values.shape, dtype=np.uint32), values)


def pairs_of(buckets: Buckets) -> set[tuple[int, int]]:
    return {(a, b) for _, bucket in buckets for a in bucket for b in bucket if a > b}


def in_chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    yield from np.array_split(values, 3)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_candidates_are_those_of_datasketch(seed: int, threshold: float) -> None:
    values = random_values(seed)
    index = MinHashLSH(num_perm=128, params=bands_for(threshold))
    wanted = set()
    for later, row in enumerate(values):
        sketch = MinHash(hashvalues=row, scheme="affine32")
        wanted |= {(later, earlier) for earlier in index.query(sketch)}
        index.insert(later, sketch)
    buckets = Buckets.of(lambda: in_chunks(values), np.arange(len(values)), threshold)
    assert pairs_of(buckets) == wanted
    assert wanted or threshold == 1.0


def test_few_keys_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, numbers = random_values(7), np.arange(40)
    whole = list(Buckets.of(lambda: in_chunks(values), numbers, 0.8))
    monkeypatch.setattr(module, "_KEYS_HELD", 80)
    assert list(Buckets.of(lambda: in_chunks(values), numbers, 0.8)) == whole
    assert whole


def test_numbers_name_the_texts_and_leave_some_out() -> None:
    values = random_values(8)
    draw = random.Random(1)
    numbers = np.array(draw.sample(range(100), 40))
    plain = pairs_of(Buckets.of(lambda: in_chunks(values), np.arange(40), 0.8))
    named = pairs_of(Buckets.of(lambda: in_chunks(values), numbers, 0.8))
    assert named == {tuple(sorted((numbers[a], numbers[b]), reverse=True)) for a, b in plain}
    numbers = np.where(numbers % 3 == 0, -1, numbers)
    fewer = pairs_of(Buckets.of(lambda: in_chunks(values), numbers, 0.8))
    assert fewer == {pair for pair in named if pair[0] % 3 and pair[1] % 3}
    assert fewer


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_candidates_are_new_and_likely(threshold: float) -> None:
    values = random_values(9)
    buckets = Buckets.of(lambda: in_chunks(values), np.arange(40), threshold)
    least = next(k for k in range(129) if binom.cdf(k, 128, threshold) >= 1e-6)
    seen: set[tuple[int, int]] = set()
    proven: set[tuple[int, int]] = set()
    refused = 0
    for band, bucket in buckets:
        for a, b in itertools.combinations(bucket, 2):
            likely = int((values[a] == values[b]).sum()) >= least
            # Of one band no pair comes twice, so what was seen is of earlier bands.
            assert buckets.candidates(band, a, np.array([b])).tolist() == [
                likely and (a, b) not in seen
            ]
            proven |= {(a, b)} if likely else set()
            refused += not likely
        seen |= set(itertools.combinations(bucket, 2))
    assert proven
    assert refused or threshold == 0.5
    assert buckets.likely().tolist() == sorted({number for pair in proven for number in pair})


def test_texts_without_words_are_no_candidates() -> None:
    texts = ["!", "?", "one two", "-", "One, two"]
    buckets = Buckets.of(lambda: iter([signatures(texts)]), np.arange(5), 0.8)
    assert pairs_of(buckets) == {(4, 2)}


def test_no_texts() -> None:
    assert list(Buckets.of(lambda: iter(()), np.arange(0), 0.8)) == []


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_miss_few_pairs_at_the_threshold_and_longer_rows_miss_more(threshold: float) -> None:
    bands, rows = bands_for(threshold)
    assert bands * rows <= 128
    assert (1 - threshold**rows) ** bands <= MISS
    if rows < 64:
        longer = rows + 1
        assert (1 - threshold**longer) ** (128 // longer) > MISS
    assert bands_for(0.8) == (25, 5)
