"""Generators by name, and windows drawn from them."""

import numpy as np
import pytest

from dpmlm.errors import UserError
from dpmlm.masking import counter_rng, draw_window
from dpmlm.masking.window import window_starts


def test_names_are_not_confused() -> None:
    names: list[tuple[str | int, ...]] = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("abc", ""),
        (1,),
        ("1",),
        (-1,),
        (1, 1),
        (11,),
    ]
    drawn = {counter_rng(b"seed", *name).random() for name in names}
    assert len(drawn) == len(names)
    assert counter_rng(b"seed", np.int64(1)).random() == counter_rng(b"seed", 1).random()  # type: ignore[arg-type]
    assert counter_rng(b"seed", 1).random() != counter_rng(b"Seed", 1).random()


def test_the_stream_is_fixed() -> None:
    """A resumed run has to redraw the masks of the run it resumes, also on another version."""
    assert counter_rng(b"seed", "mask", "doc", 3).random(2).tolist() == FIXED


FIXED = [0.2898326427563156, 0.3467644167390971]


@pytest.mark.parametrize("seed", [b"", b"x" * 65])
def test_seeds_out_of_range_are_refused(seed: bytes) -> None:
    with pytest.raises(UserError):
        counter_rng(seed, "a")


def test_window_starts_reach_every_token() -> None:
    for length in range(0, 60):
        for content in (1, 5, 14):
            for stride in (1, 3, 14, 99):
                starts = window_starts(length, content, stride)
                assert len(set(starts.tolist())) == len(starts) >= 1
                shown = {p for s in starts for p in range(s, min(length, s + content))}
                assert shown == set(range(length))
                assert all(s + content <= max(length, content) for s in starts)


@pytest.mark.parametrize("stride", [1, 4, 10])
def test_windows_are_uniform_over_their_starts(stride: int) -> None:
    tokens = np.arange(33)
    rng = np.random.default_rng(0)
    drawn = [draw_window(tokens, 12, rng, stride=stride) for _ in range(8000)]
    assert {part.stop - part.start for part in drawn} == {10}
    starts = window_starts(33, 10, stride).tolist()
    counts = [sum(part.start == s for part in drawn) for s in starts]
    assert sum(counts) == 8000
    share = 8000 / len(starts)
    assert max(abs(c - share) for c in counts) < 4.5 * share**0.5


def test_a_short_document_is_shown_whole() -> None:
    assert draw_window(np.arange(10), 12, np.random.default_rng(0)) == slice(0, 10)
    assert draw_window(np.arange(0), 12, np.random.default_rng(0)) == slice(0, 0)
