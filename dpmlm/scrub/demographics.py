"""Nationality, origin, religion, occupation and illness by word lists and the words around them.

"a Turkish national", "worked as a lorry driver", "of Kurdish origin" say something of a person;
the bare word often says nothing of anybody ("German law"), so it scores less. Word lists:
`lexicon`. Looks at the tokens of the name finder, once each.
"""

from collections.abc import Iterator

from presidio_analyzer import LocalRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts

from dpmlm.scrub.lexicon import (
    CONDITIONS,
    NATIONALITIES,
    OCCUPATIONS,
    PEOPLES,
    length_at,
    phrases,
)

TOLD, BARE = 0.85, 0.45
"""Scores of a word that is said of somebody, and of the word alone."""
_BEFORE_JOB = frozenset("a an as retired former occupation profession".split())
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
        for first, last, score in self._look(nlp_artifacts.lemmas):
            start, end = tokens[first].idx, tokens[last].idx + len(tokens[last])
            results.append(RecognizerResult("NRP", start, end, score))
        return results

    def _look(self, words: list[str]) -> Iterator[tuple[int, int, float]]:
        """First and last token of each phrase, and its score."""
        for i, word in enumerate(words):
            before = words[i - 1] if i else ""
            after = words[i + 1] if i + 1 < len(words) else ""
            if word in self._NATIONS:
                yield i, i, TOLD if after in _AFTER_NATION else BARE
            if job := length_at(self._JOBS, words, i):
                agent = words[i + job : i + job + 1] == ["practising"]
                told = before in _BEFORE_JOB and not agent
                yield i, i + job - 1, TOLD if told else BARE
            if ill := length_at(self._ILLS, words, i):
                yield i, i + ill - 1, TOLD
