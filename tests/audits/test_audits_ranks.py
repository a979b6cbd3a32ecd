"""Counted ranks against every candidate, against a sort at 10^12, and against sums of floats."""

import itertools
import math
import time
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from audits.exposures.exposure import exposure
from audits.exposures.ranks import UNITS_PER_NAT, count_in_product, product_bits, units
from dpmlm.artifacts import UserError


def _every_candidate(rows: list[np.ndarray], secret: list[int]) -> tuple[int, int]:
    scores = [[Fraction(int(unit)) for unit in units(row)] for row in rows]
    own = sum(row[index] for row, index in zip(scores, secret))
    sums = [sum(choice) for choice in itertools.product(*scores)]
    return sum(s > own for s in sums), sum(s == own for s in sums)


def _combined(join: np.ufunc, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Every combination of one entry a row, joined."""
    combined = rows[0]
    for row in rows[1:]:
        combined = join.outer(combined, row).ravel()
    return combined


def _random_rows(rng: np.random.Generator, sizes: list[int]) -> list[np.ndarray]:
    return [np.log(rng.dirichlet(np.full(size, 0.5)) + 1e-12) for size in sizes]


@pytest.mark.parametrize("sizes", [[1], [7], [2, 9], [5, 1, 8], [3, 4, 5, 6], [2] * 9])
def test_positions_of_any_lengths_against_every_candidate(sizes: list[int]) -> None:
    rng = np.random.default_rng(len(sizes))
    for _ in range(5):
        rows = _random_rows(rng, sizes)
        secret = [int(rng.integers(size)) for size in sizes]
        found = count_in_product(rows, secret)
        assert found == _every_candidate(rows, secret)
        assert found[1] >= 1
        assert product_bits(rows) == pytest.approx(math.log2(math.prod(sizes)))
        assert exposure(rows, secret).optimistic == pytest.approx(
            math.log2(math.prod(sizes)) - math.log2(1 + found[0])
        )


def test_integers_give_the_rank_that_sums_of_floats_do_not() -> None:
    # Probabilities 4, 3, 2, 1 in ten at every position: products of whole numbers are the truth,
    # and permutations of a secret tie. The meet in the middle adds floats in another order than
    # the secret's own score was added in, so that last bits decide between them.
    weights = np.array([4, 3, 2, 1])
    row = np.log(weights / 10)
    products = _combined(np.multiply, [weights] * 6)
    halves = np.sort(_combined(np.add, [row] * 3))
    wrong = 0
    for secret in itertools.islice(itertools.product(range(4), repeat=6), 0, None, 41):
        own = math.prod(int(weights[index]) for index in secret)
        higher, equal = int((products > own).sum()), int((products == own).sum())
        assert count_in_product([row] * 6, secret) == (higher, equal)
        own_float = sum(float(row[index]) for index in secret)
        at_most = np.searchsorted(halves, own_float - halves, side="right")
        wrong += int((len(halves) - at_most).sum()) != higher
    assert wrong > 10


@pytest.mark.parametrize("seed", range(3))
def test_rank_in_a_million_by_a_sort(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = _random_rows(rng, [1000, 1000])
    secret = [int(rng.integers(1000)), int(rng.integers(1000))]
    left, right = (units(row) for row in rows)
    sums = (left[:, None] + right[None, :]).ravel()
    own = left[secret[0]] + right[secret[1]]
    assert count_in_product(rows, secret) == (int((sums > own).sum()), int((sums == own).sum()))


def test_what_is_hopeless_counts_as_64_nats_down() -> None:
    rows = [np.array([0.0, -64.0, -70.0, -math.inf]), np.array([-1.0, -2.0])]
    assert count_in_product(rows, [3, 0]) == (2, 3)
    assert count_in_product(rows, [0, 1]) == (1, 1)


def test_bad_scores_are_refused() -> None:
    for bad, said in ((math.nan, "not a number"), (math.inf, "not a number")):
        with pytest.raises(UserError, match=said):
            count_in_product([np.array([0.0, bad])], [0])
    with pytest.raises(UserError, match="every candidate is impossible"):
        count_in_product([np.full(3, -math.inf)], [0])
    with pytest.raises(UserError, match="2 positions in a space of 1"):
        count_in_product([np.zeros(3)], [0, 0])
    with pytest.raises(UserError, match="1 positions in a space of 1"):
        count_in_product([np.zeros(3)], [3])
    with pytest.raises(UserError, match="0 positions"):
        count_in_product([], [])


@pytest.mark.full
@pytest.mark.parametrize(("alphabet", "length"), [(10**6, 2), (100, 6), (10, 12), (10**4, 3)])
def test_rank_and_ties_in_10_to_the_12_take_under_2_seconds(alphabet: int, length: int) -> None:
    rng = np.random.default_rng(alphabet)
    rows = rng.normal(size=(length, alphabet)) * 4
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    secret = np.minimum(rows.argmax(axis=1), alphabet - 1)
    secret[0] = alphabet // 2
    times = []
    for _ in range(3):
        started = time.process_time()
        higher, equal = count_in_product(rows, secret)
        times.append(time.process_time() - started)
    print(f"{alphabet}^{length}: {higher} above, {equal} level, {np.median(times):.3f} s")
    assert np.median(times) < 2
    if length % 2:
        return
    # The second way: all sums of each half, sorted, and a binary search for each.
    left, right = (_combined(np.add, half) for half in np.split(units(rows), 2))
    own = units(rows)[np.arange(length), secret].sum()
    right.sort()
    at_most = np.searchsorted(right, own - left, side="right")
    below = np.searchsorted(right, own - left, side="left")
    assert higher == int((len(right) - at_most).sum())
    assert equal == int((at_most - below).sum())
    assert len(left) * len(right) == 10**12


def test_units_are_512_a_nat() -> None:
    assert UNITS_PER_NAT == 512
    assert units(np.array([-1.0, -0.0009, -0.001, -math.inf])).tolist() == [-512, 0, -1, -math.inf]
