"""Patterns run where they can match give what a scan of the whole text gives."""

import itertools
import json
import random
import time
from pathlib import Path
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import phonenumbers
import pytest
import regex
import spacy
from presidio_analyzer import EntityRecognizer
from presidio_analyzer.nlp_engine import NlpArtifacts
from presidio_analyzer.predefined_recognizers import PhoneRecognizer
from presidio_peer import stock_recognizers
from variants import rest_in_full

from dpmlm.scrub.findings import Finding
from dpmlm.scrub.patterns import context
from dpmlm.scrub.patterns.needs import needs_of
from dpmlm.scrub.patterns.phones import least_digits, numbers_in, phone_lines
from dpmlm.scrub.patterns.scans import AtWords, Everywhere, way_of
from dpmlm.scrub.patterns.search import Patterns, can_scan, without_contained
from dpmlm.scrub.patterns.windows import LONG, Places, words
from dpmlm.scrub.recognizers.registry import own_recognizers, presidio_recognizers

# Patterns that go beyond what is offered by `regex` in place of `re`, and others that never occur
# in Presidio, but might.
ODD = [
    r"\bx\d{3}\s*$",
    r"^\d+\b",
    r"(?<!\d)\d{4}(?!\s)",
    r"(?<=no\s+)\d{3}",
    r"([-:])\d\1\d",
    r"\d(?=\s+[a-z])",
    r"[^a]\d\d",
    r"(?:a|\d\d)[.]?\d",
    r"(?:\d{2})+x?",
    r"(?=\w*\d\d)[a-z]\w*",
    r"[.:]+\w|x[:]\d",
    r"(?:cat){e<=1}\d",
    r"[[:digit:]]{2}",
]
FLAGS = int(regex.IGNORECASE | regex.MULTILINE | regex.DOTALL)


def _patterns() -> list[tuple[str, int]]:
    found = [
        (pattern.regex, int(recognizer.global_regex_flags))
        for recognizer in [*presidio_recognizers(), *own_recognizers()]
        for pattern in getattr(recognizer, "patterns", [])
    ]
    return found + [(odd, FLAGS) for odd in ODD]


def _sample(items: Any, rng: random.Random, groups: dict[int, str]) -> str:
    """A string that a parsed pattern matches, but for what it looks at around it."""
    return "".join(_sample_of(op, argument, rng, groups) for op, argument in items)


def _sample_of(op: Any, argument: Any, rng: random.Random, groups: dict[int, str]) -> str:
    if op is ops.LITERAL:
        return chr(argument)
    if op is ops.IN and argument[0][0] is not ops.NEGATE:
        return _sample_of(*rng.choice(argument), rng, groups)
    if op is ops.RANGE:
        return chr(rng.randint(*argument))
    if op is ops.CATEGORY:
        return rng.choice(
            {ops.CATEGORY_DIGIT: "0159", ops.CATEGORY_SPACE: " \n"}.get(argument, "a1_")
        )
    if op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
        times = rng.randint(argument[0], min(argument[1], argument[0] + 3))
        return "".join(_sample(argument[2], rng, groups) for _ in range(times))
    if op is ops.SUBPATTERN:
        text = _sample(argument[3], rng, groups)
        if argument[0] is not None:
            groups[argument[0]] = text
        return text
    if op is ops.BRANCH:
        return _sample(rng.choice(argument[1]), rng, groups)
    if op is ops.GROUPREF:
        return groups.get(argument, "")
    if op is ops.ASSERT and argument[0] < 0:
        return _sample(argument[1], rng, groups)
    return "" if op in (ops.AT, ops.ASSERT, ops.ASSERT_NOT) else rng.choice("a1.")


def _text(trees: list[Any], rng: random.Random) -> str:
    """Matches of some patterns, near matches and junk, close together."""
    pieces = []
    for _ in range(rng.randrange(1, 12)):
        piece = _sample(rng.choice(trees), rng, {})
        if rng.random() < 0.3:
            at = rng.randrange(len(piece) + 1)
            piece = piece[:at] + rng.choice(["", "x", "7", " ", "\n", "-", "."]) + piece[at + 1 :]
        pieces.append(piece)
        pieces.append(rng.choice(["", " ", "\n", ", ", "x", "12", "  the word\t", " é ", "\u0663"]))
    return "".join(pieces)


def test_every_pattern_matches_as_over_the_whole_text() -> None:
    rng = random.Random(1)
    every = _patterns()
    trees = []
    for pattern, flags in every:
        try:
            trees.append(parser.parse(pattern, flags & 0b11010))
        except parser.error:
            continue
    matched = set()
    ways = [(p, flags, *way_of(p, flags)) for p, flags in every]
    for _ in range(400):
        text = _text(trees, rng)
        places = Places(text)
        for pattern, flags, compiled, way in ways:
            expected = [m.span() for m in regex.finditer(pattern, text, flags=flags)]
            over = way.over(places)
            found = list(way.matches(compiled, over)) if over else []
            assert found == expected, (pattern, way, text)
            if expected and not isinstance(way, Everywhere):
                matched.add(pattern)
    narrowed = {pattern for pattern, _, _, way in ways if not isinstance(way, Everywhere)}
    assert len(narrowed) > 130
    assert len(matched) > 0.9 * len(narrowed)


def test_few_patterns_read_everything() -> None:
    ways = [way_of(p.regex, int(r.global_regex_flags))[1]
            for r in stock_recognizers() for p in getattr(r, "patterns", [])]  # fmt: skip
    assert sum(isinstance(way, Everywhere) for way in ways) == 1
    assert sum(isinstance(way, AtWords) for way in ways) >= 5


@pytest.mark.parametrize(
    ("pattern", "facts"),
    [
        (r"\b\d{3}-\d{4}\b", {"digits": 4, "width": 8, "low": 8, "marks": {"-"}, "blank": False}),
        (r"(?:\d{2}){3}", {"digits": 6, "pure": True}),
        (r"\d{2}-?\d{2}", {"digits": 2, "marks": None}),
        (r"[ -]\d", {"marks": None, "blank": True}),
        (r"[.]com", {"marks": {"."}, "followed": True}),
        (r"[.]x?", {"marks": {"."}, "followed": False}),
        (r"[.]{2}x", {"marks": {"."}, "followed": False}),
        (r"a|\d{3}", {"digits": 0, "width": 3}),
        (r"(?=\d{3}).x", {"digits": 0, "beside": 3}),
        (r"(?!\d{3})x", {"beside": 0}),
        (r"(?<=\s*)\d", {"behind_blank": True, "ahead_blank": False}),
    ],
)
def test_needs(pattern: str, facts: dict[str, Any]) -> None:
    needs = needs_of(pattern, 0)
    assert {name: getattr(needs, name) for name in facts} == facts


@pytest.mark.parametrize(
    "pattern", [r"(?:cat){e<=1}", r"\p{L}\d", r"(a)?(?(1)b|\d)", r"[[:digit:]]"]
)
def test_what_is_not_understood_is_run_everywhere(pattern: str) -> None:
    assert needs_of(pattern, 0) is None
    assert isinstance(way_of(pattern, 0)[1], Everywhere)


def test_words_are_those_between_blanks() -> None:
    rng = random.Random(2)
    for _ in range(300):
        text = "".join(rng.choice("ab1 \n.") for _ in range(rng.randrange(60)))
        hits = [m.span() for m in regex.finditer(r"\d+", text)]
        expected = [m.span() for m in regex.finditer(r"\S+", text) if regex.search(r"\d", m[0])]
        assert list(words(text, hits)) == expected
        for digits in (1, 2, 3):
            runs = [s for s in expected if regex.search(rf"\d{{{digits}}}", text[slice(*s)])]
            assert Places(text).with_digits(digits) == runs


def test_contained_findings_go_as_in_presidio() -> None:
    from presidio_analyzer import RecognizerResult

    rng = random.Random(3)
    for _ in range(300):
        found = []
        for number in range(rng.randrange(12)):
            start = rng.randrange(8)
            found.append(((start, start + rng.randrange(1, 6), rng.choice([0.1, 0.4])), number))
        theirs = EntityRecognizer.remove_duplicates([RecognizerResult("X", *f) for f, _ in found])
        ours = [one for one, _ in without_contained(found)]
        assert ours == sorted(ours, key=lambda f: (f[0], -f[1]))
        assert sorted(ours) == sorted((r.start, r.end, r.score) for r in theirs)


def test_tokens_and_keywords_are_those_of_spacy_and_presidio(tmp_path: Path) -> None:
    tokenizer = spacy.blank("en").tokenizer
    peer = EngineForKeywords()
    text = (
        "I cannot, e.g. don't; U.S.A. (see http://a.org/x:80) :-) at 12:30 a.m.! it's 'be' BE be. "
        "Dr. the-end etc. a,b x. ab. AB. Re:the ... -- === 3rd 5km, (212)555-0187 ;) gonna Id. we"
    )
    for word in {*text.split(), *(w + "," for w in text.split()), *tokenizer.rules}:
        if word.strip() != word or not word or " " in word:
            continue
        expected = tuple(
            (t.idx + len(t), t.lower_, bool(NlpArtifacts.set_keywords(peer, [t.lower_], "en")))
            for t in tokenizer(word)
        )
        assert context._tokens(word) == expected, word


class EngineForKeywords:
    """What `set_keywords` asks of an engine."""

    def __init__(self) -> None:
        self._vocab = spacy.blank("en").vocab

    def is_stopword(self, word: str, language: str) -> bool:
        return bool(self._vocab[word].is_stop)

    def is_punct(self, word: str, language: str) -> bool:
        return bool(self._vocab[word].is_punct)


def test_words_before_a_finding_are_the_last_keywords_of_all_tokens() -> None:
    rng = random.Random(4)
    nlp = spacy.blank("en")
    peer = EngineForKeywords()
    vocabulary = ["the", "phone", "is", "a:the", "(call", "me)", "12:30", "x,y", "don't", ":", "of"]
    for _ in range(100):
        picked = rng.choices(vocabulary, k=rng.randrange(1, 40))
        text = "".join(word + rng.choice([" ", "\n", "   ", "\t\n"]) for word in picked)
        doc = nlp(text)
        keywords = set(NlpArtifacts.set_keywords(peer, [t.lower_ for t in doc], "en"))
        before = context.WordsBefore(text)
        for start in sorted(rng.sample(range(len(text)), min(6, len(text)))):
            if text[start].isspace():
                continue
            passed = [t.lower_ for t in doc if t.idx <= start and t.lower_ in keywords]
            expected = [word for word in passed if not word.isspace()][-6:]
            assert list(before(start)) == expected[::-1]


def test_context_reaches_as_far_back_as_there_are_words() -> None:
    patterns = Patterns([PhoneRecognizer()])
    far = "phone" + " of the" * 3000 + " 212-555-0187"
    near = "phone" + " apples oranges" * 3 + " 212-555-0187"
    assert [f.score for f in patterns.find(far)] == [0.75]
    assert [f.score for f in patterns.find(near)] == [0.4]


def test_numbers_of_each_region_are_found_on_their_lines() -> None:
    recognizer = PhoneRecognizer()
    text = "at 12:34:56\nfax +1 (212) 555-0187 x12, or\n030/1234567;0 8 9 4 3 2 1\n1-800-555-0199"
    lines = [text[start:end] for start, end in phone_lines(text)]
    assert lines == text.split("\n")[1:]
    for line in lines:
        expected = sorted({(r.start, r.end) for r in recognizer.analyze(line, [])})
        assert numbers_in(recognizer, line) == expected != []


@pytest.mark.full
def test_no_number_is_shorter_than_what_is_tried() -> None:
    """Every number of four digits, and of one digit less than a region's least, of that region."""
    for region in (*PhoneRecognizer.DEFAULT_SUPPORTED_REGIONS, "ZA"):
        least = least_digits(region)
        for digits in {4, min(least - 1, 5)}:
            valid = [
                number
                for number in map("".join, itertools.product("0123456789", repeat=digits))
                if any(phonenumbers.PhoneNumberMatcher(number, region))
            ]
            assert not valid or (region == "DE" and digits == 4 and len(valid) == 30)


def test_only_known_recognizers_are_scanned() -> None:
    class Own(PhoneRecognizer):
        def analyze(self, *_: Any, **__: Any) -> list[Any]:
            return []

    class Contextual(PhoneRecognizer):
        def enhance_using_context(self, *_: Any, **__: Any) -> list[Any]:
            return []

    assert can_scan(PhoneRecognizer())
    assert not can_scan(Own())
    assert not can_scan(Contextual())
    assert all(can_scan(r) for r in [*presidio_recognizers(), *own_recognizers()])


def test_what_cannot_reach_the_threshold_is_not_run_and_nothing_else_is_lost() -> None:
    text = "claim no. 12345678, pan ABCDE1234F or background 4111 1111 1111 1111, call 212-555-0187"
    recognizers = [*presidio_recognizers(), *own_recognizers()]
    everything = Patterns(recognizers).find(text)
    for least in (0.1, 0.4, 0.5, 0.9):
        some = Patterns(recognizers, lambda entity, least=least: least)
        assert some.find(text) == [f for f in everything if f.score >= least] != everything


HOSTILE = {
    "digits": "1" * 500,
    "numbers": "123456789 " * 50,
    "dotted": "a." * 250,
    "dotted with an at": "a." * 120 + "@" + "b." * 129,
    "dashes": "a-" * 250,
    "brackets": "(" * 500,
    "colons": ":" * 500,
    "phones": "212-555-0187 " * 38,
    "letters": "A" * 500,
    "stop words": "the " * 120 + "no. 123456789 ",
    "blanks": " " * 480 + "claim 1234567",
    "titles": "Mr A " * 100,
    "ordinary": "we saw him there, and then again. " * 15,
}
FAST = [HOSTILE[name] for name in ("digits", "dotted", "stop words", "blanks", "ordinary")]


def _seconds(patterns: Patterns, text: str) -> float:
    begin = time.process_time()
    patterns.find(text)
    return time.process_time() - begin


@pytest.mark.parametrize("text", rest_in_full(HOSTILE.values(), FAST), ids=HOSTILE)
def test_time_grows_with_the_length_alone(text: str) -> None:
    """Eight times the text, on one line: eight times the time, give or take what a clock misses."""
    patterns = Patterns([*presidio_recognizers(), *own_recognizers()], lambda entity: 0.5)
    patterns.find(text)
    short = min(_seconds(patterns, text * 2) for _ in range(3))
    long = min(_seconds(patterns, text * 16) for _ in range(2))
    assert long < 8 * 2.5 * short + 0.05


@pytest.mark.full
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_half_a_million_characters_on_one_line(text: str) -> None:
    patterns = Patterns([*presidio_recognizers(), *own_recognizers()], lambda entity: 0.5)
    tenth = _seconds(patterns, (text * 103)[:50_000])
    assert _seconds(patterns, (text * 1030)[:500_000]) < 20 * tenth + 1


def test_long_words_are_seen_around_their_digits_and_signs() -> None:
    text = "x" * LONG + " " + "y," * LONG + "jane.roe@example.org" + ",y" * LONG
    found = Patterns([*presidio_recognizers()]).find(text)
    covered = {text[f.start : f.end] for f in found if f.entity == "EMAIL_ADDRESS"}
    assert any("jane.roe@example.org" in value for value in covered)


def test_findings_in_posts_do_not_depend_on_what_stands_around(shared_data: Path) -> None:
    """Posts joined to one text: the same findings as one by one, but for context before them."""
    with (shared_data / "newsgroups" / "train.jsonl").open(encoding="utf-8") as lines:
        posts = [json.loads(line)["text"] for _, line in zip(range(40), lines)]
    patterns = Patterns([r for r in own_recognizers() if not r.context])
    separator = "\n\n.\n\n"
    joined = patterns.find(separator.join(posts))
    apart: list[Finding] = []
    start = 0
    for post in posts:
        apart += [
            Finding(f.start + start, f.end + start, f.entity, f.recognizer, f.score)
            for f in patterns.find(post)
        ]
        start += len(post) + len(separator)
    assert set(joined) == set(apart)
    assert len(joined) > 20
