"""Presidio's phone recognizers, run on the lines that can hold a number, each line parsed once.

No number goes over a line end or has more than four other signs between two digits: so does the
`phonenumbers` library look for numbers. Of fewer than five digits only some German pagers have a
number, 1680 to 1699 and others, which in English text are years: those are left out.
"""

import functools
from typing import Any

import regex
from phonenumbers import PhoneMetadata, PhoneNumberMatch, PhoneNumberMatcher
from presidio_analyzer.predefined_recognizers import PhoneRecognizer

from dpmlm.scrub.patterns.windows import Span, lines

_LEAST = 5
_BETWEEN = r"[-xX ()\[\]./~\x80-\U0010FFFF]"
"""What the library lets stand between digits; outside ASCII, more than that."""
_MANY_DIGITS = regex.compile(rf"\d(?:{_BETWEEN}{{0,4}}\d){{{_LEAST - 1},}}")
_PLUS = regex.compile("[+\uff0b]")
_DIGIT = regex.compile(r"\d")
_ABROAD, _DIALLED = 6, 8
"""Digits of the shortest valid number of the world with its country code: behind a plus sign, and
behind what is dialled for it, two digits or more."""


def phone_lines(text: str) -> list[Span]:
    """The lines of `text` that can hold a phone number."""
    return list(lines(text, (match.span() for match in _MANY_DIGITS.finditer(text))))


def numbers_in(recognizer: PhoneRecognizer, line: str) -> list[Span]:
    """Where the recognizer finds numbers in a line."""
    regions = [region for region in recognizer.supported_regions if _can_hold(line, region)]
    if type(recognizer).analyze is PhoneRecognizer.analyze:
        found = [m for region in regions for m in _matches(line, region, recognizer.leniency)]
        return sorted({(match.start, match.end) for match in found})
    return [(r.start, r.end) for r in recognizer.analyze(line, [])] if regions else []


class _Matcher(PhoneNumberMatcher):
    """The library's, which tries no stretch with fewer digits than any valid number has."""

    def __init__(self, text: str, region: str, leniency: int) -> None:
        super().__init__(text, region, leniency)
        self._least = least_digits(region)

    def _extract_match(self, candidate: str, offset: int) -> Any:
        return super()._extract_match(candidate, offset) if self._enough(candidate) else None

    def _parse_and_verify(self, candidate: str, offset: int) -> Any:
        return super()._parse_and_verify(candidate, offset) if self._enough(candidate) else None

    def _enough(self, candidate: str) -> bool:
        least = _ABROAD if _PLUS.search(candidate) else self._least
        return len(_DIGIT.findall(candidate)) >= least


@functools.lru_cache(maxsize=1024)
def _most_digits(line: str) -> int:
    """Digits of the longest stretch that can be a number."""
    return max(len(_DIGIT.findall(m[0])) for m in _MANY_DIGITS.finditer(line))


def _can_hold(line: str, region: str) -> bool:
    return _most_digits(line) >= least_digits(region) or _PLUS.search(line) is not None


@functools.cache
def least_digits(region: str) -> int:
    """Digits that a valid number without a plus sign has at least, as written in `region`."""
    data: Any = PhoneMetadata.metadata_for_region(region)
    kinds = [
        data.fixed_line, data.mobile, data.toll_free, data.premium_rate, data.shared_cost,
        data.personal_number, data.voip, data.pager, data.uan, data.voicemail,
    ]  # fmt: skip
    lengths = [n for kind in kinds if kind is not None for n in kind.possible_length if n > 0]
    return max(_LEAST, min(_DIALLED, *lengths))


@functools.lru_cache(maxsize=8192)
def _matches(line: str, region: str, leniency: int) -> tuple[PhoneNumberMatch, ...]:
    return tuple(_Matcher(line, region, leniency))
