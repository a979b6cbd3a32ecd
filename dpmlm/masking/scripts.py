"""What the bytes of a piece say about words: scripts without spaces, symbols, cut characters."""

import unicodedata
from typing import NamedTuple

_JOINERS = "\u200c\u200d"
_MARKS = (0x0300, 0x036F)
_SPACELESS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # iteration mark, zero
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x9FFF),  # Han
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # halfwidth kana
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
"""Code points of scripts that put no space between words, ends included."""


class Edges(NamedTuple):
    """What a piece does at its two ends, whatever its tokenizer's marks say."""

    begins: bool
    """It begins a word."""
    closes: bool
    """It ends its word."""
    clings: bool
    """It begins inside a character, and belongs to what stands before it."""


_LETTER = Edges(begins=False, closes=False, clings=False)
_ALONE = Edges(begins=True, closes=True, clings=False)
_INSIDE = Edges(begins=False, closes=False, clings=True)


def edges(data: bytes) -> Edges:
    """The edges of a piece whose text is `data`, UTF-8 that may be cut inside a character."""
    try:
        return _edges_of_text(data.decode().strip(" "))
    except UnicodeDecodeError:
        return _edges_of_cut(data.lstrip(b" "))


def _edges_of_text(text: str) -> Edges:
    if not text:
        return _LETTER
    kinds = [unicodedata.category(character)[0] for character in text]
    if kinds[0] == "M" or text[0] in _JOINERS:
        return _INSIDE
    if not {"L", "N"} & set(kinds):
        return _ALONE
    last = [c for c, kind in zip(text, kinds, strict=True) if kind in "LN"][-1]
    return Edges(_spaceless(ord(text[0])), _spaceless(ord(last)), clings=False)


def _edges_of_cut(data: bytes) -> Edges:
    """By the code points that the first character can still become.

    Two of its bytes tell the scripts apart; one does but for Thai, Lao, Khmer and Myanmar (E0, E1),
    which are then taken for letters of a script with spaces.
    """
    lead = data[0]
    if 0x80 <= lead < 0xC0:
        return _INSIDE
    length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    known = data[:length]
    value = lead & (0xFF >> (length + 1))
    for byte in known[1:]:
        value = value << 6 | byte & 0x3F
    missing = 6 * (length - len(known))
    first, last = value << missing, ((value + 1) << missing) - 1
    if _MARKS[0] <= first <= last <= _MARKS[1]:
        return _INSIDE
    if _spaceless(last):
        return _ALONE
    symbol = 0x2000 <= first <= 0x10FFFF and unicodedata.category(chr(first))[0] not in "LNM"
    return _ALONE if symbol else _LETTER


def _spaceless(point: int) -> bool:
    return any(first <= point <= last for first, last in _SPACELESS)
