import json
import logging
import re
import socket
from pathlib import Path
from typing import Any

import presidio_analyzer.predefined_recognizers as predefined
import pytest
import spacy
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import SpacyNlpEngine

from dpmlm.scrub import recognizers
from dpmlm.scrub.engine import Analyzer, ContextEnhancer
from dpmlm.scrub.findings import Finding
from dpmlm.scrub.recognizers import (
    DottedUrlRecognizer,
    LinePhoneRecognizer,
    OfflineEmailRecognizer,
    presidio_recognizers,
)

MIXED = """Call me at (212) 555-0187 x12 or +44 20 7946 0958, fax 030/1234567.
Home: 555-0134
fax 030 12345
Tel 089 4321
    http://www.example.org/a?b=(c) and "https://sub.example.co.uk/x", see foo.c, e.g. page.It is.
In <1993Apr5.123@cs.example.edu> jroe@mail.example.com (Jane Roe) writes: a@b, x@y.zzz
version 1.2.3.4, 10.0.0.1:8080, 12345678901234567890 and 1-800-555-0199;2125550187
tel:0121 496 0000\x0b0121 496 0001\u2028+33 1 99 00 12 34
"""


def _all(analyzer: Analyzer, text: str, entity: str) -> list[Finding]:
    return [f for f in analyzer.analyze([text])[0] if f.entity == entity]


def _spans(results: list[Any], text: str = "") -> list[tuple[int, int, float]]:
    """Places and scores; of URLs those that do not stop inside a word."""
    whole = [
        r for r in results
        if r.entity_type != "URL" or not re.match(r"\w", text[r.end : r.end + 1])
    ]  # fmt: skip
    return sorted({(r.start, r.end, r.score) for r in whole})


def test_context_lifts_a_phone_number_from_040_to_075(analyzer: Analyzer) -> None:
    captioned = _all(analyzer, "my phone is 212-555-0187", "PHONE_NUMBER")
    bare = _all(analyzer, "we saw 212-555-0187 there", "PHONE_NUMBER")
    assert max(f.score for f in captioned if f.recognizer == "PhoneRecognizer") == 0.75
    assert all(f.score < 0.75 for f in bare)


def test_without_lemmas_context_is_silently_off() -> None:
    """The negative control: the same sentence through a blank pipeline as Presidio sets it up."""
    nlp = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "blank"}])
    nlp.nlp = {"en": spacy.blank("en")}
    phone = predefined.PhoneRecognizer()
    registry = RecognizerRegistry(recognizers=[phone], supported_languages=["en"])
    engine = AnalyzerEngine(registry=registry, nlp_engine=nlp)
    results = engine.analyze("my phone is 212-555-0187", "en", entities=["PHONE_NUMBER"])
    assert [r.score for r in results] == [0.4]


def test_context_words_match_as_whole_words(analyzer: Analyzer) -> None:
    lifted = _all(analyzer, "driver lic A1234567", "US_DRIVER_LICENSE")
    public = _all(analyzer, "a public A1234567", "US_DRIVER_LICENSE")
    assert max(f.score for f in lifted) > 0.5
    assert all(f.score < 0.4 for f in public)


def test_every_english_recognizer_of_presidio_is_there() -> None:
    names = {r.name for r in presidio_recognizers()}
    assert len(names) >= 55
    assert {"UsSsnRecognizer", "UkNinoRecognizer", "UsMbiRecognizer", "IbanRecognizer"} <= names
    only_uk = {r.name for r in presidio_recognizers(["uk"])}
    assert "UsSsnRecognizer" not in only_uk
    assert {"UkNinoRecognizer", "EmailRecognizer"} <= only_uk


@pytest.mark.parametrize(
    ("ours", "theirs", "entity"),
    [
        (DottedUrlRecognizer, predefined.UrlRecognizer, "URL"),
        (LinePhoneRecognizer, predefined.PhoneRecognizer, "PHONE_NUMBER"),
        (OfflineEmailRecognizer, predefined.EmailRecognizer, "EMAIL_ADDRESS"),
    ],
)
def test_faster_recognizers_find_the_same(
    ours: Any, theirs: Any, entity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        predefined.EmailRecognizer, "validate_result", OfflineEmailRecognizer.validate_result
    )
    found = _spans(ours().analyze(MIXED, [entity]), MIXED)
    assert found == _spans(theirs().analyze(MIXED, [entity]), MIXED)
    assert len(found) >= 2


def test_faster_recognizers_find_the_same_in_posts(shared_data: Path) -> None:
    pairs = [
        (DottedUrlRecognizer(), predefined.UrlRecognizer()),
        (LinePhoneRecognizer(), predefined.PhoneRecognizer()),
    ]
    found = 0
    with (shared_data / "newsgroups" / "train.jsonl").open(encoding="utf-8") as lines:
        for _, line in zip(range(60), lines):
            text = json.loads(line)["text"][:6000]
            for ours, theirs in pairs:
                spans = _spans(ours.analyze(text, []), text)
                assert spans == _spans(theirs.analyze(text, []), text)
                found += len(spans)
    assert found > 30


def test_urls_end_where_their_host_ends() -> None:
    text = "see alt.atheism, my.community/x and foo.comx or http://a.org."
    found = DottedUrlRecognizer().analyze(text, [])
    assert {text[r.start : r.end] for r in found} == {"my.community/x", "http://a.org"}


def test_token_of_a_hit_by_bisection_equals_the_walk() -> None:
    doc = spacy.blank("en")("  Call me,  at (212)555-0187\n\nor never. Bye ")
    starts = [token.idx for token in doc]
    for start in range(len(doc.text)):
        if start >= len(doc.text.rstrip()):
            continue  # Presidio raises there, and no hit begins there
        theirs = LemmaContextAwareEnhancer._find_index_of_match_token("", start, doc, starts)
        assert ContextEnhancer._find_index_of_match_token("", start, doc, starts) == theirs


def test_email_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was tried")

    # As in a fresh process: the list of suffixes is read on first use.
    monkeypatch.setattr(recognizers._SUFFIXES, "_extractor", None)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    email = OfflineEmailRecognizer()
    results = email.analyze("jane@mail.example.co.uk, jane@host.nosuchtld", [])
    assert [(r.start, r.end) for r in results] == [(0, 23)]


def test_nothing_of_the_text_reaches_the_log(
    analyzer: Analyzer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
        analyzer.analyze(["Mr Zebulon Quix, phone 212-555-0187, zq@example.org"])
    logged = caplog.text
    assert not any(word in logged for word in ("Zebulon", "Quix", "555", "example.org"))
    assert analyzer._engine.log_decision_process is False


@pytest.mark.parametrize(
    ("text", "entity", "value"),
    [
        ("MRN: 00123456 was seen", "MEDICAL_RECORD_NUMBER", "MRN: 00123456"),
        ("your account no. 4711-0815, thanks", "ACCOUNT_NUMBER", "account no. 4711-0815"),
        ("VIN 1HGCM82633A004352 of the car", "VEHICLE_ID", "1HGCM82633A004352"),
        ("lives at 12 North Elm Street, in", "ADDRESS", "12 North Elm Street"),
        ("Springfield, IL 62704-1234", "ZIP_CODE", "62704-1234"),
        ("a 93-year-old man", "AGE", "93-year-old"),
        ("seen by Dr. van Xyz and Dr. Quux", "PERSON", "Dr. Quux"),
        ("From: Zeb Quux\nSubject: hi", "PERSON", "Zeb Quux"),
        ("jq@host.example.com (Zeb Quux) writes:", "PERSON", "Zeb Quux"),
    ],
)
def test_own_recognizers(analyzer: Analyzer, text: str, entity: str, value: str) -> None:
    found = {text[f.start : f.end] for f in _all(analyzer, text, entity)}
    assert value in found


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("a 45-year-old man", "AGE"),
        ("the patient 12 was fine", "MEDICAL_RECORD_NUMBER"),
        ("on account of 4 reasons", "ACCOUNT_NUMBER"),
        ("in 2 place settings", "ADDRESS"),
    ],
)
def test_own_recognizers_leave_alone(analyzer: Analyzer, text: str, entity: str) -> None:
    names = {"OldAgeRecognizer", "MedicalRecordRecognizer", "CaptionedNumberRecognizer",
             "StreetRecognizer"}  # fmt: skip
    assert not [f for f in _all(analyzer, text, entity) if f.recognizer in names]
