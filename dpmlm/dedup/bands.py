"""Which texts may be near-duplicates: MinHash signatures cut into bands, by sorting.

LSH banding: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4: a pair of
similarity s shares one of b bands of r values with probability 1 - (1 - s^r)^b. Each band of a
signature is hashed to one 64-bit key; texts with equal keys share a bucket. A collision of keys
makes a candidate that the proof refuses, never a pair that is lost.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from dpmlm.dedup.signatures import EMPTY, PERMUTATIONS

MISS = 1e-3
"""Highest probability to overlook a pair that is just as similar as the threshold."""

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

    Memory: the keys of some bands of all texts while it is made (at most a gigabyte, by passing
    over the signatures again), then eight bytes a band of the texts that share one.
    """

    def __init__(self, numbers: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        """Numbers of the texts [C] and their keys [C, bands], in any order; use `of`."""
        order = np.argsort(numbers)
        self.numbers = numbers[order]
        """Of the texts that share a band, ascending [C]."""
        self._keys = keys[order]

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
            for column in _gather(signatures, rows, some, used).T:
                shares |= _repeated(column)
        used[used] = shares
        return cls(numbers[used], _gather(signatures, rows, range(bands), used))

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """Each band with each of its buckets of two texts or more, texts ascending."""
        for band in range(self._keys.shape[1]):
            order = np.argsort(self._keys[:, band], kind="stable")
            ordered = self._keys[order, band]
            borders = np.flatnonzero(np.diff(ordered)) + 1
            starts = np.concatenate([[0], borders]) if len(order) else borders
            sizes = np.diff(starts, append=len(order))
            for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist()):
                yield band, self.numbers[order[start : start + size]].tolist()

    def shared_before(self, band: int, left: int, right: int) -> bool:
        """Whether two texts were in one bucket of an earlier band."""
        a, b = np.searchsorted(self.numbers, (left, right))
        return bool((self._keys[a, :band] == self._keys[b, :band]).any())


def _gather(
    signatures: Chunks, rows: int, bands: range, used: NDArray[np.bool_]
) -> NDArray[np.uint64]:
    parts, done = [np.empty((0, len(bands)), dtype=np.uint64)], 0
    for values in signatures():
        parts.append(band_keys(values[used[done : done + len(values)]], rows, bands))
        done += len(values)
    return np.concatenate(parts)


def _repeated(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each key occurs elsewhere too."""
    order = np.argsort(keys)
    same = keys[order[1:]] == keys[order[:-1]]
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[order[1:][same]] = repeated[order[:-1][same]] = True
    return repeated
