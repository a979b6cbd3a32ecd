"""Annotated text for training the name finder: reading the sets, and the parts left out.

Every set is brought onto one list of labels (`LABELS`), named as Presidio names its entities
where it has a name. A set that annotates only persons, places and organisations says nothing
about dates or numbers, so the tokens that might be one are marked *unknown* there instead of
being taught as "no entity".
"""

import hashlib
import itertools
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dpmlm.errors import UserError

LABELS = (
    "PERSON",
    "LOCATION",
    "ORGANIZATION",
    "DATE_TIME",
    "ADDRESS",
    "ID",
    "PHONE_NUMBER",
    "NRP",
    "QUANTITY",
    "MISC",
)

TAB_LABELS = {
    "PERSON": "PERSON",
    "LOC": "LOCATION",
    "ORG": "ORGANIZATION",
    "DATETIME": "DATE_TIME",
    "CODE": "ID",
    "DEM": "NRP",
    "QUANTITY": "QUANTITY",
    "MISC": "MISC",
}
SYNTHETIC_LABELS = {
    "PERSON": "PERSON",
    "PREFIX": "PERSON",
    "LOCATION": "LOCATION",
    "ADDRESS": "ADDRESS",
    "ORGANIZATION": "ORGANIZATION",
    "DATE_TIME": "DATE_TIME",
    "PHONE_NUMBER": "PHONE_NUMBER",
    "TITLE": "NRP",
    "US_SSN": "ID",
    "US_DRIVER_LICENSE": "ID",
    "IBAN_CODE": "ID",
    "CREDIT_CARD": "ID",
}
CONLL_LABELS = {
    "PER": "PERSON",
    "person": "PERSON",
    "LOC": "LOCATION",
    "location": "LOCATION",
    "ORG": "ORGANIZATION",
    "corporation": "ORGANIZATION",
    "group": "ORGANIZATION",
}
CONLL_FILES = (
    "wikigold.conll",
    "wnut17-train.conll",
    "btc-a.conll",
    "btc-b.conll",
    "btc-e.conll",
    "btc-g.conll",
    "sec-train.conll",
)

FOLDS = 5
"""Parts that every set falls into; the shipped model has not seen part 0."""
_UNKNOWN_TOKEN = re.compile(
    r"\d|^(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?$"
    r"|(ese|ish|ian|ican)$",
    re.IGNORECASE,
)
_NO_SPACE_BEFORE = re.compile(r"^([.,;:!?)\]%]|'s|n't|'re|'ve|'ll|'d|'m)$")


@dataclass(frozen=True)
class Span:
    """One annotated stretch of text."""

    start: int
    """First character."""
    end: int
    """One past the last character."""
    label: str
    """One of `LABELS`, or "" where the set does not say what this is."""


@dataclass(frozen=True)
class Example:
    """A piece of text with its spans, in order and without overlaps."""

    text: str
    """The text."""
    spans: tuple[Span, ...]
    """What is annotated; a span with an empty label is left out of the loss."""
    source: str
    """The set it came from."""
    group: str = field(default="")
    """Document or template: examples of one group never fall on both sides of a split."""


def fold_of(source: str, group: str, folds: int = FOLDS) -> int:
    """Which of `folds` parts a document or template falls into: a hash of its name decides."""
    h = hashlib.sha256(f"{source}:{group}".encode()).digest()
    return int.from_bytes(h[:4]) * folds // 2**32


def gold_rows(folder: Path, name: str, fold: int = 0, folds: int = FOLDS) -> list[dict]:
    """Rows of `tab` or `pii_synthetic` in one part, as `measure_recall` takes them."""
    return [row for row, part in _rows(folder, name, folds) if part == fold]


def _rows(folder: Path, name: str, folds: int) -> Iterator[tuple[dict, int]]:
    """Rows with the part they fall into."""
    key = {"tab": "id", "pii_synthetic": "template_id"}[name]
    path = folder / name / "train.jsonl"
    if not path.is_file():
        raise UserError(str(path), "this training set is not there", "give --data its folder")
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row, fold_of(name, str(row[key]), folds)


def read_examples(
    folder: Path, left_out: Collection[int] = (0,), folds: int = FOLDS
) -> list[Example]:
    """All examples but those of the parts that are left out."""
    examples: list[Example] = []
    for row, part in _rows(folder, "tab", folds):
        if part not in left_out:
            spans = _clean(row["spans"], TAB_LABELS)
            examples += cut_paragraphs(Example(row["text"], spans, "tab", row["id"]))
    for row, part in _rows(folder, "pii_synthetic", folds):
        if part not in left_out:
            spans = _join_titles(row["text"], _clean(row["spans"], SYNTHETIC_LABELS))
            examples.append(Example(row["text"], spans, "pii_synthetic", str(row["template_id"])))
    for name in CONLL_FILES:
        path = folder / "ner" / name
        if not path.is_file():
            raise UserError(str(path), "this training set is not there", "give --data its folder")
        examples += [
            e for e in read_conll(path) if fold_of(e.source, e.group, folds) not in left_out
        ]
    return examples


def cut_paragraphs(example: Example, least: int = 300) -> list[Example]:
    """Cut a long document at blank lines into pieces of at least `least` characters."""
    cuts, last = [0], 0
    for match in re.finditer(r"\n\s*\n", example.text):
        inside = any(s.start < match.end() and match.start() < s.end for s in example.spans)
        if match.end() - last >= least and not inside:
            cuts.append(match.end())
            last = match.end()
    cuts.append(len(example.text))
    pieces = []
    for start, end in itertools.pairwise(cuts):
        spans = tuple(
            Span(s.start - start, s.end - start, s.label)
            for s in example.spans
            if start <= s.start and s.end <= end
        )
        if example.text[start:end].strip():
            pieces.append(Example(example.text[start:end], spans, example.source, example.group))
    return pieces


def read_conll(path: Path, per_example: int = 3) -> list[Example]:
    """Token and tag columns as text, `per_example` sentences a piece.

    The group is the document where the set marks documents, else a run of 60 sentences, so
    that neighbours stay on one side of the split.
    """
    groups: dict[str, list[list[tuple[str, str]]]] = {}
    for number, (document, rows) in enumerate(_sentences(path)):
        groups.setdefault(f"d{document}" if document else f"s{number // 60}", []).append(rows)
    examples = []
    for group, sentences in groups.items():
        for at in range(0, len(sentences), per_example):
            rows = [row for sentence in sentences[at : at + per_example] for row in sentence]
            text, spans = _detokenize(rows)
            examples.append(Example(text, spans, path.stem, group))
    return examples


def _sentences(path: Path) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Sentences with the number of their document, 0 where none is marked."""
    rows: list[tuple[str, str]] = []
    document = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        columns = line.split()
        if len(columns) >= 2 and columns[0] != "-DOCSTART-":
            rows.append((columns[0], columns[-1]))
            continue
        if rows:
            yield document, rows
            rows = []
        document += columns[:1] == ["-DOCSTART-"]
    if rows:
        yield document, rows


def _detokenize(rows: list[tuple[str, str]]) -> tuple[str, tuple[Span, ...]]:
    text, open_kind = "", ""
    spans: list[Span] = []
    for token, tag in rows:
        if text and not _NO_SPACE_BEFORE.match(token) and not text.endswith(("(", "[", "@", "#")):
            text += " "
        start = len(text)
        text += token
        kind = tag[2:] if tag != "O" else ""
        label = CONLL_LABELS.get(kind, "")
        if kind and kind == open_kind and tag.startswith("I") and spans:
            spans[-1] = Span(spans[-1].start, len(text), spans[-1].label)
        elif kind or _UNKNOWN_TOKEN.search(token):
            spans.append(Span(start, len(text), label))
        open_kind = kind
    return text, tuple(spans)


def _clean(spans: list[dict], labels: dict[str, str]) -> tuple[Span, ...]:
    """Known labels in order; of overlapping spans the longest stays."""
    chosen: list[Span] = []
    known = [Span(s["start"], s["end"], labels[s["type"]]) for s in spans if s["type"] in labels]
    for span in sorted(known, key=lambda s: (s.start - s.end, s.start)):
        if all(span.end <= c.start or c.end <= span.start for c in chosen):
            chosen.append(span)
    return tuple(sorted(chosen, key=lambda s: s.start))


def _join_titles(text: str, spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """ "Mrs." and the name after it become one person, as the court set annotates them."""
    joined: list[Span] = []
    for span in spans:
        before = joined[-1] if joined else None
        if (
            before
            and before.label == span.label == "PERSON"
            and text[before.end : span.start].strip(" .") == ""
        ):
            joined[-1] = Span(before.start, span.end, "PERSON")
        else:
            joined.append(span)
    return tuple(joined)
