"""The proof of near-duplicates: exact similarity of candidates, clusters of what it joins.

Memory: the texts that have a candidate, not the corpus.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dpmlm.dedup.bands import Buckets
from dpmlm.dedup.clusters import Clusters
from dpmlm.dedup.shingles import jaccard, shingle_set

_CACHED_SETS = 4096


class Proofs:
    """Exact Jaccard similarity of texts, by the shingles themselves."""

    def __init__(self, texts: dict[int, str], threshold: float) -> None:
        self._threshold = threshold
        self._shingles = lru_cache(maxsize=_CACHED_SETS)(lambda text: shingle_set(texts[text]))

    def similarity(self, left: int, right: int) -> float | None:
        """Of two texts, if it reaches the threshold."""
        similarity = jaccard(self._shingles(left), self._shingles(right))
        return similarity if similarity >= self._threshold else None


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
        if buckets.candidates(band, earlier, later):
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
                if not buckets.candidates(band, other, text):
                    continue
                similarity = proofs.similarity(other, text)
                if similarity is not None:
                    yield text, other, similarity
                    unknown[text] = False
                    break
