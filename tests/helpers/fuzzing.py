"""Random input for a fixed processor time, and strategies that several fuzz tests share."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Verbosity, given, seed, settings

TIMES = [
    pytest.param(float(os.environ.get("FUZZ_SECONDS", 0.3)), id="briefly"),
    pytest.param(60.0, id="long", marks=pytest.mark.full),
]
QUIETLY = settings(
    max_examples=40,
    database=None,
    deadline=None,
    verbosity=Verbosity.quiet,
    suppress_health_check=list(HealthCheck),
)


def fuzz(seconds: float, check: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> int:
    """Rounds of examples until the processor time is spent; how many rounds."""
    end, rounds = time.process_time() + seconds, 0
    while time.process_time() < end or not rounds:
        seed(rounds)(QUIETLY(given(*strategies)(check)))()
        rounds += 1
    return rounds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 1 << 70) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


def spoilt(content: bytes) -> st.SearchStrategy[bytes]:
    """`content`, some other bytes, and `content` with pieces replaced, doubled or gone."""
    place = st.integers(0, len(content))
    return st.one_of(
        st.just(content),
        st.binary(max_size=99),
        JSON.map(lambda value: json.dumps(value).encode()),
        st.tuples(place, place, st.binary(max_size=3)).map(
            lambda p: content[: min(p[:2])] + p[2] + content[max(p[:2]) :]
        ),
        st.tuples(place, st.integers(0, 4)).map(
            lambda p: content[: p[0]] + content[p[0] : p[0] + p[1]] * 2 + content[p[0] + p[1] :]
        ),
        st.tuples(place, st.integers(1, 255)).map(
            lambda p: bytes(b ^ p[1] if i == p[0] else b for i, b in enumerate(content))
        ),
    )
