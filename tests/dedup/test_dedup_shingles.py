"""Shingles: two implementations against each other and against a regular expression."""

import random
import re

import numpy as np
import pytest
from datasketch import MinHash

from dpmlm.dedup.candidates import MISS, bands_for, candidate_pairs, signatures
from dpmlm.dedup.shingles import jaccard, shingle_hashes, shingle_set

ALPHABET = "abcXYZ0189_äßİé 日本คน\u0301-.,!\n\t\u2028😀"


def naive_shingles(text: str) -> set[tuple[str, ...]]:
    """Words by regular expression, for texts whose characters it classes as we do."""
    words = re.findall(r"[日本คน]|[abcxyz0189äßéi\u0301\u0307]+", text.lower())
    width = min(5, len(words))
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)} if words else set()


def random_texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(ALPHABET, k=draw.randrange(80))) for _ in range(count)]


def test_shingles_equal_their_naive_twin() -> None:
    for text in random_texts(500, 1):
        assert shingle_set(text) == {" ".join(words) for words in naive_shingles(text)}


def test_hashes_tell_shingles_apart_as_strings_do() -> None:
    seen: dict[str, int] = {}
    for text in random_texts(500, 2):
        strings, hashes = shingle_set(text), shingle_hashes(text)
        assert len(strings) == len(hashes)
        for other in random_texts(3, len(text)):
            shared = np.intersect1d(hashes, shingle_hashes(other))
            assert len(shared) == len(strings & shingle_set(other))
        if len(strings) == 1:
            assert seen.setdefault(next(iter(strings)), int(hashes[0])) == int(hashes[0])
    assert len(set(seen.values())) == len(seen)


def test_hashes_depend_on_order_and_word_borders() -> None:
    texts = ["a b c d e", "b a c d e", "ab c d e f", "a bc d e f", "abc", "acb", "a b", "ab"]
    assert len({tuple(shingle_hashes(text).tolist()) for text in texts}) == len(texts)


def test_case_and_punctuation_do_not_count() -> None:
    left, right = "The Cat, sat: on the MAT - again!", "the cat sat on\nthe mat again"
    assert shingle_set(left) == shingle_set(right)
    assert np.array_equal(shingle_hashes(left), shingle_hashes(right))


def test_texts_without_words_are_no_candidates() -> None:
    texts = ["!", "?", "one two", "-", "One, two"]
    assert list(candidate_pairs(*signatures(texts), 0.8)) == [(4, 2)]


def test_short_and_wordless_texts() -> None:
    assert shingle_set("One, two!") == {"one two"}
    assert shingle_set(" -- ") == frozenset()
    assert len(shingle_hashes("")) == 0
    assert len(shingle_hashes(" \n...")) == 0
    assert jaccard(frozenset(), frozenset()) == 0.0
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5


def test_signatures_are_datasketch_signatures_whatever_the_length() -> None:
    draw = random.Random(3)
    text = " ".join(str(draw.randrange(10**6)) for _ in range(9000))
    values, sizes = signatures([text, "--", "one two"])
    whole = MinHash(num_perm=128, hashfunc=lambda value: value, scheme="affine32")
    whole.update_batch(int(value) >> 32 for value in shingle_hashes(text))
    assert np.array_equal(values[0], whole.hashvalues)
    assert sizes.tolist() == [len(shingle_set(text)), 0, 1]


def test_progress_reaches_the_end() -> None:
    calls: list[tuple[int, int]] = []
    signatures(["a"] * 130, lambda done, total: calls.append((done, total)))
    assert calls == [(64, 130), (128, 130), (130, 130)]


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_miss_few_pairs_at_the_threshold_and_longer_rows_miss_more(threshold: float) -> None:
    bands, rows = bands_for(threshold)
    assert bands * rows <= 128
    assert (1 - threshold**rows) ** bands <= MISS
    if rows < 64:
        longer = rows + 1
        assert (1 - threshold**longer) ** (128 // longer) > MISS
    assert bands_for(0.8) == (25, 5)
