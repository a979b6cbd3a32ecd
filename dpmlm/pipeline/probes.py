"""Probes of whole models: from a file of public text to figures, for one model or two."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dpmlm.corpus import Document, read_corpus
from dpmlm.errors import UserError
from dpmlm.evaluation.entities import Sentence, entity_f1, read_conll, word_features
from dpmlm.evaluation.intervals import Estimate
from dpmlm.evaluation.sentiment import pooled, refuse_unfit_labels, sentiment
from dpmlm.masking import TokenTable
from dpmlm.pipeline.progress import Progress
from dpmlm.tokens import Encoder

Probe = Literal["sentiment", "ner"]
Models = Mapping[str, tuple[Any, Any]]
"""Model and tokenizer by name."""


@dataclass(frozen=True)
class Labelled:
    """Documents of two kinds."""

    texts: list[str]
    labels: list[str]


ProbeText = Labelled | list[Sentence]


def read_probes(asked: list[str]) -> dict[Probe, ProbeText]:
    """`["sentiment=FILE"]` as what the files hold, before anything is measured.

    Raises UserError for a probe that is not known and for an unfit file.
    """
    found: dict[Probe, ProbeText] = {}
    for one in asked:
        name, equals, path = one.partition("=")
        known = [probe for probe in get_args(Probe) if probe == name]
        if not known or not equals or not path:
            raise UserError(
                f"--probe {one}",
                f"a probe is NAME=FILE, with NAME one of {', '.join(get_args(Probe))}",
                "for example --probe sentiment=reviews.jsonl",
            )
        found[known[0]] = _labelled(Path(path)) if name == "sentiment" else read_conll(Path(path))
    return found


def probed(
    probe: Probe, text: ProbeText, models: Models, window: int, progress: Progress
) -> dict[str, Any]:
    """One probe of all models, on text declared public."""
    if isinstance(text, Labelled):
        figures, change, says = _sentiment(text, models, window, progress)
    else:
        figures, change, says = _entities(text, models, window, progress)
    return {
        "probe": probe,
        "says": says,
        "figures": {name: asdict(estimate) for name, estimate in figures.items()},
        "change": asdict(change) if change else None,
    }


_Found = tuple[dict[str, Estimate], Estimate | None, str]


def _labelled(path: Path) -> Labelled:
    rows = [row for row in read_corpus(path, person="label") if isinstance(row, Document)]
    refuse_unfit_labels([row.person for row in rows], str(path))
    return Labelled([row.text for row in rows], [str(row.person) for row in rows])


def _sentiment(text: Labelled, models: Models, window: int, progress: Progress) -> _Found:
    features = {}
    for name, (model, tokenizer) in models.items():
        documents = Encoder(tokenizer).encode(text.texts)
        with progress.bar(f"probe of {name}") as report:
            features[name] = pooled(model, documents, TokenTable.of(tokenizer), window, report)
    figures, change = sentiment(features, text.labels, text.texts)
    says = f"area under the curve, 0.5 is guessing and 1 is perfect; {len(text.texts)} documents"
    return figures, change, says


def _entities(sentences: list[Sentence], models: Models, window: int, progress: Progress) -> _Found:
    features = {}
    for name, (model, tokenizer) in models.items():
        table, located = TokenTable.of(tokenizer), Encoder(tokenizer).located
        with progress.bar(f"probe of {name}") as report:
            features[name] = word_features(model, sentences, located, table, window, report)
    figures, change = entity_f1(features, sentences)
    says = f"F1 of whole entities, 0 is none right and 1 is perfect; {len(sentences)} sentences"
    return figures, change, says
