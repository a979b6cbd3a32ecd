"""Shingles: two implementations against each other and against a regular expression."""

import random
import re

import numpy as np
import pytest
from datasketch import MinHash

from dpmlm.dedup import shingles
from dpmlm.dedup.shingles import (
    jaccard,
    shingle_hashes,
    shingle_set,
    window_hashes,
    word_hashes,
    words_of,
)
from dpmlm.dedup.signatures import signatures

ALPHABET = "abcXYZ0189_äßİéΣ 日本คน\u0301-.,!\n\t\u2028😀"


def naive_shingles(text: str) -> set[tuple[str, ...]]:
    """Words by regular expression, for texts whose characters it classes as we do."""
    lowered = text.replace("İ", "i").lower()
    words = re.findall(r"[日本คน]|[abcxyz0189äßéiσς\u0301]+", lowered)
    width = min(5, len(words))
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)} if words else set()


def random_texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(ALPHABET, k=draw.randrange(80))) for _ in range(count)]


def test_shingles_equal_their_naive_twin() -> None:
    for text in random_texts(500, 1):
        assert shingle_set(text) == {" ".join(words) for words in naive_shingles(text)}


def hashes_of(text: str) -> list[int]:
    return shingle_hashes([text])[0].tolist()


def test_hashes_tell_shingles_apart_as_strings_do() -> None:
    seen: dict[str, int] = {}
    for text in random_texts(500, 2):
        strings, hashes = shingle_set(text), set(hashes_of(text))
        assert len(strings) == len(hashes)
        for other in random_texts(3, len(text)):
            assert len(hashes & set(hashes_of(other))) == len(strings & shingle_set(other))
        if len(strings) == 1:
            assert seen.setdefault(next(iter(strings)), next(iter(hashes))) == next(iter(hashes))
    assert len(set(seen.values())) == len(seen)


def test_texts_in_bulk_are_what_each_is_alone() -> None:
    texts = random_texts(300, 4)
    hashes, counts = shingle_hashes(texts)
    assert counts.tolist() == [len(hashes_of(text)) for text in texts]
    assert hashes.tolist() == [value for text in texts for value in hashes_of(text)]
    words, lengths = word_hashes(texts)
    assert lengths.tolist() == [len(words_of(text)[0]) for text in texts]
    windows, number = window_hashes(words, lengths, 7)
    assert number.tolist() == [max(0, n - 6) for n in lengths.tolist()]
    alone = [window_hashes(*word_hashes([text]), 7)[0].tolist() for text in texts]
    assert windows.tolist() == [value for of in alone for value in of]
    assert [len(x) for x in shingle_hashes([])] == [0, 0]


def test_words_are_where_they_stand() -> None:
    for text in random_texts(300, 5):
        words, starts, ends = words_of(text)
        found = [text[a:b] for a, b in zip(starts, ends)]
        assert [word.replace("İ", "i").lower().replace("ς", "σ") for word in found] == [
            word.replace("ς", "σ") for word in words
        ]


def test_hashes_depend_on_order_and_word_borders() -> None:
    texts = ["a b c d e", "b a c d e", "ab c d e f", "a bc d e f", "abc", "acb", "a b", "ab"]
    assert len({tuple(hashes_of(text)) for text in texts}) == len(texts)


def test_case_and_punctuation_do_not_count() -> None:
    left, right = "The Cat, sat: on the MAT - again!", "the cat sat on\nthe mat again"
    assert shingle_set(left) == shingle_set(right)
    assert hashes_of(left) == hashes_of(right)


def test_short_and_wordless_texts() -> None:
    assert shingle_set("One, two!") == {"one two"}
    assert shingle_set(" -- ") == frozenset()
    assert hashes_of("") == hashes_of(" \n...") == []
    assert jaccard(frozenset(), frozenset()) == 0.0
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5


def test_signatures_are_datasketch_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    long = " ".join(str(draw.randrange(10**6)) for _ in range(9000))
    texts = ["--", *random_texts(60, 6), long, "one two", ""]
    wanted = []
    for text in texts:
        sketch = MinHash(num_perm=128, hashfunc=lambda value: value, scheme="affine32")
        sketch.update_batch(value >> 32 for value in hashes_of(text))
        wanted.append(sketch.hashvalues)
    assert np.array_equal(signatures(texts), wanted)
    monkeypatch.setattr(shingles, "_CHARACTERS", 100)
    assert np.array_equal(signatures(texts), wanted)
    assert signatures([]).shape == (0, 128)
