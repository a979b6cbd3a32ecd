"""Organisations by the words that their names end in, and by the brackets behind them.

"Hughes, Roe and Kowalski LLP", "the Arnsberg Labour Court (Arbeitsgericht)", "Ministry of Justice":
a word such as "LLP" or "Court" says where such a name is, the capitals around it how far it goes.
Looks at the tokens of the name finder, once each.
"""

import re
from collections.abc import Iterator

from presidio_analyzer import LocalRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts
from spacy.tokens import Doc

_FIRM = frozenset(
    """
ltd limited llc l.l.c inc incorporated corp corporation group plc llp gmbh ag kg s.a s.p.a spa
s.r.l b.v bv n.v nv oyj aps sarl sons holding holdings associates bros brothers partners co
""".split()
)
_ALWAYS_FIRM = frozenset("ltd llc inc plc llp gmbh".split())
"""Ends that no other word looks like: before them a name in lower case counts too."""
_BODY = frozenset(
    """
court courts tribunal ministry board office authority authorities university universities
institute association council commission committee agency department bank hospital clinic school
college party prison directorate institution federation union foundation society centre center
museum library academy church police administration service services fund company party senate
parliament chamber
""".split()
)
_JOINERS = frozenset("of for and & de du des der - ’s 's / '".split())
_FORWARD = _JOINERS - {"-", "/"} | {"the"}
_STOPS = frozenset(
    """
the a an on in at by to from for of and or but if when while after before during since until his
her their our your my its this that these those he she it they we you i mr mrs ms dr judge as
rules section head director president member members agent minister attorney article articles
secretary chairman chairwoman chief ambassador counsel under according however moreover
""".split()
)
"""Words with a capital that no name of an organisation begins with."""
_MOST = 9
"""Tokens before or behind the telling word."""
_BRACKET = re.compile(r"[ \t]?\((?!see |here|cited|which |who |nos?\b)[^\W\d_][^()\n\d]{1,60}\)")
_BELOW = re.compile(
    r"[ \t]*\n[ \t>]*(?P<name>[^\W_][^\n:;<>@,]{1,38}[^\W_]\.?)[ \t]*\n[ \t>]*[^\n]*\d"
)
_SCORE = 0.6


class OrganisationRecognizer(LocalRecognizer):
    """Names with a telling word, three names joined by "and", the line below a signature's name,
    and brackets behind organisations."""

    def __init__(self) -> None:
        super().__init__(supported_entities=["ORGANIZATION"], name="OrganisationRecognizer")

    def load(self) -> None:
        """There is nothing to load."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """Stretches that name an organisation, each with its bracket."""
        if nlp_artifacts is None:
            return []
        found = set(_told(nlp_artifacts)) | set(_partners(nlp_artifacts))
        found |= set(_signed(text, nlp_artifacts))
        named = {
            (e.start_char, e.end_char) for e in nlp_artifacts.entities if e.label_ == "ORGANIZATION"
        }
        results = []
        for start, end in sorted(found | named):
            bracket = _BRACKET.match(text, end)
            if bracket or (start, end) in found:
                results.append(self._result(start, bracket.end() if bracket else end))
        return results

    def _result(self, start: int, end: int) -> RecognizerResult:
        return RecognizerResult("ORGANIZATION", start, end, _SCORE)


def _told(artifacts: NlpArtifacts) -> Iterator[tuple[int, int]]:
    """The run of capitals around each telling word."""
    tokens = artifacts.tokens
    for i, lemma in enumerate(artifacts.lemmas):
        word = lemma.rstrip(".")
        if word not in _FIRM and word not in _BODY:
            continue
        if tokens[i].text[0].isupper():
            joiners = _JOINERS | {","} if word in _FIRM else _JOINERS
            first = _run(tokens, i, -1, joiners)
            last = i if word in _FIRM else _run(tokens, i, 1, _FORWARD)
            if last > first:
                yield tokens[first].idx, _end(tokens, last, word)
        elif word in _ALWAYS_FIRM and i and tokens[i - 1].is_alpha and len(tokens[i - 1]) > 2:
            partners = (
                i > 2 and tokens[i - 1].lower_ in _FIRM and tokens[i - 2].text in ("and", "&")
            )
            yield tokens[i - 3 if partners else i - 1].idx, _end(tokens, i, word)


def _end(tokens: Doc, last: int, word: str) -> int:
    """Behind the last token, and behind the full stop of "Ltd."."""
    end = tokens[last].idx + len(tokens[last])
    return end + (word in _FIRM and tokens.text.startswith(".", end))


def _run(tokens: Doc, at: int, step: int, joiners: frozenset[str]) -> int:
    """The furthest capitalised token from `at` with nothing but capitals and joiners between."""
    furthest = at
    for i in range(at + step, at + step * (_MOST + 1), step):
        if not 0 <= i < len(tokens):
            break
        token = tokens[i]
        if token.text[0].isupper():
            if token.lower_ in _STOPS:
                break
            furthest = i
        elif token.text not in joiners or (
            token.text == "the" and tokens[i - 1].text not in ("of", "for")
        ):
            break
    return furthest


def _signed(text: str, artifacts: NlpArtifacts) -> Iterator[tuple[int, int]]:
    """The line of a signature between that of a person and one with a number in it."""
    for entity in artifacts.entities:
        line = text.rfind("\n", 0, entity.start_char) + 1
        if entity.label_ == "PERSON" and not text[line : entity.start_char].strip(" \t>"):
            below = _BELOW.match(text, entity.end_char)
            if below:
                yield below.span("name")


def _partners(artifacts: NlpArtifacts) -> Iterator[tuple[int, int]]:
    """ "Roe, Hughes and Kowalski", where one of the three was taken for a name."""
    tokens = artifacts.tokens
    named = {
        i for e in artifacts.entities if e.label_ in ("PERSON", "ORGANIZATION")
        for i in range(e.start, e.end)
    }  # fmt: skip
    for i, lemma in enumerate(artifacts.lemmas):
        if lemma not in ("and", "&") or not 3 <= i < len(tokens) - 1 or tokens[i - 2].text != ",":
            continue
        three = (i - 3, i - 1, i + 1)
        if any(at in named for at in three) and all(tokens[at].is_alpha for at in three):
            yield tokens[i - 3].idx, tokens[i + 1].idx + len(tokens[i + 1])
