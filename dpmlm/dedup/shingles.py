"""Words and word 5-shingles of a text, twice: as hashes for MinHash, as strings for the proof.

A word is a run of letters, digits and combining marks, in lower case. In scripts that are
written without blanks between words (Han, kana, Thai and their like) every character is a word,
or a whole sentence is one. A text of fewer than five words has one shingle, all of its words.
"""

from functools import cache
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

WIDTH = 5
"""Words in a shingle."""

_CODE_POINTS = 0x110000
_ASSIGNED = 0x40000  # above are tags, variation selectors and private use: no words
_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF))
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_INSIDE, _ALONE = 1, 2

_CHARACTER_BASE = np.uint64(0x9E3779B97F4A7C15)
_WORD_BASE = np.uint64(0xD6E8FEB86659FD93)


def shingle_hashes(text: str) -> NDArray[np.uint64]:
    """The set of a text's shingles as sorted 64-bit hashes; empty for a text without words."""
    codes = np.frombuffer(text.lower().encode("utf-32-le", "surrogatepass"), dtype="<u4")
    starts, _ = _boundaries(codes)
    words = _word_hashes(codes, starts)
    if not len(words):
        return words
    width = min(WIDTH, len(words))
    windows = len(words) - width + 1
    total = np.full(windows, width, dtype=np.uint64)
    for offset in range(width):
        total = total * _WORD_BASE + words[offset : offset + windows]
    return np.unique(_mix(total))


def shingle_set(text: str) -> frozenset[str]:
    """The same set as strings: what similarity is judged on, free of hash collisions."""
    lowered = text.lower()
    codes = np.frombuffer(lowered.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    starts, ends = _boundaries(codes)
    words = [lowered[a:b] for a, b in zip(starts.tolist(), ends.tolist())]
    if not words:
        return frozenset()
    width = min(WIDTH, len(words))
    return frozenset(" ".join(words[i : i + width]) for i in range(len(words) - width + 1))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Shared elements over all elements; two empty sets share nothing."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared) if shared else 0.0


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


def _boundaries(codes: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First index of every word, and the index after its last."""
    edged = np.zeros(len(codes) + 2, dtype=np.uint8)
    edged[1:-1] = _classes()[codes]
    here, before, after = edged[1:-1], edged[:-2], edged[2:]
    word, alone = here != 0, here == _ALONE
    starts = word & ((before == 0) | alone | (before == _ALONE))
    ends = word & ((after == 0) | alone | (after == _ALONE))
    return np.flatnonzero(starts), np.flatnonzero(ends) + 1


def _word_hashes(codes: NDArray[np.uint32], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One hash a word: its mixed characters as the digits of a polynomial modulo 2^64."""
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    first = starts[0]
    lengths = np.diff(starts, append=len(codes))
    place = np.arange(first, len(codes)) - np.repeat(starts, lengths)
    inside = _classes()[codes[first:]] != 0
    place[~inside] = 0  # a gap after a word may be long; its characters count as nothing
    powers = np.cumprod(np.full(int(place.max()) + 1, _CHARACTER_BASE))
    digits = _mix(codes[first:].astype(np.uint64)) * powers[place]
    digits[~inside] = 0
    return _mix(np.add.reduceat(digits, starts - first))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The 64-bit finalizer of SplitMix (Steele, Lea, Flood 2014): every bit moves every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
