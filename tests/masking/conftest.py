"""A small WordPiece-like vocabulary, made by hand so that tests know every id."""

import numpy as np
import pytest

from dpmlm.masking import Example, TokenTable

VOCABULARY = 200


@pytest.fixture(scope="session")
def table() -> TokenTable:
    """Ids 0-4: PAD UNK CLS SEP MASK; 5-119 begin a word; 120-198 continue one; 199 is special."""
    special = np.zeros(VOCABULARY, dtype=bool)
    special[[0, 1, 2, 3, 4, 199]] = True
    continuation = np.zeros(VOCABULARY, dtype=bool)
    continuation[120:199] = True
    return TokenTable(
        vocab_size=VOCABULARY,
        mask_id=4,
        pad_id=0,
        cls_id=2,
        sep_id=3,
        special=special,
        continuation=continuation,
        closes=np.zeros(VOCABULARY, dtype=bool),
    )


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """Lengths from empty to ten windows, an unknown token now and then, names in most."""
    rng = np.random.default_rng(5)
    lengths = [0, 1, 2, 3, 5, 8, 13, 30, 31, 40, 300, *rng.integers(1, 60, 60)]
    made = []
    for i, length in enumerate(lengths):
        tokens = rng.integers(5, 199, length)
        tokens[rng.random(length) < 0.05] = 1
        names = rng.choice(np.array([0, 0, 0, 0, 1, 2], dtype=np.uint8), length)
        made.append(Example(f"doc-{i}", tokens, names=names if i % 4 else None))
    return made
