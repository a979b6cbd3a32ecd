"""Nationality, origin, religion, occupation and illness by word lists and the words around them.

"a Turkish national", "worked as a lorry driver", "of Kurdish origin" say something of a person;
the bare word often says nothing of anybody ("German law"), so it scores less. Word lists:
`lexicon`. Looks at the tokens of the name finder, once each.
"""

from collections.abc import Iterable, Iterator

from presidio_analyzer import LocalRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts

from dpmlm.scrub.lexicon import CONDITIONS, NATIONALITIES, OCCUPATIONS, PEOPLES

TOLD, BARE = 0.85, 0.45
"""Scores of a word that is said of somebody, and of the word alone."""
_BEFORE_JOB = frozenset("a an as retired former occupation profession".split())
_AFTER_NATION = frozenset(
    "national nationals citizen citizens nationality origin descent man woman".split()
)


def _phrases(values: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    """Word sequences by their first word, longest first."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for value in values:
        words = tuple(value.lower().replace("'s", " 's").replace("-", " - ").split())
        words = words[1:] if words[0] == "a" else words
        found.setdefault(words[0], []).append(words)
    return {first: sorted(of, key=lambda w: (-len(w), w)) for first, of in found.items()}


class DemographicRecognizer(LocalRecognizer):
    """What a person is, by word lists."""

    _NATIONS = frozenset(word.lower() for word in (*NATIONALITIES, *PEOPLES))
    _JOBS = _phrases(OCCUPATIONS)
    _ILLS = _phrases(CONDITIONS)

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
            for phrases, told in ((self._JOBS, before in _BEFORE_JOB), (self._ILLS, True)):
                for phrase in phrases.get(word, ()):
                    last = i + len(phrase) - 1
                    if tuple(words[i : last + 1]) == phrase:
                        agent = words[last + 1 : last + 2] == ["practising"]
                        yield i, last, TOLD if told and not agent else BARE
                        break
