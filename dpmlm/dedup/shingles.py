"""Words and word 5-shingles of texts, twice: as hashes in bulk, as strings for the proof.

A word is a run of letters, digits and combining marks, in lower case. In scripts that are
written without blanks between words (Han, kana, Thai and their like) every character is a word,
or a whole sentence is one. A text of fewer than five words has one shingle, all of its words.

The hashes are made for many texts at once, in one buffer of characters: the cost is that of the
characters, however short the texts.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

WIDTH = 5
"""Words in a shingle."""

_CHARACTERS = 1 << 18  # of texts that are read together: their buffers fit into a cache
_CODE_POINTS = 0x110000
_ASSIGNED = 0x40000  # above are tags, variation selectors and private use: no words
_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF))
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_INSIDE, _ALONE = 1, 2

_CHARACTER_BASE = np.uint64(0x9E3779B97F4A7C15)
_WORD_BASE = np.uint64(0xD6E8FEB86659FD93)


def batches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """First text and one past the last of each stretch to be read together."""
    first = held = 0
    for number, text in enumerate(texts):
        if held and held + len(text) > _CHARACTERS:
            yield first, number
            first, held = number, 0
        held += len(text) + 1
    if held:
        yield first, len(texts)


def word_hashes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """One 64-bit hash a word of all texts, and how many words each text has [N]."""
    lowered = [_lower(text) for text in texts]
    codes = _codes("\n".join(lowered))
    starts = np.flatnonzero(_starts(codes))
    ends = np.cumsum([len(text) + 1 for text in lowered], dtype=np.int64)
    counts = np.diff(np.searchsorted(starts, ends), prepend=0)
    return _hash_words(codes, starts), counts


def window_hashes(
    words: NDArray[np.uint64], counts: NDArray[np.int64], width: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A hash of every run of `width` words inside one text, and how many each text has [N].

    `words` and `counts` are those of `word_hashes`. A text of fewer words has none.
    """
    first = np.arange(max(len(words) - width + 1, 0))
    ends = np.repeat(np.cumsum(counts), counts)
    whole = np.flatnonzero(first + width <= ends[: len(first)])
    total = np.full(len(first), width, dtype=np.uint64)
    for offset in range(width):
        total *= _WORD_BASE
        total += words[offset : offset + len(first)]
    return _mix(total[whole]), np.maximum(counts - width + 1, 0)


def shingle_hashes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The shingles of all texts as 64-bit hashes, one after the other, and how many each has [N].

    A shingle that a text has twice is there twice. A text without words has none.
    """
    words, counts = word_hashes(texts)
    hashes, shingles = window_hashes(words, counts, WIDTH)
    short = np.flatnonzero((counts > 0) & (counts < WIDTH))
    if not len(short):
        return hashes, shingles
    ends = np.cumsum(counts)
    alone = np.array(
        [
            window_hashes(words[ends[i] - counts[i] : ends[i]], counts[i : i + 1], counts[i])[0][0]
            for i in short
        ],
        dtype=np.uint64,
    )
    hashes = np.insert(hashes, np.cumsum(shingles)[short], alone)
    shingles[short] = 1
    return hashes, shingles


def words_of(text: str) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """The words of one text, the first character of each and the one after its last."""
    lowered = _lower(text)
    codes = _codes(lowered)
    classes = _classes()[codes]
    starts = np.flatnonzero(_starts(codes))
    after = np.append(classes[1:], 0) if len(classes) else classes
    last = (classes != 0) & ((after != classes) | (classes == _ALONE))
    ends = np.flatnonzero(last) + 1
    return [lowered[a:b] for a, b in zip(starts.tolist(), ends.tolist())], starts, ends


def shingle_set(text: str) -> frozenset[str]:
    """The shingles of one text as strings: what similarity is judged on, free of collisions."""
    words, _, _ = words_of(text)
    if not words:
        return frozenset()
    width = min(WIDTH, len(words))
    return frozenset(" ".join(words[i : i + width]) for i in range(len(words) - width + 1))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Shared elements over all elements; two empty sets share nothing."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared) if shared else 0.0


def _lower(text: str) -> str:
    """In lower case, and as long: the dotted capital I alone has a small form of two characters."""
    return text.replace("\u0130", "i").lower()


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@cache
def _classes() -> NDArray[np.uint8]:
    """Code point to class: 0 between words, 1 inside a word, 2 a word by itself."""
    classes = np.zeros(_CODE_POINTS, dtype=np.uint8)
    classes[:_ASSIGNED] = [
        _INSIDE * (category(chr(point))[0] in "LNM") for point in range(_ASSIGNED)
    ]
    for first, last in (*_UNSPACED, *_IDEOGRAPHS):
        block = classes[first : last + 1]
        block[block == _INSIDE] = _ALONE
    return classes


@cache
def _digits() -> NDArray[np.uint64]:
    """Code point to a 64-bit digit; 0 for what is in no word."""
    digits = _mix(np.arange(_CODE_POINTS, dtype=np.uint64))
    digits[_classes() == 0] = 0
    return digits


def _starts(codes: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether a word starts at each character: a word that stands alone borders on any other."""
    classes = _classes()[codes]
    before = np.append(np.uint8(0), classes[:-1])
    return (classes != 0) & ((classes != before) | (classes == _ALONE))


def _hash_words(codes: NDArray[np.uint32], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A word's characters as the digits of a polynomial modulo 2^64, mixed."""
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    first = starts[0]
    lengths = np.diff(starts, append=len(codes))
    place = np.arange(first, len(codes)) - np.repeat(starts, lengths)
    powers = np.cumprod(np.full(int(place.max()) + 1, _CHARACTER_BASE))
    return _mix(np.add.reduceat(_digits()[codes[first:]] * powers[place], starts - first))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The 64-bit finalizer of SplitMix (Steele, Lea, Flood 2014): every bit moves every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
