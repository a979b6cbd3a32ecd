"""Presidio's AnalyzerEngine, set up so that it works on a small offline model and long corpora.

What is mended: a blank pipeline has no lemmas, which silently turns Presidio's context scoring
off, so the lower-case form stands for the lemma; context words match as whole words; a hit's
token is found by bisection, not by a walk over all tokens; only results that context can change
are copied. The decision log of Presidio, which writes the text it found, is never turned on.
"""

import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import spacy
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, RecognizerResult
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine
from presidio_analyzer.nlp_engine.ner_model_configuration import (
    MODEL_TO_PRESIDIO_ENTITY_MAPPING,
)
from presidio_analyzer.predefined_recognizers import SpacyRecognizer
from presidio_analyzer.predefined_recognizers.ner import HuggingFaceNerRecognizer
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from dpmlm.errors import UserError
from dpmlm.scrub.demographics import DemographicRecognizer
from dpmlm.scrub.findings import Finding
from dpmlm.scrub.organisations import OrganisationRecognizer
from dpmlm.scrub.people import ListRecognizer, introduced_recognizer
from dpmlm.scrub.places import PlaceRecognizer
from dpmlm.scrub.policy import MODEL_PARTS, Engine, ScrubPolicy
from dpmlm.scrub.recognizers import own_recognizers, presidio_recognizers
from dpmlm.scrub.written import written_recognizers

# Scores of what every pipeline marks, and of what one of several marks. Numbers and addresses
# score less: a pattern that fits with its caption before it (0.75 and more) knows better.
AGREED, ALONE = 0.85, 0.6
AGREED_NUMBER, ALONE_NUMBER = 0.7, 0.5
_NUMBERS = frozenset({"ID", "PHONE_NUMBER", "ADDRESS"})

_BLANKS = dict.fromkeys(
    map(
        ord,
        "\r\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
        "\u2007\u2008\u2009\u200a\u202f\u205f\u3000",
    ),
    " ",
)

# Its debug lines carry words of the text; its warnings are about recognizers we do not use.
logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)


class NameFinder(SpacyNlpEngine):
    """The union of one or more spaCy pipelines as Presidio's NLP engine.

    An entity that every pipeline marks scores more than one that a single one of several marks:
    a policy's threshold chooses between the union and the agreement.
    """

    def __init__(self, pipelines: Sequence[Language]) -> None:
        super().__init__(
            models=[{"lang_code": "en", "model_name": "en"}],
            ner_model_configuration=NerModelConfiguration(default_score=AGREED),
        )
        self._pipelines = pipelines
        self.nlp: Any = {"en": pipelines[0]}
        self._mapping = dict(MODEL_TO_PRESIDIO_ENTITY_MAPPING)
        self._keywords: dict[str, tuple[str, ...]] = {}

    def labels(self) -> list[str]:
        """Entities that the pipelines can find, as Presidio names them."""
        mapping = self._mapping
        found = [
            label
            for nlp in self._pipelines
            for name in nlp.pipe_names
            for label in (nlp.pipe_labels.get(name, []) if "ner" in name else [])
        ]
        return sorted({mapping.get(label, label) for label in found})

    def read(self, texts: Sequence[str]) -> Iterator[NlpArtifacts]:
        """Tokens, lemmas and entities of each text."""
        docs = list(self._pipelines[0].pipe(texts))
        marked = [[_plain(doc) for doc in docs]]
        for nlp in self._pipelines[1:]:
            blank = [Doc(nlp.vocab, words=[t.text for t in d], spaces=_spaces(d)) for d in docs]
            marked.append([_plain(doc) for doc in nlp.pipe(blank)])
        for i, doc in enumerate(docs):
            yield self._artifacts(doc, [of[i] for of in marked])

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        """What Presidio calls when it is given a text alone."""
        return next(self.read([text]))

    def _artifacts(self, doc: Doc, marked: list[list[tuple[int, int, str]]]) -> NlpArtifacts:
        mapping = self._mapping
        entities, scores = [], []
        for which, found in enumerate(marked):
            others = [of for i, of in enumerate(marked) if i != which]
            for start, end, label in found:
                agreed = all(any(s < end and start < e for s, e, _ in of) for of in others)
                entity = mapping.get(label, label)
                entities.append(Span(doc, start, end, label=entity))
                if entity in _NUMBERS:
                    scores.append(AGREED_NUMBER if agreed else ALONE_NUMBER)
                else:
                    scores.append(AGREED if agreed else ALONE)
        lemmas = [token.lower_ for token in doc]
        artifacts = NlpArtifacts(
            entities=entities,
            tokens=doc,
            tokens_indices=[token.idx for token in doc],
            lemmas=lemmas,
            nlp_engine=None,
            language="en",
            scores=scores,
        )
        artifacts.nlp_engine = self
        keywords: Any = self._keyword_set(lemmas)  # Presidio only asks whether a word is in it
        artifacts.keywords = keywords
        return artifacts

    def _keyword_set(self, lemmas: list[str]) -> frozenset[str]:
        """`NlpArtifacts.set_keywords` as a set, each word looked up once a process."""
        words: set[str] = set()
        for lemma in set(lemmas):
            if lemma not in self._keywords:
                if len(self._keywords) > 200_000:
                    self._keywords.clear()
                kept = NlpArtifacts.set_keywords(self, [lemma], "en")
                self._keywords[lemma] = tuple(kept)
            words.update(self._keywords[lemma])
        return frozenset(words)


class ContextEnhancer(LemmaContextAwareEnhancer):
    """Presidio's context scoring by whole words, linear in the number of hits."""

    def __init__(self) -> None:
        super().__init__(context_matching_mode="whole_word")

    def enhance_using_context(
        self,
        text: str,
        raw_results: list[RecognizerResult],
        nlp_artifacts: NlpArtifacts,
        recognizers: list[Any],
        context: list[str] | None = None,
    ) -> list[RecognizerResult]:
        """As Presidio's; results of recognizers without context words pass as they are."""
        key = RecognizerResult.RECOGNIZER_IDENTIFIER_KEY
        open_to_context = {r.id for r in recognizers if r.context}
        changes = [r for r in raw_results if r.recognition_metadata[key] in open_to_context]
        same = [r for r in raw_results if r.recognition_metadata[key] not in open_to_context]
        return same + super().enhance_using_context(
            text, changes, nlp_artifacts, recognizers, context
        )

    @staticmethod
    def _find_index_of_match_token(
        word: str, start: int, tokens: Doc, tokens_indices: list[int]
    ) -> int:
        """The first token that ends behind `start`."""
        at = max(0, bisect_right(tokens_indices, start) - 1)
        inside = start < tokens_indices[at] + len(tokens[at])
        return at if inside else min(at + 1, len(tokens_indices) - 1)


class OrderedRegistry(RecognizerRegistry):
    """Presidio's, with the recognizers in order of name.

    Presidio passes them through a set, whose order changes from process to process, and of two
    that report the same stretch with the same score it keeps the one that ran first.
    """

    def get_recognizers(self, *arguments: Any, **keywords: Any) -> list[Any]:
        """As Presidio's, sorted."""
        return sorted(super().get_recognizers(*arguments, **keywords), key=lambda r: r.name)


class Analyzer:
    """Findings of all recognizers that a policy asks for."""

    def __init__(self, policy: ScrubPolicy) -> None:
        self._finder = NameFinder(load_pipelines(policy.engine.spacy))
        names = SpacyRecognizer(supported_entities=self._finder.labels(), name="NameFinder")
        recognizers = [
            names,
            OrganisationRecognizer(),
            DemographicRecognizer(),
            ListRecognizer(),
            introduced_recognizer(),
            PlaceRecognizer(),
            *written_recognizers(),
            *own_recognizers(),
            *presidio_recognizers(policy.engine.countries),
        ]
        if policy.engine.token_classifier is not None:
            recognizers.append(_token_classifier(policy.engine))
        wanted = [
            r
            for r in recognizers
            if any(policy.rule_for(e).operator != "keep" for e in r.supported_entities)
        ]
        self._entities = sorted({e for r in wanted for e in r.supported_entities})
        self._engine = AnalyzerEngine(
            registry=OrderedRegistry(recognizers=wanted, supported_languages=["en"]),
            nlp_engine=self._finder,
            context_aware_enhancer=ContextEnhancer(),
            log_decision_process=False,
            supported_languages=["en"],
        )

    @property
    def entities(self) -> list[str]:
        """Everything that can be found under this policy."""
        return list(self._entities)

    def analyze(self, texts: Sequence[str]) -> list[list[Finding]]:
        """Findings in each text, overlaps and low scores included.

        Every kind of blank is seen as a plain one, a character for a character: no-break spaces
        and the first half of a Windows line end hide nothing.
        """
        texts = [text.translate(_BLANKS) for text in texts]
        results = []
        for text, artifacts in zip(texts, self._finder.read(texts), strict=True):
            found = self._engine.analyze(
                text,
                language="en",
                entities=self._entities,
                score_threshold=0.0,
                nlp_artifacts=artifacts,
            )
            results.append([_finding(result) for result in found])
        return results


def check_pipeline(name: str | None) -> None:
    """Raises UserError when the pipeline that a policy names is not on this machine."""
    if name is not None and not spacy.util.is_package(name) and not Path(name).is_dir():
        raise UserError(
            f"engine.spacy: {name}",
            "it is neither an installed spaCy package nor a folder",
            f"install it (python -m spacy download {name}) or leave engine.spacy null",
        )


def _token_classifier(engine: Engine) -> HuggingFaceNerRecognizer:
    """Presidio's recognizer around a token classifier. Raises UserError if it cannot be loaded."""
    try:
        return HuggingFaceNerRecognizer(
            model_name=engine.token_classifier,
            name="TokenClassifier",
            label_mapping=dict(engine.labels) or None,
            threshold=0.0,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"engine.token_classifier: {engine.token_classifier}",
            f"no token classifier can be loaded from there ({type(error).__name__})",
            "name the folder that save_pretrained wrote, with its tokenizer",
        ) from None


def load_pipelines(name: str | None) -> list[Language]:
    """The shipped pipelines, or those that a policy names by package or folder.

    A folder is that of one pipeline, or one that `python -m dpmlm.scrub.train --out` wrote.

    Raises UserError when it is not there or holds no component that marks entities.
    """
    if name is None:
        with resources.as_file(resources.files("dpmlm.scrub") / "model") as folder:
            return _load_parts(folder)
    check_pipeline(name)
    if all((Path(name) / part).is_dir() for part in MODEL_PARTS):
        return _load_parts(Path(name))
    pipeline = spacy.load(name, exclude=["lemmatizer", "parser", "attribute_ruler", "tagger"])
    if not {"ner", "transformer_ner", "span_categorizer"} & set(pipeline.pipe_names):
        raise UserError(
            f"engine.spacy: {name}", "it marks no named entities", "name a pipeline with ner"
        )
    return [pipeline]


def _load_parts(folder: Path) -> list[Language]:
    """The parts that `dpmlm.scrub.train` wrote, over one vocabulary."""
    vocab: Vocab | bool = True
    pipelines: list[Language] = []
    for part in MODEL_PARTS:
        pipelines.append(spacy.load(folder / part, vocab=vocab))
        vocab = pipelines[0].vocab
    return pipelines


def _finding(result: RecognizerResult) -> Finding:
    name = result.recognition_metadata[RecognizerResult.RECOGNIZER_NAME_KEY]
    return Finding(result.start, result.end, result.entity_type, name, round(result.score, 4))


def _plain(doc: Doc) -> list[tuple[int, int, str]]:
    return [(e.start, e.end, e.label_) for e in doc.ents if e.text.strip()]


def _spaces(doc: Doc) -> list[bool]:
    return [bool(token.whitespace_) for token in doc]
