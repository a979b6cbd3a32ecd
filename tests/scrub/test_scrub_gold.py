"""Gold files: words stand for all their places, and what is not fit to be measured is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from dpmlm.errors import UserError
from dpmlm.scrub.gold import annotation_of, read_gold

TEXT = "Ann Smith met Ann. Annual report of ann, (212) 555-0101 and Ann Smith-Jones; Smith."


def _read(folder: Path, *rows: Any) -> list[dict[str, Any]]:
    path = folder / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_gold(path)


def _found(folder: Path, *spans: dict[str, Any]) -> list[str]:
    (row,) = _read(folder, {"text": TEXT, "spans": list(spans)})
    return [f"{TEXT[s['start'] : s['end']]}@{s['start']}" for s in row["spans"]]


def _naive_places(words: str) -> list[int]:
    """Every offset at which the words stand and no letter or digit goes on from them."""
    places = []
    for start in range(len(TEXT)):
        end = start + len(words)
        before, behind = TEXT[start - 1 : start] if start else "", TEXT[end : end + 1]
        if TEXT[start:end] == words and not (before.isalnum() or behind.isalnum()):
            places.append(start)
    return places


@pytest.mark.parametrize("words", ["Ann", "Smith", "Ann Smith", "ann", "Annual", "report of"])
def test_words_stand_for_every_place_of_theirs(tmp_path: Path, words: str) -> None:
    places = _naive_places(words)
    assert places
    expected = [f"{words}@{start}" for start in places]
    assert _found(tmp_path, {"text": words, "type": "X"}) == expected


def test_words_with_signs_at_their_ends_are_found(tmp_path: Path) -> None:
    assert _found(tmp_path, {"text": "(212) 555-0101", "type": "X"}) == ["(212) 555-0101@41"]


def test_words_inside_a_longer_span_belong_to_it(tmp_path: Path) -> None:
    found = _found(tmp_path, {"text": "Ann", "type": "A"}, {"text": "Ann Smith", "type": "B"})
    assert sorted(found) == ["Ann Smith@0", "Ann Smith@60", "Ann@14"]
    beside = {"start": 60, "end": 75, "type": "C"}
    assert sorted(_found(tmp_path, beside, {"text": "Ann Smith", "type": "B"})) == [
        "Ann Smith-Jones@60",
        "Ann Smith@0",
    ]


def test_what_a_span_says_goes_with_each_place(tmp_path: Path) -> None:
    span = {"text": "Smith", "type": "PERSON", "identifier": "DIRECT"}
    (row,) = _read(tmp_path, {"text": TEXT, "spans": [span]})
    assert len(row["spans"]) == 3
    assert {(s["type"], s["identifier"]) for s in row["spans"]} == {("PERSON", "DIRECT")}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"text": TEXT, "spans": None}, "null until somebody has read it"),
        ({"text": TEXT, "spans": [{"text": "Anne", "type": "X"}]}, "stand in its text"),
        ({"text": TEXT, "spans": [{"text": "Annua", "type": "X"}]}, "stand in its text"),
        ({"text": TEXT, "spans": [{"text": " ", "type": "X"}]}, "stand in its text"),
        ({"text": TEXT, "spans": [{"text": "Ann", "type": "X"}] * 2}, "same words once"),
        ({"text": TEXT, "spans": [{"text": "Ann"}]}, "has a type"),
        ({"text": TEXT, "spans": [{"text": 3, "type": "X"}]}, "start and end"),
        (
            {"text": TEXT, "spans": [{"start": 1, "end": 4, "text": "Ann", "type": "X"}]},
            "what stands from start to end",
        ),
        (
            {"text": TEXT, "spans": [{"start": 0, "end": 3, "type": "X", "identifier": "direct"}]},
            "DIRECT, QUASI or NO_MASK",
        ),
        ({"text": TEXT, "spans": [], "prefilled": "no"}, "true or false"),
        ({"text": "first", "spans": []}, "marked once"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_by_its_line(
    tmp_path: Path, row: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match="line 2") as refused:
        _read(tmp_path, {"text": "first", "spans": []}, row)
    assert says in str(refused.value)
    assert "Ann" not in str(refused.value)


def test_words_beside_their_own_offsets_are_taken(tmp_path: Path) -> None:
    span = {"start": 0, "end": 3, "text": "Ann", "type": "X"}
    assert _found(tmp_path, span) == ["Ann@0"]


def test_how_it_was_marked_is_what_all_rows_say() -> None:
    assert annotation_of([{"prefilled": False}, {"prefilled": False}]) == "blind"
    assert annotation_of([{"prefilled": False}, {"prefilled": True}, {}]) == "prefilled"
    assert annotation_of([{"prefilled": False}, {}]) == "unsaid"
    assert annotation_of([{}]) == "unsaid"
