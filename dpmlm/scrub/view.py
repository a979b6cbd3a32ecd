"""A text as recognizers should see it, and the way back to its own places.

Line ends of Windows, no-break spaces, full-width and other digits, dashes, control signs and
broken surrogates are read as the plain sign that they stand for, character for character; what is
invisible (zero-width signs, soft hyphens, marks of direction) and accents written apart from their
letter are left out. Only what recognizers see is changed: what is scrubbed is the original.
"""

import re
import unicodedata
from bisect import bisect_right

_PLAIN = re.compile(r"[^\t\n -~]")
_LINE_ENDS = frozenset("\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
_DASHES = frozenset("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63")
_FULL_WIDTH = range(0xFF01, 0xFF5F)
_ACCENTS = range(0x0300, 0x0370)


class View:
    """What recognizers see of a text."""

    def __init__(self, original: str) -> None:
        self.text = self._whole = original
        self._passed: list[int] = []
        if _PLAIN.search(original):
            seen = original.replace("\r\n", " \n").translate(_SEEN)
            left_out = [match.start() for match in _LEFT_OUT.finditer(seen)]
            self._passed = [at - before for before, at in enumerate(left_out)]
            self.text = seen.replace(_OUT, "") if left_out else seen

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Where a stretch of the view, one character or more, stands in the original.

        Accents written apart go with the letter before them.
        """
        if not self._passed:
            return start, end
        last = self._original(end - 1) + 1
        while last < len(self._whole) and ord(self._whole[last]) in _ACCENTS:
            last += 1
        return self._original(start), last

    def _original(self, at: int) -> int:
        return at + bisect_right(self._passed, at)


def without_invisible(text: str) -> str:
    """`text` without zero-width signs, soft hyphens and marks of direction."""
    return "".join(sign for sign in text if unicodedata.category(sign) != "Cf")


_OUT = "\ufdd0"
"""Stands for what is left out: a code point that Unicode gives to no character, in any text."""
_LEFT_OUT = re.compile(_OUT)


class _Seen(dict[int, str]):
    """For `str.translate`: each character is looked up once."""

    def __missing__(self, code: int) -> str:
        self[code] = _seen(chr(code))
        return self[code]


def _seen(character: str) -> str:
    code, kind = ord(character), unicodedata.category(character)
    if character in "\t\n" or " " <= character <= "~":
        return character
    if character in _LINE_ENDS or character == "\r":
        return "\n"
    if kind in ("Cc", "Zs"):
        return " "
    if kind == "Cf" or code in _ACCENTS or character == _OUT:
        return _OUT
    if kind == "Cs":
        return "\ufffd"
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if code in _FULL_WIDTH:
        return chr(code - 0xFEE0)
    return "-" if character in _DASHES else character


_SEEN = _Seen()
