"""A stock Presidio analyzer with the recognizers that the project takes, to compare with."""

import inspect
from collections.abc import Iterable
from typing import Any

import presidio_analyzer.predefined_recognizers as predefined
import spacy
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts, SpacyNlpEngine
from spacy.tokens import Doc

from dpmlm.scrub.recognizers.registry import OfflineEmailRecognizer


def stock_recognizers() -> list[EntityRecognizer]:
    """Presidio's own classes, by the names that the project gives them."""
    kept = []
    for name, kind in sorted(inspect.getmembers(predefined, inspect.isclass)):
        if {"generic", "country_specific"} & set(kind.__module__.split(".")):
            recognizer: Any = kind()
            if recognizer.supported_language == "en":
                recognizer.name = name
                if name == "EmailRecognizer":  # its own fetches the list of public suffixes
                    recognizer.validate_result = OfflineEmailRecognizer().validate_result
                kept.append(recognizer)
    return kept


class Tokens(SpacyNlpEngine):
    """Tokens of a blank pipeline, with the lower-case form for the lemma."""

    def __init__(self, keywords: type | None) -> None:
        super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
        pipeline = spacy.blank("en")
        pipeline.add_pipe("lower_case_lemma")
        pipeline.max_length = 10**8
        self.nlp = {"en": pipeline}
        self._keywords = keywords

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        """As Presidio's."""
        artifacts = super().process_text(text, language)
        if self._keywords is not None:
            artifacts.keywords = self._keywords(artifacts.keywords)
        return artifacts


class WithoutBlanks(frozenset[str]):
    """Keywords none of which is a stretch of blanks."""

    def __new__(cls, words: Iterable[str]) -> "WithoutBlanks":
        """Of Presidio's list."""
        return super().__new__(cls, (word for word in words if not word.isspace()))


@spacy.Language.component("lower_case_lemma")
def lower_case_lemma(doc: Doc) -> Doc:
    """Without it Presidio finds no context at all."""
    for token in doc:
        token.lemma_ = token.lower_
    return doc


def stock_analyzer(keywords: type | None = frozenset) -> AnalyzerEngine:
    """All of Presidio's recognizers for English, without a model for names.

    `keywords`: what the words are put into that count as context. In Presidio's own list (None)
    finding one takes time that grows with the text; in a set the results are the same.
    """
    return AnalyzerEngine(
        registry=RecognizerRegistry(recognizers=stock_recognizers(), supported_languages=["en"]),
        nlp_engine=Tokens(keywords),
        context_aware_enhancer=LemmaContextAwareEnhancer(context_matching_mode="whole_word"),
        supported_languages=["en"],
    )
