"""Which texts may be near-duplicates: MinHash signatures cut into bands, by sorting.

LSH banding: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4: a pair of
similarity s shares one of b bands of r values with probability 1 - (1 - s^r)^b. Each band of a
signature is hashed to one 64-bit key; texts with equal keys share a bucket. A collision of keys
makes a candidate that the proof refuses, never a pair that is lost.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from dpmlm.dedup.signatures import EMPTY, PERMUTATIONS

MISS = 1e-3
"""Highest probability to overlook a pair that is just as similar as the threshold."""

UNLIKELY = 1e-6
"""Probability that a pair at the threshold agrees on too few values of its signatures."""

_KEYS_HELD = 1 << 27  # band keys of all texts held at once: 1 GiB
_BASE = np.uint64(0x9E3779B97F4A7C15)

Chunks = Callable[[], Iterator[NDArray[np.uint32]]]
"""Starts a pass over all signatures [N, PERMUTATIONS], in chunks of rows."""


def bands_for(threshold: float) -> tuple[int, int]:
    """Bands b and rows r for a threshold in (0, 1]: the longest rows that miss at most `MISS`.

    Longer rows give fewer candidates to verify; at 0.8 this is 25 x 5, at 0.5 it is 64 x 2.
    """
    for rows in range(PERMUTATIONS // 2, 1, -1):
        bands = PERMUTATIONS // rows
        if (1 - threshold**rows) ** bands <= MISS:
            return bands, rows
    return PERMUTATIONS, 1


def band_keys(values: NDArray[np.uint32], rows: int, bands: range) -> NDArray[np.uint64]:
    """Keys [N, len(bands)] of some bands of signatures [N, PERMUTATIONS]."""
    keys = np.full((len(values), len(bands)), rows, dtype=np.uint64)
    for which, band in enumerate(bands):
        for place in range(band * rows, (band + 1) * rows):
            keys[:, which] = (keys[:, which] ^ values[:, place]) * _BASE
            keys[:, which] ^= keys[:, which] >> np.uint64(29)
    return keys


class Buckets:
    """Texts that share a band with another text: the rest cannot be candidates.

    Memory: the keys of some bands of all texts while it is made (at most a gigabyte, for a moment
    twice that, by passing over the signatures again), then signature and keys of the texts that
    share a band.
    """

    def __init__(
        self,
        numbers: NDArray[np.int64],
        keys: NDArray[np.uint64],
        values: NDArray[np.uint32],
        threshold: float,
    ) -> None:
        """Of some texts [C], in any order, their numbers, keys [C, bands] and signatures
        [C, PERMUTATIONS]; use `of`."""
        order = np.argsort(numbers)
        self.numbers = numbers[order]
        """Of the texts that share a band, ascending [C]."""
        self._keys, self._values = keys[order], values[order]
        self._least = int(binom.ppf(UNLIKELY, PERMUTATIONS, threshold))

    @classmethod
    def of(cls, signatures: Chunks, numbers: NDArray[np.int64], threshold: float) -> "Buckets":
        """Buckets for pairs from `threshold` on.

        `numbers` [N] names the text of each signature; one that is negative is left out, and so
        is a text without words.
        """
        bands, rows = bands_for(threshold)
        wordless = [(values == EMPTY).all(axis=1) for values in signatures()]
        used = (numbers >= 0) & ~np.concatenate([np.zeros(0, bool), *wordless])
        shares = np.zeros(int(used.sum()), dtype=bool)
        step = max(1, min(bands, _KEYS_HELD // max(1, len(shares))))
        for first in range(0, bands, step):
            some = range(first, min(first + step, bands))
            keys = [band_keys(values, rows, some) for values in _only(signatures, used)]
            for column in np.concatenate(keys).T if keys else ():
                shares |= _repeated(column)
        used[used] = shares
        empty = np.empty((0, PERMUTATIONS), dtype=np.uint32)
        values = np.concatenate([empty, *_only(signatures, used)])
        return cls(numbers[used], band_keys(values, rows, range(bands)), values, threshold)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """Each band with each of its buckets of two texts or more, texts ascending."""
        for band, places in self._buckets():
            yield band, self.numbers[places].tolist()

    def _buckets(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        for band in range(self._keys.shape[1]):
            order = np.argsort(self._keys[:, band], kind="stable")
            new = np.diff(self._keys[order, band]) != 0
            edges = np.flatnonzero(np.concatenate([[True], new, [True]]))
            shared = np.flatnonzero(np.diff(edges) > 1)
            for start, end in zip(edges[shared].tolist(), edges[shared + 1].tolist()):
                yield band, order[start:end]

    def candidates(self, band: int, text: int, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of `others` is to be proven with `text`, all of one bucket of this band:
        they shared no band before, and agree on as many values as a pair at the threshold does
        but once in a million."""
        at, them = np.searchsorted(self.numbers, text), np.searchsorted(self.numbers, others)
        new = ~(self._keys[them, :band] == self._keys[at, :band]).any(axis=1)
        new[new] = (self._values[them[new]] == self._values[at]).sum(axis=1) >= self._least
        return new

    def likely(self) -> NDArray[np.int64]:
        """Numbers of the texts that are to be proven with any other, ascending."""
        found = np.zeros(len(self.numbers), dtype=bool)
        for _, places in self._buckets():
            for place in places[~found[places]]:
                if not found[place]:
                    same = (self._values[places] == self._values[place]).sum(axis=1) >= self._least
                    if same.sum() > 1:  # itself is one
                        found[places[same]] = True
        return self.numbers[found]


def _only(signatures: Chunks, used: NDArray[np.bool_]) -> Iterator[NDArray[np.uint32]]:
    """Signatures of the texts that are used, chunk by chunk."""
    done = 0
    for values in signatures():
        yield values[used[done : done + len(values)]]
        done += len(values)


def _repeated(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each key occurs elsewhere too."""
    order = np.argsort(keys)
    same = keys[order[1:]] == keys[order[:-1]]
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[order[1:][same]] = repeated[order[:-1][same]] = True
    return repeated
