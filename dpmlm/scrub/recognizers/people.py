"""People by the words and the names around them, in any case.

"Ann, Bob, zoë and Chidi": where most of a list are people, all of it are. "my name is zoë", "dr.
roe", "MRS ROE": a small name finder is surest of capitals, and leaves these out.
"""

import re
from collections.abc import Iterator

from presidio_analyzer import LocalRecognizer, Pattern, PatternRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts

_SEPARATORS = frozenset(", ; & and or".split())
_SCORE = 0.6
_MOST = 3
"""Words of an item; a longer one ends the list."""
_NO_NAMES = frozenset(
    """
the a an he she it we they you i him her his its our their my your me them us who this that these
those also others other more many some all not no but then than so if when where there here
friends family children kids everyone everybody somebody both with from for was were is are
""".split()
)


_WORD = r"[^\W\d_][\w’'\-]+"
_NAME = rf"{_WORD}(?:[ \t]+{_WORD}){{0,2}}"
_END = r"(?=\s*(?:[.,;:!?)\n]|$|\band\b|\bbut\b))"
_ELSE = (
    "back|later|tomorrow|today|tonight|now|again|soon|asap|please|when|if|at|on|or|old|crazy|a"
    "|an|the|what|names|anytime|first|wrong|not|here|there|spelled|misspelled"
)
_INTRODUCED = (
    (rf"(?i)(?<=\bname is )(?!(?:{_ELSE})\b){_NAME}{_END}", 0.6),
    (rf"(?i)(?<=\bcalls me )(?!(?:{_ELSE})\b){_WORD}{_END}", 0.6),
    (rf"(?i)(?<=\bcall me )(?!(?:{_ELSE})\b){_WORD}{_END}", 0.6),
    (rf"(?i)\b(?:mr|mrs|ms|dr|prof)\.[ \t]?{_WORD}", 0.6),
    (rf"\b(?:MR|MRS|MS|DR|PROF)[ \t]+{_WORD}(?:[ \t]+[^\W\d_a-z]{{2,}})?", 0.6),
)


_CAPITAL = r"[^\W\d_a-z][\w’'\-]+"
_BULLET = r"[ \t]*(?:[-*•]|\d{1,3}[.)])?[ \t]*"
_REVERSED = rf"{_BULLET}{_CAPITAL},[ \t]*{_CAPITAL}(?:[ \t](?:{_CAPITAL}|[A-Z]\.))?"
_REVERSED_LINES = (rf"(?m)^{_REVERSED}[ \t]*(?:\n{_REVERSED}[ \t]*$){{2,}}", 0.6)
"""Three lines and more of nothing but a surname, a comma and a given name."""
_PLAIN = rf"{_BULLET}{_CAPITAL}(?:[ \t]+(?:{_CAPITAL}|[A-Z]\.)){{1,2}}[ \t]*"
_PLAIN_LINES = re.compile(rf"^{_PLAIN}(?:\n{_PLAIN}$){{2,}}", re.MULTILINE)
_HEADER = re.compile(
    r"^(?:From|To|Cc|CC|Bcc|Reply-To|Sender|Attn|FROM|TO|ATTN)[ \t]*:[ \t]*[^\n]+", re.MULTILINE
)
_ADDRESSED = re.compile(
    rf"(?<=[:;,\"' \t]){_CAPITAL}(?:[ \t]+(?:{_CAPITAL}|[A-Z]\.)){{1,3}}(?![\w@])"
)


def introduced_recognizer() -> LocalRecognizer:
    """Names after a title or after the words that introduce them."""
    name = "IntroducedNameRecognizer"
    return PatternRecognizer(
        supported_entity="PERSON",
        name=name,
        patterns=[
            Pattern(f"{name} {i}", p, s) for i, (p, s) in enumerate((*_INTRODUCED, _REVERSED_LINES))
        ],
        global_regex_flags=0,
    )


class ListRecognizer(LocalRecognizer):
    """Further PERSON findings in lists of three and more, and in the header lines of mails."""

    def __init__(self) -> None:
        super().__init__(supported_entities=["PERSON"], name="ListRecognizer")

    def load(self) -> None:
        """There is nothing to load."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """Items that were not taken for people, of lists of which half were; of lists by
        line, of which one was; and whoever a header line names."""
        if nlp_artifacts is None:
            return []
        tokens, results = nlp_artifacts.tokens, _by_line(text, nlp_artifacts)
        named = {
            i for e in nlp_artifacts.entities if e.label_ == "PERSON" for i in range(e.start, e.end)
        }
        for items in _lists(nlp_artifacts):
            known = [any(i in named for i in range(*item)) for item in items]
            if 2 * sum(known) < len(items):
                continue
            for at, (first, end) in enumerate(items):
                if known[at]:
                    continue
                # Words before the first name and behind the last belong to the sentence, and one in
                # lower case beside such words is likely one of them.
                words, edge = end - first, at in (0, len(items) - 1)
                first = end - 1 if at == 0 else first
                end = first + 1 if edge else end
                if edge and words > 1 and not tokens[first].text[0].isupper():
                    continue
                if not any(tokens[i].lower_ in _NO_NAMES for i in range(first, end)):
                    start, stop = tokens[first].idx, tokens[end - 1].idx + len(tokens[end - 1])
                    results.append(RecognizerResult("PERSON", start, stop, _SCORE))
        return results


def _by_line(text: str, artifacts: NlpArtifacts) -> list[RecognizerResult]:
    """Lines of nothing but capitals, three and more, where one is a person; header lines."""
    people = [(e.start_char, e.end_char) for e in artifacts.entities if e.label_ == "PERSON"]
    spans = []
    for block in _PLAIN_LINES.finditer(text):
        if any(start < block.end() and block.start() < end for start, end in people):
            lines = re.finditer(rf"(?m)^{_BULLET}(?P<name>[^\n]+)", block[0])
            spans += [(block.start() + of.start("name"), block.start() + of.end()) for of in lines]
    for header in _HEADER.finditer(text):
        spans += [hit.span() for hit in _ADDRESSED.finditer(text, *header.span())]
    return [RecognizerResult("PERSON", start, end, _SCORE) for start, end in spans]


def _lists(artifacts: NlpArtifacts) -> Iterator[list[tuple[int, int]]]:
    """Runs of three and more items, each its first token and the one behind its last."""
    items: list[tuple[int, int]] = []
    first = at = 0
    words = [*artifacts.lemmas, "."]
    for at, word in enumerate(words):
        if word in _SEPARATORS:
            if at > first:
                items.append((max(first, at - _MOST), at))
            first = at + 1
        elif not _in_a_name(word):
            if at > first:
                items.append((first, at))
            if len(items) > 2:
                yield items
            items, first = [], at + 1
        elif at - first >= _MOST and items:
            items.append((first, at))
            if len(items) > 2:
                yield items
            items = []


def _in_a_name(word: str) -> bool:
    return word[0].isalpha() or word in ("-", "’", "'")
