"""Countries by a word list, and addresses of shapes that a small name finder misses.

A country that begins a line ends an address more often than not: the post code behind it and the
town in the line before it go too. Military post ("PSC 12, Box 34, APO AE 09012") and street corners
are found by pattern.
"""

import re
from collections.abc import Iterator

from presidio_analyzer import LocalRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts

from dpmlm.scrub.recognizers.lexicon import COUNTRIES, length_at, phrases

_ORDINARY = frozenset("turkey china jordan chad georgia guinea mali niger wales grenada".split())
"""Countries that in lower case are something else, or somebody."""
_SCORE = 0.6
_POSTCODE = re.compile(r"[ \t,]{1,3}\d{4,6}\b")
_ADDRESS_END = re.compile(
    r"(?P<before>[^\n]*\d[^\n]*)\n\s*(?P<town>[^\W\d_][^\n\d,:;!?]{1,38})\n\s*$"
)
_ARMY = re.compile(
    r"\b(?:psc|unit|cmr)[ \t]\d{1,5},?[ \t]box[ \t]\d{1,5}[\s,]{1,3}[afd]po[ \t]a[aep]"
    r"[ \t]\d{5}(?:-\d{4})?|\buss[ \t]\w+\s{1,2}fpo[ \t]a[aep][ \t]\d{5}",
    re.IGNORECASE,
)
_CORNER = re.compile(
    r"\b(?:the )?corner of [^\n,;]{3,40}? and (?:(?:[^\W_a-z]|v[ao]n |de )[\w.’'\-]*[ \t]?){1,4}"
)


class PlaceRecognizer(LocalRecognizer):
    """Countries, the ends of addresses, military post and street corners."""

    _NAMES = phrases(COUNTRIES)

    def __init__(self) -> None:
        super().__init__(supported_entities=["LOCATION", "ADDRESS"], name="PlaceRecognizer")

    def load(self) -> None:
        """There is nothing to load."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """Stretches that name a place."""
        results: list[RecognizerResult] = []
        if nlp_artifacts is None:
            return results
        for start, end in self._countries(nlp_artifacts):
            town = (
                self._town_before(start, nlp_artifacts)
                if text.startswith(", ", start - 2)
                else start
            )
            results.append(RecognizerResult("LOCATION", town, end, _SCORE))
            code = _POSTCODE.match(text, end)
            if code:
                results.append(RecognizerResult("ADDRESS", start, code.end(), _SCORE))
            line = _ADDRESS_END.search(text, max(0, start - 160), start)
            if line:
                results.append(RecognizerResult("LOCATION", *line.span("town"), _SCORE))
        for pattern in (_ARMY, _CORNER):
            for hit in pattern.finditer(text):
                results.append(RecognizerResult("ADDRESS", hit.start(), hit.end(), _SCORE))
        return results

    @staticmethod
    def _town_before(start: int, artifacts: NlpArtifacts) -> int:
        """Where the place begins that ends at the comma before `start`; else `start`."""
        for entity in artifacts.entities:
            if entity.end_char == start - 2 and entity.label_ in ("LOCATION", "ADDRESS"):
                return int(entity.start_char)
        return start

    def _countries(self, artifacts: NlpArtifacts) -> Iterator[tuple[int, int]]:
        tokens, words = artifacts.tokens, artifacts.lemmas
        for i, word in enumerate(words):
            length = length_at(self._NAMES, words, i)
            if length and (tokens[i].text[0].isupper() or word not in _ORDINARY):
                last = tokens[i + length - 1]
                yield tokens[i].idx, last.idx + len(last)
