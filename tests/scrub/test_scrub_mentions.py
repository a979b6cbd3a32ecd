"""The names that are masked apart: those that the shipped pipelines find, by place."""

import pytest

from dpmlm.scrub import load_policy
from dpmlm.scrub.mentions import Mentions

TEXT = "Dr. John Smith of Boston General Hospital treated Mary Jones in Springfield on 3 May 2020."


@pytest.fixture(scope="module")
def mentions() -> Mentions:
    return Mentions(load_policy("default"))


def test_names_and_no_dates(mentions: Mentions) -> None:
    found = [TEXT[first:last] for first, last in mentions(TEXT)]
    assert found == ["Dr. John Smith", "Boston General Hospital", "Mary Jones", "Springfield"]


def test_places_are_those_of_the_whole_text(mentions: Mentions) -> None:
    """A text that is cut into blocks."""
    filler = "the river was quiet again. " * 150
    long = filler + TEXT + " " + filler + TEXT
    found = mentions(long)
    assert found == sorted(found)
    assert [long[first:last] for first, last in found].count("Mary Jones") == 2


@pytest.mark.parametrize("text", ["", " \n ", ".", "\u200d", "e\u0301", "😀"])
def test_texts_of_nothing(mentions: Mentions, text: str) -> None:
    assert mentions(text) == []
