"""Presidio's pattern recognizers over a whole text, each pattern run only where it can match.

The findings are those of Presidio's AnalyzerEngine with the same recognizers, span, entity and
score, but for these mends, which tests/scrub/test_scrub_parity.py holds to be the only ones: a URL
has a whole host name (registry.py), a phone number has five digits or more (phones.py), blanks
are no words of the context (context.py); the list of public suffixes is the one that is shipped. In
words of more than 4,096 characters or 40 dots (windows.py) something may be lost. Time grows with
the length of the text and the number of findings, and the text is not cut, so context words reach a
finding wherever it stands.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from presidio_analyzer import EntityRecognizer, PatternRecognizer
from presidio_analyzer.predefined_recognizers import IbanRecognizer, PhoneRecognizer

from dpmlm.scrub.findings import Finding
from dpmlm.scrub.patterns.context import ENHANCER, WordsBefore
from dpmlm.scrub.patterns.phones import numbers_in, phone_lines
from dpmlm.scrub.patterns.scans import Compiled, Way, way_of
from dpmlm.scrub.patterns.windows import Joined, Places

_ADDED = ENHANCER.context_similarity_factor
_LEAST_WITH_CONTEXT = ENHANCER.min_score_with_context_similarity

_Found = tuple[int, int, float]
"""Begin, end and score."""


def can_scan(recognizer: EntityRecognizer) -> bool:
    """Whether `Patterns` knows what the recognizer does: an `analyze` of its own may do anything.

    The same holds of a recognizer that looks at context itself.
    """
    kind = type(recognizer)
    usual = kind.analyze in (PatternRecognizer.analyze, IbanRecognizer.analyze) or (
        isinstance(recognizer, PhoneRecognizer) and kind.__module__.startswith("presidio_analyzer.")
    )
    return usual and kind.enhance_using_context is EntityRecognizer.enhance_using_context


class Patterns:
    """Recognizers of patterns and of phone numbers over whole texts."""

    def __init__(
        self, recognizers: Iterable[Any], least: Callable[[str], float] = lambda entity: 0.0
    ) -> None:
        """`least` says which scores of an entity matter: what cannot reach them is not run."""
        self._recognizers = sorted(recognizers, key=lambda r: r.name)
        self._entities = [r.supported_entities[0] for r in self._recognizers]
        self._least = [least(entity) for entity in self._entities]
        self._context = [
            frozenset(word.lower() for word in r.context or ()) for r in self._recognizers
        ]
        self._phones: list[int] = []
        self._ways: dict[Way, list[_Scan]] = {}
        for number, recognizer in enumerate(self._recognizers):
            if isinstance(recognizer, PhoneRecognizer):
                if _best(recognizer, recognizer.SCORE) >= self._least[number]:
                    self._phones.append(number)
                continue
            for pattern in recognizer.patterns:
                if _best(recognizer, pattern.score) >= self._least[number]:
                    scan = _Scan(number, recognizer, pattern)
                    self._ways.setdefault(scan.way, []).append(scan)

    def find(self, text: str) -> list[Finding]:
        """Findings whose scores matter, those of one entity in order of place."""
        by_recognizer: defaultdict[int, list[_Found]] = defaultdict(list)
        self._scan(text, by_recognizer)
        self._find_phones(text, by_recognizer)
        before = WordsBefore(text)
        by_entity: defaultdict[str, list[tuple[_Found, int]]] = defaultdict(list)
        for number, found in by_recognizer.items():
            for one, _ in without_contained([(each, number) for each in found]):
                with_context = self._with_context(one, number, before)
                by_entity[self._entities[number]].append((with_context, number))
        return [
            Finding(start, end, entity, self._recognizers[number].name, round(score, 4))
            for entity, found_by in by_entity.items()
            for (start, end, score), number in without_contained(found_by)
            if score >= self._least[number]
        ]

    def _scan(self, text: str, found: dict[int, list[_Found]]) -> None:
        places = Places(text)
        for way, scans in self._ways.items():
            over = way.over(places)
            if over is not None:
                for scan in scans:
                    if scored := list(scan.run(over)):
                        found[scan.number].extend(scored)

    def _find_phones(self, text: str, found: dict[int, list[_Found]]) -> None:
        for start, end in phone_lines(text) if self._phones else ():
            for number in self._phones:
                recognizer = self._recognizers[number]
                for first, last in numbers_in(recognizer, text[start:end]):
                    found[number].append((start + first, start + last, recognizer.SCORE))

    def _with_context(self, found: _Found, number: int, before: WordsBefore) -> _Found:
        start, end, score = found
        wanted = self._context[number]
        if wanted and not wanted.isdisjoint(before(start)):
            score = min(max(score + _ADDED, _LEAST_WITH_CONTEXT), EntityRecognizer.MAX_SCORE)
        return start, end, score


class _Scan:
    """One pattern of a recognizer."""

    def __init__(self, number: int, recognizer: Any, pattern: Any) -> None:
        kind = type(recognizer)
        self.number = number
        self.way: Way
        self._compiled: Compiled
        self._compiled, self.way = way_of(pattern.regex, int(recognizer.global_regex_flags))
        self._score = pattern.score
        self._recognizer = recognizer
        self._validated = kind.validate_result is not PatternRecognizer.validate_result
        self._invalidated = kind.invalidate_result is not PatternRecognizer.invalidate_result
        self._whole = getattr(recognizer, "whole", None)

    def run(self, over: Joined) -> Iterator[_Found]:
        """Findings before context, with the scores that the recognizer gives them."""
        if isinstance(self._recognizer, IbanRecognizer):
            yield from self._shorter_too(over)
            return
        for start, end in self.way.matches(self._compiled, over):
            value, score = over.whole[start:end], self._score
            if self._validated:
                valid = self._recognizer.validate_result(value)
                if valid is not None:
                    score = EntityRecognizer.MAX_SCORE if valid else EntityRecognizer.MIN_SCORE
            if self._invalidated and self._recognizer.invalidate_result(value):
                continue
            if self._whole is not None:
                end = self._whole(over.whole, start, end)
            if score > EntityRecognizer.MIN_SCORE and end > start:
                yield start, end, score

    def _shorter_too(self, over: Joined) -> Iterator[_Found]:
        """As IbanRecognizer searches: where a match fails its check sum, its beginnings."""
        for result in self._recognizer.analyze(over.text, []):
            yield *over.place(result.start, result.end), result.score


def without_contained(found: list[tuple[_Found, int]]) -> list[tuple[_Found, int]]:
    """`EntityRecognizer.remove_duplicates` for findings of one entity, in order of place.

    Of equal ones the first recognizer's by name is kept: Presidio's order is that of a set.
    """
    kept: list[tuple[_Found, int]] = []
    near: list[_Found] = []
    for one, number in sorted(found, key=lambda f: (f[0][0], -f[0][1], -f[0][2], f[1])):
        start, end, score = one
        near = [other for other in near if other[1] >= start]
        if not any(end <= other[1] and score <= other[2] for other in near):
            kept.append((one, number))
            near.append(one)
    return kept


def _best(recognizer: Any, score: float) -> float:
    """The most that a finding of this score can become."""
    validate = getattr(type(recognizer), "validate_result", PatternRecognizer.validate_result)
    if validate is not PatternRecognizer.validate_result:
        return float(EntityRecognizer.MAX_SCORE)
    return float(max(score + _ADDED, _LEAST_WITH_CONTEXT) if recognizer.context else score)
