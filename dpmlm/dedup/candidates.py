"""Pairs of texts that may be near-duplicates, by MinHash LSH, and the proof of each pair.

MinHash: Broder 1997. LSH banding: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets,
section 3.4: a pair of similarity s shares one of b bands of r values with 1 - (1 - s^r)^b.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from dpmlm.dedup.shingles import jaccard, shingle_hashes, shingle_set

PERMUTATIONS = 128
"""Values in a signature."""
MISS = 1e-3
"""Highest probability to overlook a pair that is just as similar as the threshold."""

_SCHEME = "affine32"
_CHUNK = 4096  # shingles hashed at once: 2 MiB of permuted values, however long the text
_CACHED_SETS = 512

Wanted = Callable[[int, int], bool]
Progress = Callable[[int, int], None]


def bands_for(threshold: float) -> tuple[int, int]:
    """Bands b and rows r for a threshold in (0, 1]: the longest rows that miss at most `MISS`.

    Longer rows give fewer candidates to verify; at 0.8 this is 25 x 5, at 0.5 it is 64 x 2.
    """
    for rows in range(PERMUTATIONS // 2, 1, -1):
        bands = PERMUTATIONS // rows
        if (1 - threshold**rows) ** bands <= MISS:
            return bands, rows
    return PERMUTATIONS, 1


def signatures(
    texts: Sequence[str], progress: Progress | None = None
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """MinHash signatures [N, PERMUTATIONS] and the number of distinct shingles [N].

    `progress` is called with texts done and texts in all.
    """
    values = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    sizes = np.empty(len(texts), dtype=np.int64)
    blank = MinHash(num_perm=PERMUTATIONS, hashfunc=_identity, scheme=_SCHEME)
    for index, text in enumerate(texts):
        hashes = (shingle_hashes(text) >> np.uint64(32)).astype(np.uint32)
        sketch = blank.copy()
        for start in range(0, len(hashes), _CHUNK):
            sketch.update_batch(hashes[start : start + _CHUNK].tolist())
        values[index], sizes[index] = sketch.hashvalues, len(hashes)
        if progress is not None and (index % 64 == 63 or index + 1 == len(texts)):
            progress(index + 1, len(texts))
    return values, sizes


def candidate_pairs(
    values: NDArray[np.uint32], sizes: NDArray[np.int64], threshold: float
) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) that share a band, in the order of positions.

    Only texts that share a band with another enter the index: the rest cannot be candidates,
    and the index costs about 9 KB a text where the signature costs half a kilobyte.
    """
    bands, rows = bands_for(threshold)
    index = MinHashLSH(num_perm=PERMUTATIONS, params=(bands, rows))
    for later in np.flatnonzero(_shares_a_band(values, bands, rows) & (sizes > 0)).tolist():
        sketch = MinHash(hashvalues=values[later], hashfunc=_identity, scheme=_SCHEME)
        for earlier in sorted(index.query(sketch)):
            yield later, earlier
        index.insert(later, sketch, check_duplication=False)


def verified_pairs(
    texts: Sequence[str],
    threshold: float,
    wanted: Wanted,
    progress: Progress | None = None,
) -> Iterator[tuple[int, int, float]]:
    """Pairs (later, earlier, similarity) whose exact Jaccard similarity reaches the threshold.

    `wanted` is asked before a candidate is verified, after all earlier pairs were yielded: the
    caller leaves out pairs that change nothing, or a thousand copies cost half a million proofs.
    """
    values, sizes = signatures(texts, progress)
    shingles = lru_cache(maxsize=_CACHED_SETS)(lambda index: shingle_set(texts[index]))
    for later, earlier in candidate_pairs(values, sizes, threshold):
        small, large = sorted((int(sizes[later]), int(sizes[earlier])))
        if small < threshold * large * (1 - 1e-9) or not wanted(later, earlier):
            continue  # similarity is at most small / large
        similarity = jaccard(shingles(later), shingles(earlier))
        if similarity >= threshold:
            yield later, earlier, similarity


def _shares_a_band(values: NDArray[np.uint32], bands: int, rows: int) -> NDArray[np.bool_]:
    shared = np.zeros(len(values), dtype=bool)
    for start in range(0, bands * rows, rows):
        band = np.ascontiguousarray(values[:, start : start + rows])
        whole = band.view(np.dtype((np.void, band.itemsize * rows))).ravel()
        _, place, count = np.unique(whole, return_inverse=True, return_counts=True)
        shared |= count[place] > 1
    return shared


def _identity(value: int) -> int:
    """Shingles are hashed already."""
    return value
