"""The probe of named entities: does a frozen encoder know what is a person or a place?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpmlm.errors import UserError
from dpmlm.evaluation.features import Linear, features_of
from dpmlm.evaluation.intervals import Estimate, percentiles, resamples
from dpmlm.evaluation.measurement import Report
from dpmlm.masking import TokenTable
from dpmlm.masking.spec import SPECIALS_PER_ROW

FOLDS = 5
OUTSIDE = "O"


@dataclass(frozen=True)
class Sentence:
    """Words and the tag of each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


def read_conll(path: Path) -> list[Sentence]:
    """Sentences of a CoNLL file: a word and its tag a line (first and last column), empty lines
    between sentences.

    Raises UserError, with the line, for one that has no two columns, for a file that is not UTF-8,
    and for one without a single entity or with fewer sentences than folds.
    """
    sentences: list[Sentence] = []
    words: list[tuple[str, str]] = []
    for number, line in enumerate([*_lines(path), ""], start=1):
        columns = line.split()
        if not columns:
            if words:
                sentences.append(Sentence(*map(tuple, zip(*words, strict=True))))
            words = []
        elif len(columns) == 1 or not _is_tag(columns[-1]):
            raise UserError(
                f"{path} line {number}",
                "a line holds a word and a tag: O, B-KIND or I-KIND",
                "mend the file, or name one in CoNLL columns",
            )
        else:
            words.append((columns[0], columns[-1]))
    if len(sentences) < FOLDS or all(set(s.tags) == {OUTSIDE} for s in sentences):
        raise UserError(
            f"{path} with {len(sentences)} sentences",
            f"a probe takes {FOLDS} sentences or more, with entities in them",
            "give another file to --probe",
        )
    return sentences


def entities_of(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(begin, end, kind) of each entity: words in a row with tags of one kind, anew at each B-."""
    found = set()
    begin, kind = 0, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, its_kind = tag.partition("-")
        if kind and (prefix == "B" or its_kind != kind):
            found.add((begin, place, kind))
            kind = ""
        if its_kind and not kind:
            begin, kind = place, its_kind
    return found


def word_features(
    model: Any,
    sentences: Sequence[Sentence],
    located: Any,
    table: TokenTable,
    window: int,
    report: Report = lambda done, total: None,
) -> list[np.ndarray]:
    """Last hidden layer at the first piece of each word, [W, H] a sentence.

    `located` gives pieces and their characters (`Encoder.located`). A word of which the
    vocabulary keeps nothing has zeros.
    """
    room = window - SPECIALS_PER_ROW
    rows: list[np.ndarray] = []
    first_row: list[int] = []
    places = []
    for sentence in sentences:
        text = " ".join(sentence.words)
        ids, spans = located(text)
        first_row.append(len(rows))
        rows += [np.array(ids[a : a + room], dtype=np.int64) for a in range(0, len(ids), room)]
        places.append(_first_pieces(sentence.words, spans))
    hidden = features_of(model, rows, table, report)
    width = next((each.shape[1] for each in hidden if each.ndim == 2), 1)
    found = []
    for begin, pieces in zip(first_row, places, strict=True):
        words = np.zeros((len(pieces), width), dtype=np.float32)
        for number, piece in enumerate(pieces):
            if piece is not None:
                words[number] = hidden[begin + piece // room][piece % room]
        found.append(words)
    return found


def entity_f1(
    features: Mapping[str, Sequence[np.ndarray]], sentences: Sequence[Sentence]
) -> tuple[dict[str, Estimate], Estimate | None]:
    """F1 of whole entities by model, over five folds, and the change with two models.

    An entity counts where begin, end and kind are right. Folds are stretches of the file, as
    sentences that follow each other speak of the same. Intervals resample sentences, the same for
    all models.
    """
    counts = {name: _counts(each, sentences) for name, each in features.items()}
    values = {name: _f1(each.sum(axis=0)) for name, each in counts.items()}
    drawn: dict[str, list[float]] = {name: [] for name in counts}
    for weights in resamples(len(sentences)):
        for name, each in counts.items():
            drawn[name].append(_f1(weights @ each))
    found = {name: _estimate(values[name], np.array(drawn[name])) for name in counts}
    if len(counts) != 2:
        return found, None
    first, second = counts
    change = np.array(drawn[second]) - np.array(drawn[first])
    return found, _estimate(values[second] - values[first], change)


def _counts(features: Sequence[np.ndarray], sentences: Sequence[Sentence]) -> np.ndarray:
    """Entities found, those that are right, and those there are, of each sentence, [S, 3]."""
    names = sorted({tag for sentence in sentences for tag in sentence.tags})
    number_of = {tag: number for number, tag in enumerate(names)}
    fold = np.arange(len(sentences)) * FOLDS // len(sentences)
    found = np.zeros((len(sentences), 3))
    for held in range(FOLDS):
        fit = [number for number in range(len(sentences)) if fold[number] != held]
        classes = [number_of[tag] for number in fit for tag in sentences[number].tags]
        linear = Linear(np.concatenate([features[n] for n in fit]), np.array(classes), len(names))
        for number in np.flatnonzero(fold == held).tolist():
            guesses = linear.scores(features[number]).argmax(axis=1)
            said = entities_of([names[guess] for guess in guesses])
            true = entities_of(sentences[number].tags)
            found[number] = len(said), len(said & true), len(true)
    return found


def _f1(sums: np.ndarray) -> float:
    said, right, true = sums
    return float(2 * right / (said + true)) if said + true else float("nan")


def _first_pieces(words: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[int | None]:
    """Number of the first piece that holds a character of each word; None where none does."""
    found: list[int | None] = []
    begin = piece = 0
    for word in words:
        end = begin + len(word)
        while piece < len(spans) and spans[piece][1] <= begin:
            piece += 1
        found.append(piece if piece < len(spans) and spans[piece][0] < end else None)
        begin = end + 1
    return found


def _is_tag(tag: str) -> bool:
    return tag == OUTSIDE or (tag[:2] in ("B-", "I-") and len(tag) > 2)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"{path}", f"it cannot be read ({error.strerror})", "name a file in CoNLL columns"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}", "it is not UTF-8 text", "save it as UTF-8") from None


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    return Estimate(value, *(percentiles(drawn) or (None, None)))
