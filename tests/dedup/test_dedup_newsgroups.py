"""All true near-duplicates of 11,314 real posts are found; the truth by an exact prefix filter."""

import math
import os
import random
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from dpmlm.config import DedupConfig
from dpmlm.corpus import Document, read_corpus
from dpmlm.dedup import deduplicate
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
        and buckets.candidates(band, later, np.array([earlier])).all()
        and proofs.similarity(later, earlier) is not None
    }


def read_texts() -> list[str]:
    if "DPMLM_DATA" not in os.environ:
        pytest.skip("DPMLM_DATA is not set: the folder with newsgroups/train.jsonl")
    path = Path(os.environ["DPMLM_DATA"]) / "newsgroups" / "train.jsonl"
    posts = [each for each in read_corpus(path, id="id") if isinstance(each, Document)]
    return sorted({post.text for post in posts})


@pytest.mark.full
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_every_true_pair_of_the_posts_is_found(threshold: float) -> None:
    texts = read_texts()
    started = time.process_time()
    found = verified_pairs(texts, threshold)
    seconds = time.process_time() - started
    truth = true_pairs(texts, threshold)
    print(f"threshold {threshold}: {len(found)} of {len(truth)} pairs in {seconds:.1f} s")
    assert found == truth
    assert seconds < 60


def planted(text: str, draw: random.Random) -> str:
    """The text with some words changed, so that it stays at or above 0.8."""
    words = text.split()
    changed = list(words)
    for place in draw.sample(range(len(words)), len(words)):
        before = changed[place]
        changed[place] = f"changed{draw.randrange(10**6)}"
        if jaccard(shingle_set(" ".join(changed)), shingle_set(text)) < 0.8:
            changed[place] = before
            break
    return " ".join(changed)


@pytest.mark.full
def test_planted_pairs_are_found_and_nothing_false_is_removed() -> None:
    """2,000 posts with a changed copy each, as similar to it as the threshold just allows."""
    draw = random.Random(1)
    long = [text for text in read_texts() if 60 <= len(text.split()) <= 400]
    sources = draw.sample(long, 2000)
    texts = [*read_texts(), *(planted(text, draw) for text in sources)]
    documents = [
        {"id": f"{n:06d}", "text": text, "unit": f"u{n}", "split": "train"}
        for n, text in enumerate(texts)
    ]
    result = deduplicate(documents, DedupConfig(), unit="document", key=bytes(32))
    gone = {removal.id: removal for _, removal in result.removed}
    copies = [document["id"] for document in documents[-2000:]]
    missed = [name for name in copies if name not in gone]
    text_of = {document["id"]: document["text"] for document in documents}
    for removal in gone.values():
        pair = (text_of[removal.id], text_of[removal.duplicate_of])
        assert jaccard(*map(shingle_set, pair)) == removal.similarity >= 0.8
    print(f"planted: {2000 - len(missed)} of 2000 found, {len(gone)} removed, none falsely")
    assert len(missed) <= 10  # 0.5 %
