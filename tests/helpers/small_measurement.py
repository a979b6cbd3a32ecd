"""Measurements made up from a seed."""

import numpy as np

from dpmlm.evaluation import Measurement


def made(seed, units=30, right=0.3, per_unit=2, loss=3.0, bytes=True):
    """Documents of `units` units with a few masked tokens each."""
    rng = np.random.default_rng(seed)
    count = units * per_unit
    document = np.sort(rng.integers(0, count, 10 * count))
    tokens = len(document)
    first = rng.random(tokens) < right
    content = np.full(count, 40)
    return Measurement(
        documents=tuple(f"d{i}" for i in range(count)),
        units=tuple(f"u{i // per_unit}" for i in range(count)),
        content=content,
        bytes=content * 5 if bytes else content * 0,
        document=document,
        bucket=np.full(tokens, -1, dtype=np.int8),
        loss=rng.gamma(2, loss / 2, tokens),
        first=first,
        five=first | (rng.random(tokens) < 0.2),
        confidence=rng.random(tokens),
    )
