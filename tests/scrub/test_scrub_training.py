import json
import random
import re
from pathlib import Path

import pytest
import spacy

from dpmlm import scrub
from dpmlm.errors import UserError
from dpmlm.scrub.train import to_spacy
from dpmlm.scrub.training.augment import _SLOT, Augmenter
from dpmlm.scrub.training.examples import (
    LABELS,
    Example,
    Span,
    cut_paragraphs,
    fold_of,
    gold_rows,
    read_conll,
    read_examples,
)
from dpmlm.scrub.training.slots import LABELS_OF_SLOTS, Slots
from dpmlm.scrub.training.templates import TEMPLATES

MODEL = Path(scrub.__file__).parent / "model"
CONLL = """-DOCSTART- O

Jane\tB-PER
Roe\tI-PER
moved\tO
to\tO
Oslo\tB-LOC
in\tO
1993\tO
.\tO

-DOCSTART- O

It\tO
's\tO
Windows\tB-product
.\tO
"""


def _write_sets(folder: Path) -> None:
    court = [
        {
            "id": f"T{i}",
            "text": "Mr Ole Dahl went to Oslo.",
            "spans": [
                {"start": 0, "end": 11, "type": "PERSON", "identifier": "DIRECT"},
                {"start": 20, "end": 24, "type": "LOC", "identifier": "QUASI"},
            ],
        }
        for i in range(40)
    ]
    forms = [
        {
            "id": str(i),
            "text": "Mrs. Ann Lee, 5 Elm St, Acme Ltd.",
            "template_id": i % 25,
            "spans": [
                {"start": 14, "end": 22, "type": "ADDRESS"},
                {"start": 24, "end": 33, "type": "ORGANIZATION"},
                {"start": 5, "end": 12, "type": "PERSON"},
                {"start": 0, "end": 4, "type": "PREFIX"},
            ],
        }
        for i in range(100)
    ]
    for name, rows in (("tab", court), ("pii_synthetic", forms)):
        (folder / name).mkdir(parents=True)
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / name / "train.jsonl").write_text(lines, encoding="utf-8")
    (folder / "ner").mkdir()
    for name in ("wikigold", "wnut17-train", "btc-a", "btc-b", "btc-e", "btc-g", "sec-train"):
        (folder / "ner" / f"{name}.conll").write_text(CONLL, encoding="utf-8")


def test_folds_share_no_document_or_template_and_leave_none_out(tmp_path: Path) -> None:
    _write_sets(tmp_path)
    for name, key in (("tab", "id"), ("pii_synthetic", "template_id")):
        parts = [{row[key] for row in gold_rows(tmp_path, name, fold, 4)} for fold in range(4)]
        assert all(parts)
        assert sum(len(part) for part in parts) == len(set.union(*parts))
        assert len(set.union(*parts)) == {"tab": 40, "pii_synthetic": 25}[name]
    examples = read_examples(tmp_path, (2, 3), 4)
    assert {fold_of(e.source, e.group, 4) for e in examples} == {0, 1}
    assert {fold_of(e.source, e.group) for e in read_examples(tmp_path)} == {1, 2, 3, 4}


def test_columns_become_text_with_spans(tmp_path: Path) -> None:
    path = tmp_path / "wikigold.conll"
    path.write_text(CONLL, encoding="utf-8")
    first, second = read_conll(path)
    assert first.text == "Jane Roe moved to Oslo in 1993."
    marked = [(first.text[s.start : s.end], s.label) for s in first.spans]
    assert marked == [("Jane Roe", "PERSON"), ("Oslo", "LOCATION"), ("1993", "")]
    assert second.text == "It's Windows."
    assert [s.label for s in second.spans] == [""]
    assert first.group != second.group


def test_unknown_spans_carry_no_signal() -> None:
    nlp = spacy.blank("en")
    example = Example("Ann came in 1993 .", (Span(0, 3, "PERSON"), Span(12, 16, "")), "x")
    assert to_spacy(nlp, example).get_aligned_ner() == ["U-PERSON", "O", "O", None, "O"]


def test_a_span_that_cuts_a_token_takes_all_of_it_and_the_first_wins() -> None:
    nlp = spacy.blank("en")
    text = "by @janeroe and Bosch Ltd.\n"
    spans = (Span(3, 4, "PERSON"), Span(4, 11, "ORGANIZATION"), Span(16, 25, "ORGANIZATION"),
             Span(26, 27, "LOCATION"))  # fmt: skip
    tags = to_spacy(nlp, Example(text, spans, "x")).get_aligned_ner()
    assert tags == ["O", "U-PERSON", "O", "B-ORGANIZATION", "L-ORGANIZATION", "O"]


def test_title_and_name_are_one_person(tmp_path: Path) -> None:
    _write_sets(tmp_path)
    example = next(e for e in read_examples(tmp_path) if e.source == "pii_synthetic")
    person = next(s for s in example.spans if s.label == "PERSON")
    assert example.text[person.start : person.end] == "Mrs. Ann Lee"


def test_paragraphs_keep_their_spans() -> None:
    text = "Ann Lee.\n\n" * 80
    spans = tuple(Span(10 * i, 10 * i + 7, "PERSON") for i in range(80))
    pieces = cut_paragraphs(Example(text, spans, "tab", "1"), least=100)
    assert "".join(p.text for p in pieces) == text
    assert len(pieces) > 3
    assert {p.text[s.start : s.end] for p in pieces for s in p.spans} == {"Ann Lee"}
    assert sum(len(p.spans) for p in pieces) == 80


def test_augmented_spans_stay_on_their_words(tmp_path: Path) -> None:
    _write_sets(tmp_path)
    examples = read_examples(tmp_path)
    drawn = Augmenter(examples, seed=3).epoch(examples, templates=200)
    written = {"".join(_SLOT.sub("", t).split()).lower() for t in TEMPLATES}
    written |= {"wentto.", ",,.", "movedtoin.", "it's."}  # what the sets hold between spans
    for example in drawn:
        rest, last = "", 0
        for span in example.spans:
            value = example.text[span.start : span.end]
            assert value
            assert value == value.strip()
            assert span.label in (*LABELS, "")
            rest += example.text[last : span.start]
            last = span.end
        assert "".join((rest + example.text[last:]).split()).lower() in written
    assert {e.source for e in drawn} >= {"tab", "pii_synthetic", "templates", "wikigold"}
    assert any(e.text.isupper() for e in drawn)


def test_names_put_together_are_new_and_companies_look_like_ones() -> None:
    pools = {"PERSON": ["Jane Kowalski", "Ole Hughes"], "LOCATION": ["Oslo", "Bergen"],
             "ORGANIZATION": ["Acme"], "ADDRESS": ["5 Elm St"]}  # fmt: skip
    slots = Slots(pools, random.Random(1))
    lasts = {slots.draw("last") for _ in range(300)}
    assert lasts >= {"Kowalski", "Hughes"}
    assert len(lasts - {"Kowalski", "Hughes"}) > 5
    firms = [slots.draw("org") for _ in range(300)]
    assert any(re.search(r", \S+ and \S+$", firm) for firm in firms)
    assert any(firm.endswith((" Ltd", " Inc", " LLC", " GmbH", " PLC")) for firm in firms)
    assert slots.like("PERSON", "Mr Ole Hughes").startswith("Mr ")
    assert " " in slots.like("PERSON", "Ole Hughes")


def test_the_seed_decides(tmp_path: Path) -> None:
    _write_sets(tmp_path)
    examples = read_examples(tmp_path)
    first, again, other = (Augmenter(examples, s).epoch(examples, 20) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_templates_name_known_slots() -> None:
    assert {slot for t in TEMPLATES for slot in _SLOT.findall(t)} == set(LABELS_OF_SLOTS)
    assert set(LABELS_OF_SLOTS.values()) <= {*LABELS, ""}
    assert len(TEMPLATES) == len(set(TEMPLATES))


def test_missing_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tab"):
        read_examples(tmp_path)


def test_shipped_model_is_small_and_attributed() -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15_000_000
    assert not [path for path in files if path.name == "strings.json"]
    card = (MODEL / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words in ("MIT", "CC BY 4.0", "CC BY 3.0", "DIRECT", "95 % interval", "Wikigold"):
        assert words in card
