"""MinHash signatures in bulk, value for value those of datasketch's scheme `affine32`.

MinHash: Broder 1997. A shingle's hash is mixed once by the finalizer of MurmurHash3 and then
permuted by h -> a h + b modulo 2^32 with datasketch's constants; a signature holds the smallest
value under each permutation.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from dpmlm.dedup.shingles import batches, shingle_hashes

PERMUTATIONS = 128
"""Values in a signature."""
EMPTY = np.uint32(2**32 - 1)
"""Every value of the signature of a text without words."""


def signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Signatures [N, PERMUTATIONS]; memory beside the result is that of the longest text."""
    values = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    for first, last in batches(texts):
        hashes, counts = shingle_hashes(texts[first:last])
        values[first:last] = _smallest((hashes >> np.uint64(32)).astype(np.uint32), counts)
    return values


def _smallest(hashes: NDArray[np.uint32], counts: NDArray[np.int64]) -> NDArray[np.uint32]:
    values = np.full((len(counts), PERMUTATIONS), EMPTY, dtype=np.uint32)
    filled = np.flatnonzero(counts)
    if not len(filled):
        return values
    starts = (np.cumsum(counts) - counts)[filled]
    mixed, permuted = _murmur(hashes), np.empty_like(hashes)
    for which, (a, b) in enumerate(zip(*_constants())):
        np.multiply(mixed, a, out=permuted)
        np.add(permuted, b, out=permuted)
        values[filled, which] = np.minimum.reduceat(permuted, starts)
    return values


@cache
def _constants() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Factors and summands of the permutations, as datasketch draws them from its seed."""
    a, b = MinHash(num_perm=PERMUTATIONS, scheme="affine32").permutations
    return a, b


def _murmur(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The 32-bit finalizer of MurmurHash3 (Appleby)."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))
