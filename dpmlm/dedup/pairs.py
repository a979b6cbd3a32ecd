"""The proof of near-duplicates: exact similarity of candidates, clusters of what it joins.

Most candidates are refused many at a time, by how many hashes of shingles they share: two different
shingles of one hash, of 2^64, could hide a pair, and none can make one. What is left is judged on
the shingles themselves. Memory: the texts that have a likely partner, not the corpus.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dpmlm.dedup.bands import Buckets
from dpmlm.dedup.clusters import Clusters
from dpmlm.dedup.shingles import batches, jaccard, shingle_hashes, shingle_set

_CACHED_SETS = 4096
_MANY = 16
"""Texts from which on it pays to look at all of them at once."""
_FIRST_TRIED = 4
"""Clusters whose first text is tried before all of many texts are looked at."""

Numbers = NDArray[np.int64]


class Proofs:
    """Exact Jaccard similarity of texts, by number."""

    def __init__(self, texts: dict[int, str], threshold: float) -> None:
        self._threshold = threshold
        self._shingles = lru_cache(maxsize=_CACHED_SETS)(lambda text: shingle_set(texts[text]))
        self._texts = texts
        self._ids: dict[int, NDArray[np.int64]] = {}
        self._marked = np.zeros(0, dtype=bool)

    def prepare(self, bucket: list[int]) -> None:
        """Hash the shingles of a bucket, for `worth_a_proof` among its texts."""
        # A text that is no likely partner of any other is not held, and never asked about.
        self._ids, different = _dense_ids({t: self._texts[t] for t in bucket if t in self._texts})
        self._marked = np.zeros(different, dtype=bool)

    def similarity(self, left: int, right: int) -> float | None:
        """Of two texts, if it reaches the threshold."""
        similarity = jaccard(self._shingles(left), self._shingles(right))
        return similarity if similarity >= self._threshold else None

    def worth_a_proof(self, text: int, others: Numbers) -> NDArray[np.bool_]:
        """Whether each of `others`, one at least, shares enough hashes with `text`, all of the
        bucket that was prepared last."""
        mine, theirs = self._ids[text], [self._ids[other] for other in others.tolist()]
        sizes = np.array([len(ids) for ids in theirs])
        self._marked[mine] = True
        hits = self._marked[np.concatenate(theirs)]
        self._marked[mine] = False
        shared = np.add.reduceat(hits, np.cumsum(sizes) - sizes, dtype=np.int64)
        least = self._threshold * (1 - 1e-9)
        worth: NDArray[np.bool_] = shared >= least * (len(mine) + sizes - shared)
        return worth


def _dense_ids(texts: dict[int, str]) -> tuple[dict[int, NDArray[np.int64]], int]:
    """The different shingles of each text as whole numbers from 0, and how many there are."""
    names, spelt = list(texts), list(texts.values())
    parts: list[NDArray[np.uint64]] = []
    for first, last in batches(spelt):
        together, counts = shingle_hashes(spelt[first:last])
        parts += [np.unique(part) for part in np.split(together, np.cumsum(counts)[:-1])]
    if not parts:
        return {}, 0
    different, ids = np.unique(np.concatenate(parts), return_inverse=True)
    borders = np.cumsum([len(part) for part in parts])[:-1]
    return dict(zip(names, np.split(ids, borders), strict=True)), len(different)


def near_clusters(buckets: Buckets, proofs: Proofs) -> Clusters:
    """All candidates joined that are proven, each pair of two clusters tried until one is.

    A bucket of a thousand copies of one template costs a thousand proofs, not half a million:
    within it, what is in one cluster already is passed over at once.
    """
    clusters = Clusters()
    for band, bucket in buckets:
        of_each = [clusters.root(text) for text in bucket]
        if len(set(of_each)) == 1:
            continue
        if len(bucket) > _MANY:
            proofs.prepare(bucket)
        texts, roots = np.array(bucket), np.array(of_each)
        if len(bucket) == 2:  # most of them
            if buckets.candidates(band, bucket[1], texts[:1])[0]:
                _prove(clusters, proofs, *bucket)
            continue
        for place in range(1, len(bucket)):
            if (roots[:place] != roots[place]).any():
                _join_earlier(clusters, buckets, proofs, band, texts[: place + 1], roots)
    return clusters


def _prove(clusters: Clusters, proofs: Proofs, earlier: int, later: int) -> bool:
    """Join two texts if they are as similar as the threshold."""
    similarity = proofs.similarity(earlier, later)
    if similarity is not None:
        clusters.join(later, earlier, similarity)
    return similarity is not None


def _join_earlier(
    clusters: Clusters,
    buckets: Buckets,
    proofs: Proofs,
    band: int,
    texts: Numbers,
    roots: Numbers,
) -> None:
    """Join the last of `texts` with every cluster among the others that a proof leads to.

    `roots` holds the smallest text of each one's cluster, and is kept up to date.
    """
    place = len(texts) - 1
    last = int(texts[place])

    def others() -> Numbers:
        return np.flatnonzero(roots[:place] != roots[place])

    def tried(other: int) -> None:
        if _prove(clusters, proofs, int(texts[other]), last):
            mine, theirs = roots[place], roots[other]
            roots[(roots == mine) | (roots == theirs)] = min(mine, theirs)

    open_ = others()
    if len(open_) > _MANY:
        # Of a cluster in which all are alike the first is enough, and saves looking at the rest.
        _, firsts = np.unique(roots[open_], return_index=True)
        quick = open_[np.sort(firsts)[:_FIRST_TRIED]]
        for other in quick[buckets.candidates(band, last, texts[quick])].tolist():
            tried(other)
        open_ = others()
        open_ = open_[~np.isin(open_, quick)]
    # Two that met in an earlier band and are not joined were refused there.
    open_ = open_[buckets.candidates(band, last, texts[open_])]
    if len(open_) > _MANY:
        open_ = open_[proofs.worth_a_proof(last, texts[open_])]
    for other in open_.tolist():
        if roots[other] != roots[place]:
            tried(other)


def across_split(
    buckets: Buckets, proofs: Proofs, *, train: NDArray[np.bool_], held_out: NDArray[np.bool_]
) -> Iterator[tuple[int, int, float]]:
    """(held-out text, training text, similarity) once for each text that is held out alone and
    has a near-duplicate in training. `train` and `held_out` say where each text stands."""
    unknown = held_out & ~train
    for band, bucket in buckets:
        texts = np.array(bucket)
        trained = texts[train[texts]]
        if len(trained) > _MANY and unknown[texts].any():
            proofs.prepare(bucket)
        for text in texts[unknown[texts]].tolist():
            likely = trained[buckets.candidates(band, text, trained)]
            if len(likely) > _MANY:
                likely = likely[proofs.worth_a_proof(text, likely)]
            for other in likely.tolist():
                similarity = proofs.similarity(other, text)
                if similarity is not None:
                    yield text, other, similarity
                    unknown[text] = False
                    break
