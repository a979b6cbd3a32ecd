"""All true near-duplicates of 11,314 real posts are found; the truth by an exact prefix filter."""

import math
import os
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from dpmlm.corpus import Document, read_corpus
from dpmlm.dedup.candidates import verified_pairs
from dpmlm.dedup.shingles import jaccard, shingle_set


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


@pytest.mark.full
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_every_true_pair_of_the_posts_is_found(threshold: float) -> None:
    if "DPMLM_DATA" not in os.environ:
        pytest.skip("DPMLM_DATA is not set: the folder with newsgroups/train.jsonl")
    path = Path(os.environ["DPMLM_DATA"]) / "newsgroups" / "train.jsonl"
    posts = [each for each in read_corpus(path, id="id") if isinstance(each, Document)]
    texts = sorted({post.text for post in posts})
    started = time.process_time()
    found = {(a, b) for a, b, _ in verified_pairs(texts, threshold, lambda a, b: True)}
    seconds = time.process_time() - started
    truth = true_pairs(texts, threshold)
    print(f"threshold {threshold}: {len(found)} of {len(truth)} pairs in {seconds:.1f} s")
    assert found == truth
    assert seconds < 60
