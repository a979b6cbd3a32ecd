"""One analyzer of all recognizers: patterns over the whole text, name finders over its blocks.

Presidio's pattern recognizers are run by `patterns/search.py`; Presidio's AnalyzerEngine runs
what needs a model or another machine: the spaCy pipelines, a token classifier, remote recognizers.
Presidio's decision log, which writes the text it found, is never turned on.
"""

import difflib
import logging
from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import spacy
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, RecognizerResult
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
from dpmlm.scrub.blocks import cut
from dpmlm.scrub.findings import Finding
from dpmlm.scrub.patterns.context import ENHANCER
from dpmlm.scrub.patterns.search import Patterns, can_scan
from dpmlm.scrub.policy import MODEL_PARTS, Engine, ScrubPolicy
from dpmlm.scrub.recognizers.demographics import DemographicRecognizer
from dpmlm.scrub.recognizers.organisations import OrganisationRecognizer
from dpmlm.scrub.recognizers.people import ListRecognizer, introduced_recognizer
from dpmlm.scrub.recognizers.places import PlaceRecognizer
from dpmlm.scrub.recognizers.registry import own_recognizers, presidio_recognizers
from dpmlm.scrub.recognizers.remote import remote_recognizer
from dpmlm.scrub.recognizers.written import written_recognizers

# Scores of what every pipeline marks, and of what one of several marks. Numbers and addresses
# score less: a pattern that fits with its caption before it (0.75 and more) knows better.
AGREED, ALONE = 0.85, 0.6
AGREED_NUMBER, ALONE_NUMBER = 0.7, 0.5
_TOGETHER = 16
"""Blocks that go through a model at once."""
_NUMBERS = frozenset({"ID", "PHONE_NUMBER", "ADDRESS"})

# Its debug lines carry words of the text; its warnings are about recognizers we do not use.
logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)


class NameFinder(SpacyNlpEngine):
    """The union of one or more spaCy pipelines as Presidio's NLP engine.

    An entity that every pipeline marks scores more than one that a single one of several marks:
    a policy's threshold chooses between the union and the agreement.
    """

    def __init__(self, pipelines: Sequence[Language], *, context: bool = False) -> None:
        """`context`: whether any recognizer looks at the words before what it found."""
        super().__init__(
            models=[{"lang_code": "en", "model_name": "en"}],
            ner_model_configuration=NerModelConfiguration(default_score=AGREED),
        )
        self._pipelines = pipelines
        self._context = context
        self.nlp: Any = {"en": pipelines[0]}
        self._mapping = dict(MODEL_TO_PRESIDIO_ENTITY_MAPPING)

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
        return NlpArtifacts(
            entities=entities,
            tokens=doc,
            tokens_indices=[token.idx for token in doc],
            # A blank pipeline has no lemmas, which silently turns Presidio's context scoring off.
            lemmas=[token.lower_ for token in doc],
            nlp_engine=self if self._context else None,
            language="en",
            scores=scores,
        )


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
        """Raises UserError when a model or a recognizer that the policy names cannot be had."""
        asked = policy.engine
        pipelines = load_pipelines(asked.spacy, asked.parts)
        remote = [remote_recognizer(one) for one in asked.remote]
        self._finder = NameFinder(pipelines, context=any(r.context for r in remote))
        names = SpacyRecognizer(supported_entities=self._finder.labels(), name="NameFinder")
        recognizers = [
            *own_recognizers(),
            *written_recognizers(),
            introduced_recognizer(),
            *presidio_recognizers(asked.countries),
            names,
            OrganisationRecognizer(),
            DemographicRecognizer(),
            ListRecognizer(),
            PlaceRecognizer(),
            *remote,
        ]
        if asked.token_classifier is not None:
            recognizers.append(_token_classifier(asked))
        _check_entities(policy, recognizers)
        wanted = [
            r
            for r in recognizers
            if any(policy.rule_for(e).operator != "keep" for e in r.supported_entities)
        ]
        self._entities = sorted({e for r in wanted for e in r.supported_entities})
        self._patterns = Patterns(
            [r for r in wanted if can_scan(r)], lambda entity: policy.rule_for(entity).threshold
        )
        others = [r for r in wanted if not can_scan(r)]
        self._engine = others and AnalyzerEngine(
            registry=OrderedRegistry(recognizers=others, supported_languages=["en"]),
            nlp_engine=self._finder,
            context_aware_enhancer=ENHANCER,
            log_decision_process=False,
            supported_languages=["en"],
        )

    @property
    def entities(self) -> list[str]:
        """Everything that can be found under this policy."""
        return list(self._entities)

    def find(self, text: str) -> list[Finding]:
        """Findings in a text, overlaps included. Patterns whose scores cannot reach the policy's
        threshold are not looked for."""
        return [*self._patterns.find(text), *self._find_in_blocks(text)]

    def _find_in_blocks(self, text: str) -> Iterator[Finding]:
        """What the models find. Blocks go through them together, a few at a time."""
        blocks = (block for block in cut(text) if not block.text.isspace())
        while self._engine and (some := list(islice(blocks, _TOGETHER))):
            for block, artifacts in zip(some, self._finder.read([b.text for b in some])):
                results = self._engine.analyze(
                    block.text,
                    language="en",
                    entities=self._entities,
                    score_threshold=0.0,
                    nlp_artifacts=artifacts,
                )
                yield from (_finding(result, block.start) for result in results)


def _check_entities(policy: ScrubPolicy, recognizers: Sequence[Any]) -> None:
    """Refuse a rule for what nothing finds: a slip of the pen would leave its text in clear."""
    every = [*recognizers, *presidio_recognizers()] if policy.engine.countries else recognizers
    known = {entity for recognizer in every for entity in recognizer.supported_entities}
    for rule in policy.rules:
        if rule.entity not in known:
            near = difflib.get_close_matches(rule.entity, sorted(known), n=1)
            raise UserError(
                f"scrub policy {policy.name}: rule for {rule.entity}",
                "no recognizer finds such an entity",
                f"did you mean {near[0]}?" if near else "name one that is found, or drop the rule",
            )


def check_pipeline(name: str | None) -> None:
    """Raises UserError when the pipeline that a policy names is not on this machine."""
    if name is not None and not spacy.util.is_package(name) and not Path(name).is_dir():
        raise UserError(
            f"engine.spacy: {name}",
            "it is neither an installed spaCy package nor a folder",
            f"install it (python -m spacy download {name}) or leave engine.spacy null",
        )


def check_token_classifier(name: str | None) -> None:
    """Raises UserError when no token classifier can be where a policy names one; loads nothing."""
    if name is None:
        return
    folder = Path(name)
    if folder.is_dir():
        found = (folder / "config.json").is_file()
    elif folder.is_absolute() or name.startswith("."):
        found = False
    else:
        found = _on_hub(name)
    if not found:
        raise _no_token_classifier(name, "no configuration")


def _on_hub(name: str) -> bool:
    """Whether the hub may have it; offline, whether its files are here."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return False
    return isinstance(cached, str) or not constants.HF_HUB_OFFLINE


def _no_token_classifier(name: str | None, why: str) -> UserError:
    return UserError(
        f"engine.token_classifier: {name}",
        f"no token classifier can be loaded from there ({why})",
        "name the folder that save_pretrained wrote, with its tokenizer",
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
        raise _no_token_classifier(engine.token_classifier, type(error).__name__) from None


def load_pipelines(name: str | None, parts: Sequence[str] = MODEL_PARTS) -> list[Language]:
    """The shipped pipelines, or those that a policy names by package or folder.

    A folder is that of one pipeline, or one that `python -m dpmlm.scrub.train --out` wrote, of
    which `parts` are loaded.

    Raises UserError when it is not there or holds no component that marks entities.
    """
    if name is None:
        with resources.as_file(resources.files("dpmlm.scrub") / "model") as folder:
            return _load_parts(folder, parts)
    check_pipeline(name)
    if all((Path(name) / part).is_dir() for part in MODEL_PARTS):
        return _load_parts(Path(name), parts)
    pipeline = spacy.load(name, exclude=["lemmatizer", "parser", "attribute_ruler", "tagger"])
    if not {"ner", "transformer_ner", "span_categorizer"} & set(pipeline.pipe_names):
        raise UserError(
            f"engine.spacy: {name}", "it marks no named entities", "name a pipeline with ner"
        )
    return [pipeline]


def _load_parts(folder: Path, parts: Sequence[str]) -> list[Language]:
    """Parts that `dpmlm.scrub.train` wrote, over one vocabulary."""
    vocab: Vocab | bool = True
    pipelines: list[Language] = []
    for part in parts:
        pipelines.append(spacy.load(folder / part, vocab=vocab))
        vocab = pipelines[0].vocab
    return pipelines


def _finding(result: RecognizerResult, shift: int) -> Finding:
    name = result.recognition_metadata[RecognizerResult.RECOGNIZER_NAME_KEY]
    start, end = result.start + shift, result.end + shift
    return Finding(start, end, result.entity_type, name, round(result.score, 4))


def _plain(doc: Doc) -> list[tuple[int, int, str]]:
    return [(e.start, e.end, e.label_) for e in doc.ents if e.text.strip()]


def _spaces(doc: Doc) -> list[bool]:
    return [bool(token.whitespace_) for token in doc]
