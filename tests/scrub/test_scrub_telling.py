"""Recognizers that go by telling words: on tokens made by hand, without any model."""

from typing import Any

import pytest
import spacy
from presidio_analyzer import LocalRecognizer
from presidio_analyzer.nlp_engine import NlpArtifacts
from spacy.tokens import Span

from dpmlm.scrub.recognizers import lexicon
from dpmlm.scrub.recognizers.demographics import DemographicRecognizer
from dpmlm.scrub.recognizers.organisations import OrganisationRecognizer
from dpmlm.scrub.recognizers.people import ListRecognizer, introduced_recognizer
from dpmlm.scrub.recognizers.places import PlaceRecognizer
from dpmlm.scrub.recognizers.written import written_recognizers

NLP = spacy.blank("en")


def _artifacts(text: str, label: str = "", named: tuple[str, ...] = ()) -> NlpArtifacts:
    doc = NLP(text)
    entities = []
    for value in named:
        at = text.index(value)
        span = doc.char_span(at, at + len(value))
        assert span is not None
        entities.append(Span(doc, span.start, span.end, label=label))
    made: Any = NlpArtifacts(
        entities=entities,
        tokens=doc,
        tokens_indices=[t.idx for t in doc],
        lemmas=[t.lower_ for t in doc],
        nlp_engine=None,
        language="en",
    )
    return made


def _found(
    recognizer: LocalRecognizer, text: str, label: str = "", named: tuple[str, ...] = ()
) -> set[str]:
    results = recognizer.analyze(
        text, recognizer.supported_entities, _artifacts(text, label, named)
    )
    return {text[r.start : r.end].strip() for r in results}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sued Hughes, Roe and Kowalski LLP in May", {"Hughes, Roe and Kowalski LLP"}),
        ("by Roe-Hughes Group. Then", {"Roe-Hughes Group."}),
        ("we like kowalski ltd. a lot", {"kowalski ltd."}),
        ("from hanson and sons ltd in may", {"hanson and sons ltd"}),
        ("the Arnsberg Labour Court (Arbeitsgericht) said",
         {"Arnsberg Labour Court (Arbeitsgericht)"}),
        ("In May the Ministry of Foreign Affairs wrote", {"Ministry of Foreign Affairs"}),
        ("The Court and the Board said (see below)", set()),
        ("However, the District Court found", {"District Court"}),
        ("the court of the party", set()),
        ("under the Rules of Court", set()),
    ],
)  # fmt: skip
def test_organisations_by_their_telling_words(text: str, expected: set[str]) -> None:
    assert _found(OrganisationRecognizer(), text) == expected


def test_a_bracket_behind_an_organisation_goes_with_it() -> None:
    text = "the Falcon League (Falkenbund) and Ann (aunt)"
    found = _found(OrganisationRecognizer(), text, "ORGANIZATION", ("Falcon League",))
    assert found == {"Falcon League (Falkenbund)"}
    seen = "the Falcon League (see above, no. 3)"
    assert not _found(OrganisationRecognizer(), seen, "ORGANIZATION", ("Falcon League",))


def test_the_line_below_the_name_of_a_signature() -> None:
    text = "Regards,\nAnn Roe\nGlobex\n12 Elm Road\n\nBob said\nhello\nto 3 men"
    assert _found(OrganisationRecognizer(), text, "PERSON", ("Ann Roe", "Bob")) == {"Globex"}


def test_three_partners_are_one_firm_where_one_was_taken_for_a_name() -> None:
    text = "at roe, hughes and kowalski on Monday; salt, pepper and sugar"
    found = _found(OrganisationRecognizer(), text, "PERSON", ("hughes",))
    assert found == {"roe, hughes and kowalski"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a Turkish national", {"Turkish"}),
        ("German law and the lorry driver", set()),
        ("he worked as a lorry driver", {"lorry driver"}),
        (
            "he is a retired non-commissioned army officer",
            {"retired non-commissioned army officer"},
        ),
        ("a man who saw the judge", set()),
        ("Ms Roe, a lawyer practising in Bonn", set()),
        ("had multiple sclerosis and a heart condition", {"multiple sclerosis", "heart condition"}),
    ],
)
def test_what_is_said_of_somebody(text: str, expected: set[str]) -> None:
    assert _found(DemographicRecognizer(), text) == expected


def test_phrases_by_first_word_equal_a_search_for_each() -> None:
    known = lexicon.phrases((*lexicon.OCCUPATIONS, *lexicon.COUNTRIES))
    text = "he is a civil engineer in the united states and a bank clerk , guinea - bissau"
    words = text.split()
    values = [v.lower().replace("-", " - ") for v in (*lexicon.OCCUPATIONS, *lexicon.COUNTRIES)]
    for at in range(len(words)):
        rest = " ".join(words[at:]) + " "
        naive = [len(v.split()) for v in values if rest.startswith(" ".join(v.split()) + " ")]
        assert lexicon.length_at(known, words, at) == max(naive, default=0)


@pytest.mark.parametrize(
    ("text", "named", "expected"),
    [
        ("Ann, Bob, zoë and chidi.", ("Ann", "Bob"), {"zoë", "chidi"}),
        ("I met Ann, Bob Roe and Cy", ("Bob Roe", "Cy"), {"Ann"}),
        ("two friends, Bob Roe, Cy and others", ("Bob Roe", "Cy"), set()),
        ("Ann; Bob; and others", ("Ann", "Bob"), set()),
        ("Ann, tired, cold and hungry", ("Ann",), set()),
        ("Ann and Bob met dora", ("Ann", "Bob"), set()),
        ("1. Ann Roe\n2. Cy Poe\n3. Di Moe", ("Ann Roe",), {"Ann Roe", "Cy Poe", "Di Moe"}),
        ("1. Annual Report\n2. Other Business\n3. Any Questions", (), set()),
        (
            "To: Ann Roe; Cy B. Poe <cy@example.org>\nSubject: New York",
            (),
            {"Ann Roe", "Cy B. Poe"},
        ),
    ],
)
def test_lists_of_people(text: str, named: tuple[str, ...], expected: set[str]) -> None:
    assert _found(ListRecognizer(), text, "PERSON", named) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my name is zoë kowalska.", {"zoë kowalska"}),
        ("everyone calls me zo, so", {"zo"}),
        ("call me later", set()),
        ("my name is on the list", set()),
        ("dr. roe saw her", {"dr. roe"}),
        ("MRS ROE WAS THERE", {"MRS ROE WAS"}),
        ("the Dr saw", set()),
        ("- Roe, Ann\n- Poe, Cy B.\n- Moe, Di", {"- Roe, Ann\n- Poe, Cy B.\n- Moe, Di"}),
    ],
)
def test_introduced_names(text: str, expected: set[str]) -> None:
    assert _found(introduced_recognizer(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 Elm Road\nSuite 4\nBurgstadt\n\n New Zealand 08093",
         {"New Zealand", "New Zealand 08093", "Burgstadt"}),
        ("we love turkey and peru", {"peru"}),
        ("Unit 12 Box 34\nAPO AE 09012", {"Unit 12 Box 34\nAPO AE 09012"}),
        ("the corner of Elm Street and Roe Lane is", {"the corner of Elm Street and Roe Lane"}),
        ("he cut corners in 3 places and left", set()),
    ],
)  # fmt: skip
def test_places(text: str, expected: set[str]) -> None:
    assert _found(PlaceRecognizer(), text) == expected


def test_a_town_and_its_country_are_one_place() -> None:
    found = _found(PlaceRecognizer(), "in Burgstadt, Austria.", "LOCATION", ("Burgstadt",))
    assert found == {"Burgstadt, Austria"}


@pytest.mark.parametrize(
    ("text", "entity", "expected"),
    [
        ("on 3 April, 9 May and 27 August 2012, he", "DATE_TIME",
         {"3 April, 9 May and 27 August 2012"}),
        ("on sunday or in March 2004", "DATE_TIME", {"sunday", "March 2004"}),
        ("in 1993, 1994 and 1997", "DATE_TIME", {"1993, 1994 and 1997"}),
        ("between July and December 1995", "DATE_TIME", {"July and December 1995"}),
        ("to two and a half years and six months’ imprisonment in five days", "DATE_TIME",
         {"two and a half years and six months’"}),
        ("may 12 be a dozen? march on", "DATE_TIME", {"may 12"}),
        ("paid EUR 7,312.40 and 81,000 Danish kroner (DKK), 23.5% more", "QUANTITY",
         {"EUR 7,312.40", "81,000 Danish kroner (DKK)", "23.5%"}),
        ("$5 million of 12 people", "QUANTITY", {"$5 million"}),
    ],
)  # fmt: skip
def test_dates_and_sums(text: str, entity: str, expected: set[str]) -> None:
    found: set[str] = set()
    for recognizer in written_recognizers():
        if entity in recognizer.supported_entities:
            found |= _found(recognizer, text)
    assert found == expected
