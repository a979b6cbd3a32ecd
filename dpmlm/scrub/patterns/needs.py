"""What a regular expression needs before it can match, read from its parse tree.

Most of Presidio's patterns need a run of digits or a sign such as `:`, and most text has neither.
Whatever is said here is certain of every match; where a construct is not understood, nothing is
said, and the pattern is run over the whole text. `re` parses what the `regex` module runs: for
the constructs that are let through here both mean the same.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

# The parse tree is private to `re` in 3.11 and 3.12; tests/scrub/test_scrub_patterns.py compares
# what is built on it with plain scans.
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Self

# Syntax of `regex` that `re` would read as something else.
_OTHER_SYNTAX = re.compile(r"\[\[:|(?<!\\)\{\s*[\d<=]*\s*[a-z]")
_SIGNS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~")
_MANY = 1 << 20
"""Stands for "no limit": above every width that is worth a window."""


@dataclass(frozen=True)
class Needs:
    """Facts that hold of every match of a pattern."""

    low: int = 0
    """Fewest characters that a match has."""
    width: int = 0
    """Most characters that a match has."""
    digits: int = 0
    """Digits in a row that a match holds at least."""
    beside: int = 0
    """Digits in a row that stand in a match or where it has to look ahead."""
    pure: bool = True
    """A match is digits alone."""
    marks: frozenset[str] | None = None
    """A match holds one of these signs, which are neither letters, digits nor blanks."""
    followed: bool = False
    """A letter or digit stands right behind that sign."""
    head: bool = False
    """A match begins with a letter or digit."""
    blank: bool = False
    """A match can hold a blank."""
    nul: bool = False
    """A match, or what stands beside it, can be any sign, NUL among them."""
    behind: int = 0
    """How far before its beginning a match can look."""
    behind_blank: bool = False
    """It can look at a blank there other than to find a word's end."""
    ahead: int = 0
    """How far behind its end."""
    ahead_blank: bool = False
    """As `behind_blank`."""
    lines: bool = False
    """It asks for the beginning or end of a line or of the text."""

    def then(self, other: Self) -> Self:
        """Both, one after the other. Runs of digits are joined by the caller."""
        return replace(
            self,
            low=self.low + other.low,
            width=min(_MANY, self.width + other.width),
            digits=max(self.digits, other.digits),
            beside=max(self.beside, other.beside),
            pure=self.pure and other.pure,
            **_narrower(self, other),
            head=self.head if self.low else other.head and not self.width,
            **self._anyhow(other),
        )

    def either(self, other: Self) -> Self:
        """One or the other."""
        known = self.marks is not None and other.marks is not None
        return replace(
            self,
            low=min(self.low, other.low),
            width=max(self.width, other.width),
            digits=min(self.digits, other.digits),
            beside=min(self.beside, other.beside),
            pure=self.pure and other.pure,
            marks=(self.marks or frozenset()) | (other.marks or frozenset()) if known else None,
            followed=self.followed and other.followed,
            head=self.head and other.head,
            **self._anyhow(other),
        )

    def _anyhow(self, other: Self) -> dict[str, Any]:
        return {
            "blank": self.blank or other.blank,
            "nul": self.nul or other.nul,
            "behind": max(self.behind, other.behind),
            "behind_blank": self.behind_blank or other.behind_blank,
            "ahead": max(self.ahead, other.ahead),
            "ahead_blank": self.ahead_blank or other.ahead_blank,
            "lines": self.lines or other.lines,
        }


_ANYTHING = Needs(low=1, width=1, pure=False, blank=True, nul=True)


class _NotUnderstood(Exception):
    pass


def needs_of(regex: str, flags: int) -> Needs | None:
    """What every match of `regex` needs; None where it is not understood."""
    if _OTHER_SYNTAX.search(regex):
        return None
    try:
        tree = parser.parse(regex, flags & (re.IGNORECASE | re.MULTILINE | re.DOTALL))
        return _sequence(tree, {})
    except (re.error, _NotUnderstood, KeyError, OverflowError):
        return None


def _sequence(items: Iterable[Any], groups: dict[int, Needs]) -> Needs:
    """Facts of a row of items; `groups` gathers those of groups that can be referred to."""
    parts = [_item(op, argument, groups) for op, argument in items]
    whole, run = Needs(), 0
    for part, following in zip(parts, [*parts[1:], Needs()], strict=True):
        if part.marks and part.width == 1 and following.head:
            part = replace(part, followed=True)
        if part.pure:
            run += part.low
            part = replace(part, digits=max(part.digits, run), beside=max(part.beside, run))
        else:
            run = 0
        whole = whole.then(part)
    return whole


def _item(op: Any, argument: Any, groups: dict[int, Needs]) -> Needs:
    if op in (ops.LITERAL, ops.NOT_LITERAL, ops.IN, ops.ANY):
        return _character(op, argument)
    if op is ops.AT:
        if argument not in (ops.AT_BOUNDARY, ops.AT_NON_BOUNDARY):
            return Needs(lines=True)
        return Needs(behind=1, ahead=1)
    if op is ops.SUBPATTERN:
        group, _, _, inner = argument
        part = _sequence(inner, groups)
        if group is not None:
            groups[group] = part
        return part
    if op is ops.BRANCH:
        first, *others = [_sequence(branch, groups) for branch in argument[1]]
        for other in others:
            first = first.either(other)
        return first
    if op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
        least, most, inner = argument
        return _repeat(least, most, inner, groups)
    if op is ops.GROUPREF:
        return replace(
            groups[argument], digits=0, beside=0, marks=None, head=False, pure=False, low=0
        )
    if op in (ops.ASSERT, ops.ASSERT_NOT):
        direction, inner = argument
        return _look(direction, inner, op is ops.ASSERT, groups)
    raise _NotUnderstood


def _repeat(least: int, most: Any, inner: Any, groups: dict[int, Needs]) -> Needs:
    part = _sequence(inner, groups)
    times = _MANY if most is ops.MAXREPEAT else int(most)
    digits = part.low * least if part.pure else part.digits if least else 0
    return replace(
        part,
        low=part.low * least,
        width=min(_MANY, part.width * times),
        digits=digits,
        beside=max(digits, part.beside) if least else 0,
        marks=part.marks if least else None,
        head=part.head and bool(least),
    )


def _look(direction: int, inner: Any, must: bool, groups: dict[int, Needs]) -> Needs:
    """A look behind or ahead; what it looks at is no part of the match."""
    part = _sequence(inner, groups)
    reach = part.width + max(part.behind, part.ahead)
    blank = part.blank or part.ahead_blank or part.behind_blank
    if direction < 0:
        return Needs(
            nul=part.nul, lines=part.lines, behind=reach, behind_blank=blank, ahead=part.ahead
        )
    return Needs(
        beside=part.beside if must else 0,
        nul=part.nul,
        lines=part.lines,
        ahead=reach,
        ahead_blank=blank,
        behind=part.behind,
    )


def _character(op: Any, argument: Any) -> Needs:
    """One character: a digit, another part of a word, a blank or a sign."""
    if op is ops.LITERAL:
        return _one_of([(ops.LITERAL, argument)])
    if op is ops.IN:
        return _one_of(argument)
    return _ANYTHING


def _one_of(members: list[tuple[Any, Any]]) -> Needs:
    pure, blank, signs = True, False, set()
    only_signs = only_words = True
    for op, argument in members:
        if op is ops.CATEGORY and argument in (ops.CATEGORY_DIGIT, ops.CATEGORY_WORD):
            pure, only_signs = pure and argument is ops.CATEGORY_DIGIT, False
            continue
        if op is ops.CATEGORY and argument is ops.CATEGORY_SPACE:
            pure, only_signs, only_words, blank = False, False, False, True
            continue
        for character in _spelt(op, argument):
            pure = pure and character.isdecimal()
            blank = blank or character.isspace()
            signs.add(character)
            only_signs = only_signs and character in _SIGNS
            only_words = only_words and (character.isalnum() or character == "_")
    if members[0][0] is ops.NEGATE:
        # [^...\s...] is the one negation of use here: what it leaves is no blank.
        if (ops.CATEGORY, ops.CATEGORY_SPACE) in members:
            return replace(_ANYTHING, blank=False)
        return _ANYTHING
    marks = frozenset(signs) if only_signs else None
    return Needs(
        low=1,
        width=1,
        digits=int(pure),
        beside=int(pure),
        pure=pure,
        marks=marks,
        head=only_words,
        blank=blank,
        nul="\0" in signs,
    )


def _spelt(op: Any, argument: Any) -> list[str]:
    if op is ops.LITERAL:
        return [chr(argument)]
    if op is ops.RANGE and argument[1] - argument[0] < 256:
        return [chr(code) for code in range(argument[0], argument[1] + 1)]
    if op is ops.NEGATE:
        return []
    raise _NotUnderstood


def _narrower(one: Needs, other: Needs) -> dict[str, Any]:
    known = [needs for needs in (one, other) if needs.marks is not None]
    if not known:
        return {"marks": None, "followed": False}
    best = min(known, key=lambda needs: (not needs.followed, len(needs.marks or ())))
    return {"marks": best.marks, "followed": best.followed}
