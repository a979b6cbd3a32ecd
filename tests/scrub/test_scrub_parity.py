"""Findings of patterns beside those of a stock Presidio analyzer, span by span.

Each difference is explained by one of the mends below, and each mend explains some.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from presidio_analyzer import AnalyzerEngine
from presidio_peer import WithoutBlanks, stock_analyzer

from dpmlm.scrub.patterns.search import Patterns
from dpmlm.scrub.recognizers.registry import presidio_recognizers

_Found = tuple[int, int, str, float]

MADE_UP = """\
see alt.atheism and my.community/x, foo.comx or http://a.org. A year such as 1689 is no pager.
Telephone        :       (212) 555-0187      Mobile   |   |   |  +44 793 5451271
account   number   is          12345678, passport      no  A1234567
"""


def _by_presidio(analyzer: AnalyzerEngine, text: str) -> set[_Found]:
    entities = analyzer.get_supported_entities("en")
    found = analyzer.analyze(text, language="en", entities=entities)
    return {(r.start, r.end, r.entity_type, round(r.score, 4)) for r in found}


class _Explained:
    """Which mend explains a difference in one text."""

    def __init__(self, text: str, theirs: set[_Found], ours: set[_Found]) -> None:
        self._text, self._theirs, self._ours = text, theirs, ours
        self._without_blanks: set[_Found] | None = None

    def by(self, one: _Found, mended: AnalyzerEngine) -> str:
        """The mend's name; "nothing" where there is none."""
        mends: dict[str, Callable[[_Found], bool]] = {
            "whole host names": self._whole_host,
            "no pagers of four digits": self._short_pager,
        }
        for name, explains in mends.items():
            if explains(one):
                return name
        if self._without_blanks is None:
            self._without_blanks = _by_presidio(mended, self._text)
        explained = (one in self._without_blanks) == (one in self._ours)
        return "blanks are no words" if explained else "nothing"

    def _whole_host(self, one: _Found) -> bool:
        """An address that Presidio ends inside a word, or what became of it."""
        start, end, entity, _ = one
        if entity != "URL":
            return False
        if one in self._theirs:
            inside = self._text[end : end + 1].isalnum() or self._text[end : end + 1] == "_"
            widened = [u for u in self._ours - self._theirs if u[2] == "URL"]
            return inside or any(u[0] <= start and end <= u[1] for u in widened)
        return any(u[0] == start and u[1] < end and self._inside(u) for u in self._theirs)

    def _inside(self, url: _Found) -> bool:
        behind = self._text[url[1] : url[1] + 1]
        return url[2] == "URL" and (behind.isalnum() or behind == "_")

    def _short_pager(self, one: _Found) -> bool:
        start, end, entity, _ = one
        digits = sum(c.isdigit() for c in self._text[start:end])
        return entity == "PHONE_NUMBER" and one in self._theirs and digits < 5


def _differences(texts: list[str]) -> tuple[Counter[str], int]:
    """Differences by what explains them, and how many findings there are."""
    stock, mended = stock_analyzer(), stock_analyzer(WithoutBlanks)
    patterns = Patterns(presidio_recognizers())
    explained: Counter[str] = Counter()
    count = 0
    for text in texts:
        theirs = _by_presidio(stock, text)
        ours = {(f.start, f.end, f.entity, f.score) for f in patterns.find(text)}
        count += len(theirs)
        why = _Explained(text, theirs, ours)
        explained.update(why.by(one, mended) for one in theirs ^ ours)
    return explained, count


def _posts(folder: Path, count: int) -> list[str]:
    with (folder / "newsgroups" / "train.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for _, line in zip(range(count), lines)]


MENDS = {"whole host names", "no pagers of four digits", "blanks are no words"}


def test_differences_in_a_made_up_text_are_the_mends() -> None:
    explained, count = _differences([MADE_UP])
    assert set(explained) == MENDS
    assert count > 10


@pytest.mark.full
def test_differences_in_150_posts_are_the_mends(shared_data: Path) -> None:
    explained, count = _differences(_posts(shared_data, 150))
    assert set(explained) <= MENDS
    assert count > 500


@pytest.mark.full
def test_differences_in_2000_posts_are_the_mends(shared_data: Path) -> None:
    explained, count = _differences(_posts(shared_data, 2000))
    assert set(explained) == MENDS
    assert count > 5000
