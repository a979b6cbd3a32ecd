"""Windows: which part of a long document a row shows on one visit."""

import numpy as np

from dpmlm.errors import UserError
from dpmlm.masking.example import Example
from dpmlm.masking.spec import SPECIALS_PER_ROW


def window_starts(length: int, content: int, stride: int = 1) -> np.ndarray:
    """Every start a window of `content` tokens may have in `length` tokens, int64 [S], S >= 1.

    Multiples of `stride` that leave a full window, and the last full window. A stride above
    `content` counts as `content`: no token of a document is out of reach.
    """
    last = max(0, length - content)
    starts = np.arange(0, last + 1, max(1, min(stride, content)))
    return starts if starts[-1] == last else np.append(starts, last)


def draw_window(
    tokens: np.ndarray, window: int, rng: np.random.Generator, *, stride: int = 1
) -> slice:
    """The `window - 2` tokens of `tokens` that a row shows: one uniform of `rng` picks the start.

    All of `tokens` when they fit. stride 1 draws any start; a larger one draws among
    `window_starts`.
    """
    content = window - SPECIALS_PER_ROW
    return window_at(tokens, content, float(rng.random()), stride)


def window_at(tokens: np.ndarray, content: int, uniform: float, stride: int) -> slice:
    """`draw_window` with its uniform in [0, 1) given."""
    last = len(tokens) - content
    if last <= 0:
        return slice(0, len(tokens))
    if stride <= 1:
        start = int(uniform * (last + 1))
    else:
        step = min(stride, content)
        whole = last // step + 1
        count = whole + (last % step != 0)
        start = min(int(uniform * count) * step, last)
    return slice(start, start + content)


def secret_window(example: Example, content: int, uniform: float) -> slice:
    """A window that shows all of a canary's secret: uniform among those that do, any stride.

    Raises UserError when the span lies outside of the example.
    """
    length = len(example.tokens)
    first, end = example.secret_span or (0, 0)
    if not 0 <= first < end <= length:
        raise UserError(
            f"a canary of {length} tokens with its secret at {first}:{end}",
            "a secret span is not empty and lies inside its example",
            "plan the canaries again",
        )
    low, high = max(0, end - content), min(first, max(0, length - content))
    start = low + int(uniform * (high - low + 1))
    return slice(start, min(length, start + content))


def maskable_window(
    maskable: np.ndarray, content: int, uniform: float, stride: int
) -> slice | None:
    """A window with a maskable token, uniform among those; None when no token is maskable.

    For the rare document whose drawn window shows special tokens only. `maskable` is bool [N].
    """
    before = np.concatenate([[0], np.cumsum(maskable)])
    if before[-1] == 0:
        return None
    starts = window_starts(len(maskable), content, stride)
    ends = np.minimum(starts + content, len(maskable))
    starts = starts[before[ends] > before[starts]]
    start = int(starts[int(uniform * len(starts))])
    return slice(start, min(len(maskable), start + content))
