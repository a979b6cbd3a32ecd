"""The words before a finding that Presidio compares with a recognizer's context words.

As Presidio's LemmaContextAwareEnhancer reads them from the tokens of a whole text, with the
lower-case form for the lemma: a blank spaCy pipeline has no lemmas, which silently turns Presidio's
scoring off. Here only the text before a finding is cut into tokens, and a stretch that was walked
over for one finding is not walked over again for the next.
"""

import functools
import re

import spacy
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from spacy.lang.en.stop_words import STOP_WORDS
from spacy.lang.lex_attrs import is_punct
from spacy.tokenizer import Tokenizer

from dpmlm.scrub.patterns.windows import words

ENHANCER = LemmaContextAwareEnhancer(context_matching_mode="whole_word")
"""Presidio's own figures, and context words as whole words: "lic" is not in "public"."""
_COUNT = ENHANCER.context_prefix_count + 1

_PLAIN = re.compile(r"([A-Za-z]+)([,;:!?]?|(?<=[a-z][a-z])\.)")
_Token = tuple[int, str, bool]
"""Where it ends in its word, in lower case, and whether it is a keyword."""


class WordsBefore:
    """For findings in order of place: the keywords up to and with the token that each begins in."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._chains: dict[int, tuple[str, ...]] = {0: ()}

    @functools.cached_property
    def _joined_keywords(self) -> frozenset[str]:
        """Presidio cuts keywords at colons: parts of "a:the" are keywords in the whole text."""
        hits = ((m.start(), m.end()) for m in re.finditer(":", self._text))
        found: set[str] = set()
        for start, end in words(self._text, hits):
            if end - start > 1:
                for _, lower, _ in _tokens(self._text[start:end]):
                    if ":" in lower and is_keyword(lower):
                        found.update(lower.split(":"))
        return frozenset(found)

    def __call__(self, start: int) -> tuple[str, ...]:
        """The words, nearest first."""
        first, tokens = self._word(start)
        inside: list[str] = []
        for i, (_, lower, keyword) in enumerate(tokens):
            if self._counts(lower, keyword):
                inside.append(lower)
            if first + tokens[i][0] > start:
                break
        nearest = tuple(inside[: -_COUNT - 1 : -1])
        return (nearest + self._chain(first))[:_COUNT]

    def _chain(self, end: int) -> tuple[str, ...]:
        """The words before the word that begins at `end`."""
        passed: list[str] = []
        at = end
        while at not in self._chains and len(passed) < _COUNT:
            if self._text[at - 1].isspace():
                at -= 1
                continue
            at, tokens = self._word(at - 1)
            passed += [lower for _, lower, key in reversed(tokens) if self._counts(lower, key)]
        chain = tuple(passed[:_COUNT])
        if len(chain) < _COUNT:
            chain = (chain + self._chains[at])[:_COUNT]
        self._chains[end] = chain
        return chain

    def _word(self, at: int) -> tuple[int, tuple[_Token, ...]]:
        """Begin and tokens of the word around `at`."""
        ((first, last),) = words(self._text, [(at, at + 1)])
        return first, _tokens(self._text[first:last])

    def _counts(self, lower: str, keyword: bool) -> bool:
        return (keyword and ":" not in lower) or lower in self._joined_keywords


@functools.cache
def _tokenizer() -> Tokenizer:
    return spacy.blank("en").tokenizer


@functools.lru_cache(maxsize=100_000)
def _tokens(word: str) -> tuple[_Token, ...]:
    tokenizer = _tokenizer()
    plain = _PLAIN.fullmatch(word)
    # Letters with a comma or the like are known to be one token, or two, unless a rule of the
    # language cuts them ("cannot", "etc.").
    if plain and word not in tokenizer.rules and plain[1] not in tokenizer.rules:
        lower = plain[1].lower()
        letters = (len(lower), lower, is_keyword(lower))
        return (letters, (len(word), plain[2], False)) if plain[2] else (letters,)
    return tuple(
        (token.idx + len(token), token.lower_, is_keyword(token.lower_))
        for token in tokenizer(word)
    )


@functools.lru_cache(maxsize=100_000)
def is_keyword(lower: str) -> bool:
    """Whether Presidio's `NlpArtifacts.set_keywords` keeps a token."""
    return lower not in STOP_WORDS and lower != "be" and not is_punct(lower)
