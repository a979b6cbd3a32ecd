"""Pieces of a text put one after another, so that many patterns scan them in one go each."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import accumulate

import regex

_DIGITS = regex.compile(r"\d+")

LONG = 4096
"""A word or line of more characters than this is seen in pieces around its digits and signs:
without a limit some patterns take time that grows with the square of its length."""
MOST_DOTS = 40
"""More parts in a row with dots between them are no host name and no address: Presidio's pattern
for URLs tries every ending of a name at every dot from every letter before it."""
_DOTTED = regex.compile(rf"(?:[A-Za-z0-9\-]++\.){{{MOST_DOTS + 1},}}+")
_NEAR = 64

Span = tuple[int, int]


class Joined:
    """Stretches of `text` with a sign between them that no match can go over."""

    def __init__(self, text: str, spans: list[Span], between: str) -> None:
        self.whole, self.spans = text, spans
        self.text = between.join([text[start:end] for start, end in spans])
        lengths = (end - start + len(between) for start, end in spans[:-1])
        self._starts = list(accumulate(lengths, initial=0))

    def place(self, start: int, end: int) -> Span:
        """Where a match stands in the whole text."""
        at = bisect_right(self._starts, start) - 1
        shift = self.spans[at][0] - self._starts[at]
        return start + shift, end + shift


class Places:
    """Where the digits and signs of one text are, worked out as patterns ask for them."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def digits(self) -> list[Span]:
        """Runs of digits."""
        return [match.span() for match in _DIGITS.finditer(self.text)]

    @cached_property
    def _digit_words(self) -> list[tuple[int, Span]]:
        """Words with digits, and how many in a row each holds."""
        found = list(words(self.text, self.digits))
        runs, most = iter([*self.digits, (len(self.text) + 1, 0)]), []
        start, end = next(runs)
        for _, last in found:
            longest = 0
            while start < last:
                longest = max(longest, end - start)
                start, end = next(runs)
            most.append(longest)
        return list(zip(most, found, strict=True))

    def runs(self, digits: int) -> list[Span]:
        """Runs of so many digits or more."""
        return [run for run in self.digits if run[1] - run[0] >= digits]

    def with_digits(self, digits: int) -> list[Span]:
        """The words that hold so many digits in a row."""
        return [word for most, word in self._digit_words if most >= digits]

    def with_signs(self, signs: regex.Pattern[str], low: int) -> list[Span]:
        """The words of `low` characters or more that hold one of the signs."""
        hits = (match.span() for match in signs.finditer(self.text))
        spans = [part for word in words(self.text, hits) for part in self._undotted(*word)]
        return [span for span in spans if span[1] - span[0] >= low]

    def _undotted(self, start: int, end: int) -> list[Span]:
        """A word, or what is left of it without the rows of parts that are no host name."""
        if self.text.count(".", start, end) <= MOST_DOTS:
            return [(start, end)]
        parts = []
        for row in _DOTTED.finditer(self.text, start, end):
            parts.append((start, row.start()))
            start = row.end()
        return [*parts, (start, end)]


def words(text: str, hits: Iterable[Span]) -> Iterator[Span]:
    """The stretches without blanks in which `hits` stand, in order, each once."""
    last = 0
    for start, end in hits:
        if start < last:
            continue
        first = max(last, start - _left(text, start))
        last = end + _right(text, end)
        yield first, last


def lines(text: str, hits: Iterable[Span]) -> Iterator[Span]:
    """The lines in which `hits` stand, in order, each once."""
    last = 0
    for start, end in hits:
        if start < last:
            continue
        low, high = max(last, start - LONG // 2), end + LONG // 2
        first = max(low, text.rfind("\n", low, start) + 1)
        last = text.find("\n", end, high)
        last = min(high, len(text)) if last < 0 else last
        yield first, last


def around(hits: Iterable[Span], margin: int, length: int) -> list[Span]:
    """The hits with `margin` characters on both sides; those that meet are one."""
    spans: list[Span] = []
    for start, end in hits:
        start, end = max(0, start - margin), min(length, end + margin)
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
    return spans


def _left(text: str, at: int) -> int:
    """Characters without a blank that stand before `at`."""
    length = 0
    for limit in (_NEAR, LONG // 2):
        before = text[max(0, at - limit) : at]
        if not before or before[-1].isspace():
            return 0
        length = len(before.rsplit(None, 1)[-1])
        if length < len(before):
            break
    return length


def _right(text: str, at: int) -> int:
    length = 0
    for limit in (_NEAR, LONG // 2):
        behind = text[at : at + limit]
        if not behind or behind[0].isspace():
            return 0
        length = len(behind.split(None, 1)[0])
        if length < len(behind):
            break
    return length
