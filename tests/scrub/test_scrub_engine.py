import logging
import socket
from typing import Any

import presidio_analyzer.predefined_recognizers as predefined
import pytest
import spacy
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import SpacyNlpEngine

from dpmlm.scrub.engine import Analyzer
from dpmlm.scrub.findings import Finding
from dpmlm.scrub.patterns.search import Patterns
from dpmlm.scrub.recognizers import registry as recognizers
from dpmlm.scrub.recognizers.registry import (
    OfflineEmailRecognizer,
    presidio_recognizers,
)


def _all(analyzer: Analyzer, text: str, entity: str) -> list[Finding]:
    return [f for f in analyzer.find(text) if f.entity == entity]


def test_context_lifts_a_phone_number_from_040_to_075() -> None:
    patterns = Patterns([predefined.PhoneRecognizer()])
    assert [f.score for f in patterns.find("my phone is 212-555-0187")] == [0.75]
    assert [f.score for f in patterns.find("we saw 212-555-0187 there")] == [0.4]


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
        analyzer.find("Mr Zebulon Quix, phone 212-555-0187, zq@example.org")
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
