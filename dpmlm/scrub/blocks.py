"""Cutting a text into blocks for the name finders, whose memory grows with the length of a text.

The rule: a block ends at the last blank line that leaves it between half of `LIMIT` and `LIMIT`
characters, else at the last line end there, else at the last blank, else, in a text without
blanks, at `LIMIT`. What stands on both sides of a cut is seen in two parts: at a blank line
nothing is lost; at a line end, a name broken across that very line end is found by its parts.
Patterns and their context words are looked for in the whole text. Most e-mails, notes and court
paragraphs are one block, so nothing of this touches them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

LIMIT = 3000


@dataclass(frozen=True)
class Block:
    """A stretch of a longer text."""

    start: int
    """Offset of its first character in the whole text."""
    text: str
    """Its characters."""


def cut(text: str, limit: int = LIMIT) -> Iterator[Block]:
    """Blocks that together are exactly `text`, each at most `limit` characters."""
    start = 0
    while len(text) - start > limit:
        end = _last_cut(text, start + limit // 2, start + limit)
        yield Block(start, text[start:end])
        start = end
    if start < len(text):
        yield Block(start, text[start:])


def _last_cut(text: str, low: int, high: int) -> int:
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, low, high)
        if at >= 0:
            return at + len(mark)
    return high
