"""All true near-duplicates of 11,314 real posts are found; the truth by an exact prefix filter."""

import math
import os
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from dpmlm.corpus import Document, read_corpus
from dpmlm.dedup.bands import Buckets
from dpmlm.dedup.pairs import Proofs
from dpmlm.dedup.shingles import jaccard, shingle_set
from dpmlm.dedup.signatures import signatures


def true_pairs(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    """Every pair at or above the threshold. Two sets that similar share one of the rarest
    n - ceil(threshold n) + 1 elements of each (Chaudhuri, Ganti, Kaushik 2006)."""
    sets = [shingle_set(text) for text in texts]
    frequency = Counter(element for each in sets for element in each)
    index: dict[str, list[int]] = defaultdict(list)
    found = set()
    for later, elements in enumerate(sets):
        rarest = sorted(elements, key=lambda element: (frequency[element], element))
        prefix = rarest[: len(rarest) - math.ceil(threshold * len(rarest) - 1e-9) + 1]
        for earlier in {number for element in prefix for number in index[element]}:
            if jaccard(elements, sets[earlier]) >= threshold:
                found.add((later, earlier))
        for element in prefix:
            index[element].append(later)
    return found


def test_the_truth_is_brute_force() -> None:
    words = [f"w{n}" for n in range(40)]
    texts = [" ".join(words[n % 7 : 30 + n % 5]) + " x" * (n % 3) for n in range(40)]
    wanted = {
        (a, b)
        for a in range(40)
        for b in range(a)
        if jaccard(shingle_set(texts[a]), shingle_set(texts[b])) >= 0.8
    }
    assert true_pairs(texts, 0.8) == wanted
    assert wanted


def verified_pairs(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    values, proofs = signatures(texts), Proofs(dict(enumerate(texts)), threshold)
    buckets = Buckets.of(lambda: iter([values]), np.arange(len(texts)), threshold)
    return {
        (later, earlier)
        for band, bucket in buckets
        for later in bucket
        for earlier in bucket
        if earlier < later
        and not buckets.shared_before(band, later, earlier)
        and proofs.similarity(later, earlier) is not None
    }


@pytest.mark.full
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_every_true_pair_of_the_posts_is_found(threshold: float) -> None:
    if "DPMLM_DATA" not in os.environ:
        pytest.skip("DPMLM_DATA is not set: the folder with newsgroups/train.jsonl")
    path = Path(os.environ["DPMLM_DATA"]) / "newsgroups" / "train.jsonl"
    posts = [each for each in read_corpus(path, id="id") if isinstance(each, Document)]
    texts = sorted({post.text for post in posts})
    started = time.process_time()
    found = verified_pairs(texts, threshold)
    seconds = time.process_time() - started
    truth = true_pairs(texts, threshold)
    print(f"threshold {threshold}: {len(found)} of {len(truth)} pairs in {seconds:.1f} s")
    assert found == truth
    assert seconds < 60
