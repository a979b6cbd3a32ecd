"""How a pattern is run so that it gives the matches of the whole text without reading all of it.

Four ways, by what the pattern needs (`needs.py`). Over the words that hold its digits or
signs, put one a line: a match without blanks stands in one word. At those words in the text itself,
where it looks far back. Over the surroundings of its digits, as far as a match reaches. Over
everything. Patterns that are run in one way share what was put together for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import regex

from dpmlm.scrub.patterns.needs import Needs, needs_of
from dpmlm.scrub.patterns.windows import Joined, Places, Span, around

_MARGINS = (16, 32, 64)
"""Characters beside digits, in steps so that patterns share windows; a longer match is looked for
everywhere."""

# Presidio's pattern looks for a letter and four digits anywhere behind it, in the whole text.
_PAN = r"\b((?=.*?[a-zA-Z])(?=.*?[0-9]{4})[\w@#$%^?~-]{10})\b"
_PAN_WORD = r"\b[\w@#$%^?~-]{10}\b"
_LETTER, _FOUR_DIGITS = regex.compile(r"(?ri)[a-z]"), regex.compile(r"(?r)[0-9]{4}")

Compiled = Any
"""A pattern of the `regex` module."""


class Way(Protocol):
    """A way to run patterns. Equal ones share what they put together."""

    def over(self, places: Places) -> Joined | None:
        """The text that the patterns are run over; None where none can match."""

    def matches(self, compiled: Compiled, over: Joined) -> Iterator[Span]:
        """Matches of one of them, in order, as places of the whole text."""


@dataclass(frozen=True)
class InWords:
    """Over words that hold digits in a row, or a sign, one a line."""

    digits: int
    signs: str
    low: int

    def over(self, places: Places) -> Joined | None:
        """The words."""
        spans = words_with(places, self.digits, self.signs, self.low)
        return Joined(places.text, spans, "\n") if spans else None

    def matches(self, compiled: Compiled, over: Joined) -> Iterator[Span]:
        """In the joined words."""
        return (over.place(*match.span()) for match in compiled.finditer(over.text))


@dataclass(frozen=True)
class AtWords(InWords):
    """At those words, in the text."""

    def matches(self, compiled: Compiled, over: Joined) -> Iterator[Span]:
        """Word by word; `regex` looks behind the place where it is told to begin."""
        for start, end in over.spans:
            for match in compiled.finditer(over.whole, start, end):
                yield match.span()


@dataclass(frozen=True)
class Around:
    """Over the surroundings of digits in a row."""

    digits: int
    margin: int

    def over(self, places: Places) -> Joined | None:
        """The digits with what stands beside them."""
        spans = around(places.runs(self.digits), self.margin, len(places.text))
        return Joined(places.text, spans, "\0") if spans else None

    def matches(self, compiled: Compiled, over: Joined) -> Iterator[Span]:
        """In the joined surroundings: a match holds digits, so it cannot begin at their rim."""
        return (over.place(*match.span()) for match in compiled.finditer(over.text))


@dataclass(frozen=True)
class Everywhere:
    """Over the whole text, or all of it before the last letter and four digits."""

    before_four_digits: bool = False

    def over(self, places: Places) -> Joined | None:
        """The text."""
        end = len(places.text)
        if self.before_four_digits:
            lasts = _LETTER.search(places.text), _FOUR_DIGITS.search(places.text)
            end = min(last.start() + 1 if last else 0 for last in lasts)
        return Joined(places.text, [(0, end)], "") if end else None

    def matches(self, compiled: Compiled, over: Joined) -> Iterator[Span]:
        """Those that begin in it."""
        end = over.spans[0][1]
        for match in compiled.finditer(over.whole):
            if match.start() >= end:
                break
            yield match.span()


def words_with(places: Places, digits: int, signs: str, low: int) -> list[Span]:
    """Words with so many digits in a row, or of `low` characters with one of the signs."""
    return places.with_digits(digits) if digits else places.with_signs(regex.compile(signs), low)


def way_of(pattern: str, flags: int) -> tuple[Compiled, Way]:
    """The pattern to run in place of `pattern`, mostly itself, and the way."""
    if pattern == _PAN:
        return regex.compile(_PAN_WORD), Everywhere(before_four_digits=True)
    compiled = regex.compile(pattern, flags=flags)
    needs = needs_of(pattern, flags)
    return compiled, Everywhere() if needs is None else _way(needs)


def _way(needs: Needs) -> Way:
    if not (needs.blank or needs.ahead_blank or needs.lines) and (needs.beside or needs.marks):
        signs, low = ("", 0) if needs.beside else (_signs(needs), needs.low)
        kind = AtWords if needs.behind_blank else InWords
        return kind(needs.beside, signs, low)
    reach = needs.width + max(needs.behind, needs.ahead) + 1
    margins = [margin for margin in _MARGINS if margin >= reach]
    if needs.digits and margins and not (needs.nul or needs.lines):
        return Around(needs.digits, margins[0])
    return Everywhere()


def _signs(needs: Needs) -> str:
    signs = regex.escape("".join(sorted(needs.marks or ())), special_only=False)
    return rf"[{signs}]\w" if needs.followed else f"[{signs}]"
