"""How much of a text is not text: what wrong decoding and broken files leave behind.

Counted are U+FFFD, which a decoder puts where it could not read; control characters, which stand
in no prose; and the pairs that come of reading UTF-8 as Latin-1 or Windows-1252, in which every
character beyond ASCII becomes two or three that begin with one of a few capitals.
"""

import re

_MISREAD = (
    # U+0080 to U+00BF after the lead bytes C2 and C3, as Latin-1 and as Windows-1252 show them
    "[\u00c2\u00c3][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013\u2014\u2018-\u201a\u201c-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
    # dashes and quotation marks, E2 80 xx
    "|\u00e2(?:\u20ac|\u0080)."
)
_BROKEN = re.compile(f"{_MISREAD}|[\ufffd\u0000-\u0008\u000b\u000e-\u001f\u007f-\u009f]")


def broken_characters(text: str) -> int:
    """How many characters of `text` are none, or belong to a pair that was misread."""
    if text.isascii() and text.isprintable():
        return 0
    return sum(len(match[0]) for match in _BROKEN.finditer(text))
