"""The proof of near-duplicates: exact similarity of candidates, clusters of what it joins.

Memory: the texts that have a candidate, not the corpus.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dpmlm.dedup.bands import Buckets
from dpmlm.dedup.clusters import Clusters
from dpmlm.dedup.shingles import batches, jaccard, shingle_hashes, shingle_set

_CACHED_SETS = 4096


class Proofs:
    """Exact Jaccard similarity of texts.

    Most candidates are refused by the hashes of their shingles, made in bulk: two different
    shingles of one hash, of 2^64, could hide a pair, and none can make one. What is left is
    judged on the shingles themselves.
    """

    def __init__(self, texts: dict[int, str], threshold: float) -> None:
        self._threshold = threshold
        self._hashes = _sorted_hashes(texts)
        self._shingles = lru_cache(maxsize=_CACHED_SETS)(lambda text: shingle_set(texts[text]))

    def similarity(self, left: int, right: int) -> float | None:
        """Of two texts, if it reaches the threshold."""
        small, large = sorted((self._hashes[left], self._hashes[right]), key=len)
        least = self._threshold * (1 - 1e-9)
        if len(small) < least * len(large):
            return None  # it is at most small / large
        at = np.minimum(np.searchsorted(large, small), len(large) - 1)
        shared = int((large[at] == small).sum())
        if shared < least * (len(small) + len(large) - shared):
            return None
        similarity = jaccard(self._shingles(left), self._shingles(right))
        return similarity if similarity >= self._threshold else None


def _sorted_hashes(texts: dict[int, str]) -> dict[int, NDArray[np.uint64]]:
    """The different shingles of each text as hashes, ascending."""
    names, spelt = list(texts), list(texts.values())
    hashes: dict[int, NDArray[np.uint64]] = {}
    for first, last in batches(spelt):
        together, counts = shingle_hashes(spelt[first:last])
        ends = np.cumsum(counts)
        for name, start, end in zip(names[first:last], ends - counts, ends):
            hashes[name] = np.unique(together[start:end])
    return hashes


def near_clusters(buckets: Buckets, proofs: Proofs) -> Clusters:
    """All candidates joined that are proven, each pair of two clusters tried until one is.

    A bucket of a thousand copies of one template costs a thousand proofs, not half a million:
    within it, what is in one cluster already is passed over at once.
    """
    clusters = Clusters()
    for band, bucket in buckets:
        groups: list[list[int]] = []
        for later in bucket:
            mine, others = [later], []
            for group in groups:
                if _join(clusters, buckets, proofs, band, later, group):
                    mine = group + mine
                else:
                    others.append(group)
            groups = [*others, mine]
    return clusters


def _join(
    clusters: Clusters, buckets: Buckets, proofs: Proofs, band: int, later: int, group: list[int]
) -> bool:
    if clusters.root(later) == clusters.root(group[0]):
        return True
    for earlier in group:
        # Two that met in an earlier band and are not joined were refused there.
        if buckets.shared_before(band, earlier, later):
            continue
        similarity = proofs.similarity(earlier, later)
        if similarity is not None:
            clusters.join(later, earlier, similarity)
            return True
    return False


def across_split(
    buckets: Buckets, proofs: Proofs, *, train: NDArray[np.bool_], held_out: NDArray[np.bool_]
) -> Iterator[tuple[int, int, float]]:
    """(held-out text, training text, similarity) once for each text that is held out alone and
    has a near-duplicate in training. `train` and `held_out` say where each text stands."""
    unknown = held_out & ~train
    for band, bucket in buckets:
        trained = [text for text in bucket if train[text]]
        for text in [text for text in bucket if unknown[text]]:
            for other in trained:
                if buckets.shared_before(band, other, text):
                    continue
                similarity = proofs.similarity(other, text)
                if similarity is not None:
                    yield text, other, similarity
                    unknown[text] = False
                    break
