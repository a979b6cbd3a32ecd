"""What is refused by hashes, against the shingles themselves."""

import random

import numpy as np
import pytest
from variants import rest_in_full

from dpmlm.dedup.pairs import Proofs
from dpmlm.dedup.shingles import jaccard, shingle_set


@pytest.mark.parametrize("threshold", rest_in_full([0.5, 0.8, 1.0], [0.8]))
def test_what_is_worth_a_proof_is_what_a_proof_would_bear_out(threshold: float) -> None:
    draw = random.Random(1)
    words = [f"w{n}" for n in range(40)]
    texts = {}
    for number in draw.sample(range(1000), 60):
        changed = set(draw.sample(range(40), draw.choice([0, 1, 2, 5])))
        texts[number] = " ".join("x" if n in changed else w for n, w in enumerate(words))
    proofs = Proofs(texts, threshold)
    bucket = sorted(texts)
    proofs.prepare(bucket)
    found = 0
    for text in bucket:
        others = np.array([other for other in bucket if other != text])
        worth = proofs.worth_a_proof(text, others)
        for other, likely in zip(others.tolist(), worth.tolist()):
            exact = jaccard(shingle_set(texts[text]), shingle_set(texts[other]))
            assert likely == (exact >= threshold)
            assert proofs.similarity(text, other) == (exact if likely else None)
            found += likely
    assert 0 < found < 60 * 59
