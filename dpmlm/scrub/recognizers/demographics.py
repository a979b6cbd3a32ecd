"""Nationality, origin, religion, occupation and illness by word lists and the words around them.

"a Turkish national", "worked as a lorry driver", "of Kurdish origin" say something of a person;
the bare word often says nothing of anybody ("German law") and is left to the name finder. Word
lists: `lexicon`. Looks at the tokens of the name finder, once each.
"""

from collections.abc import Iterator

from presidio_analyzer import LocalRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts

from dpmlm.scrub.recognizers.lexicon import (
    CONDITIONS,
    NATIONALITIES,
    OCCUPATIONS,
    PEOPLES,
    length_at,
    phrases,
)

_SCORE = 0.85
_BEFORE_JOB = frozenset("a an as former occupation profession".split())
_DESCRIBING = 4
"""Words, hyphens too, between the article and the job."""
_BETWEEN = frozenset("the of to by in at on with for and or who whom which that is was".split())
"""Words that end a search for the article."""
_AFTER_NATION = frozenset(
    "national nationals citizen citizens nationality origin descent man woman".split()
)


class DemographicRecognizer(LocalRecognizer):
    """What a person is, by word lists."""

    _NATIONS = frozenset(word.lower() for word in (*NATIONALITIES, *PEOPLES))
    _JOBS = phrases(OCCUPATIONS)
    _ILLS = phrases(CONDITIONS)

    def __init__(self) -> None:
        super().__init__(supported_entities=["NRP"], name="DemographicRecognizer")

    def load(self) -> None:
        """There is nothing to load."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """Stretches that say what somebody is."""
        if nlp_artifacts is None:
            return []
        tokens, results = nlp_artifacts.tokens, []
        for first, end in self._look(nlp_artifacts.lemmas):
            start, stop = tokens[first].idx, tokens[end - 1].idx + len(tokens[end - 1])
            results.append(RecognizerResult("NRP", start, stop, _SCORE))
        return results

    def _look(self, words: list[str]) -> Iterator[tuple[int, int]]:
        """First token of each phrase and the one behind it."""
        for i, word in enumerate(words):
            if word in self._NATIONS and words[i + 1 : i + 2] and words[i + 1] in _AFTER_NATION:
                yield i, i + 1
            if ill := length_at(self._ILLS, words, i):
                yield i, i + ill
            job = length_at(self._JOBS, words, i)
            if job and words[i + job : i + job + 1] != ["practising"]:
                first = _said_from(words, i)
                if first is not None:
                    yield first, i + job


def _said_from(words: list[str], job: int) -> int | None:
    """The first word behind "a", "an" or "as": that of the job or of what describes it."""
    for at in range(job, max(0, job - _DESCRIBING - 1), -1):
        if words[at - 1] in _BEFORE_JOB:
            return at
        if words[at - 1] in _BETWEEN or not (words[at - 1].isalpha() or words[at - 1] in "-‑"):
            return None
    return None
