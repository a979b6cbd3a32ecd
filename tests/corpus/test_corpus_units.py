"""Units and splits: naive twins, domain separation, and that units are never torn apart."""

import hashlib
import hmac

import pytest

from dpmlm.corpus import Document, split_of, stage_document, unit_of
from dpmlm.errors import UserError

KEY = bytes(range(32))
OTHER = bytes(32)


def document(name: str, person: str | None) -> Document:
    return Document(name, "text", person, "f", 1)


def test_units_equal_their_naive_twin() -> None:
    def naive(domain: str, value: str) -> str:
        block = KEY + bytes(32)
        inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + f"{domain}\0{value}".encode())
        outer = hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner.digest())
        return outer.hexdigest()[:32]

    note = document("d1", "Ann")
    assert unit_of(note, "person", KEY) == naive("dpmlm/unit/person", "Ann")
    assert unit_of(note, "document", KEY) == naive("dpmlm/unit/document", "d1")


def test_units_follow_the_person_and_the_key() -> None:
    first, second = document("d1", "Zoë"), document("d2", " Zoe\u0308 ")
    assert unit_of(first, "person", KEY) == unit_of(second, "person", KEY)
    assert unit_of(first, "document", KEY) != unit_of(second, "document", KEY)
    assert unit_of(first, "person", KEY) != unit_of(first, "person", OTHER)


def test_a_document_without_person_is_a_unit_of_its_own() -> None:
    nobody, named = document("Ann", None), document("x", "Ann")
    assert unit_of(nobody, "person", KEY) == unit_of(nobody, "document", KEY)
    assert unit_of(nobody, "person", KEY) != unit_of(named, "person", KEY)
    assert unit_of(nobody, "person", KEY) != unit_of(document("y", None), "person", KEY)


def test_splits_equal_their_naive_twin_and_have_the_asked_share() -> None:
    units = [unit_of(document(str(n), None), "document", KEY) for n in range(4000)]
    held_out = [unit for unit in units if split_of(unit, 0.1, KEY) == "validation"]
    naive = [
        unit
        for unit in units
        if int(hmac.new(KEY, b"dpmlm/split\0" + unit.encode(), "sha256").hexdigest()[:16], 16)
        < 0.1 * 2**64
    ]
    assert held_out == naive
    assert 320 < len(held_out) < 480  # 4.2 standard deviations around 400
    assert all(split_of(unit, 0.2, KEY) == "validation" for unit in held_out)
    assert {split_of(unit, 0, KEY) for unit in units} == {"train"}


def test_all_documents_of_a_person_fall_on_one_side() -> None:
    staged = [
        stage_document(document(f"{p}-{n}", f"person {p}"), unit="person", validation=0.5, key=KEY)
        for p in range(50)
        for n in range(4)
    ]
    sides = {}
    for each in staged:
        sides.setdefault(each["unit"], set()).add(each["split"])
    assert len(sides) == 50
    assert all(len(side) == 1 for side in sides.values())
    assert set(staged[0]) == {"id", "text", "unit", "split", "source", "row", "record", "person"}


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="key of 0 bytes"):
        unit_of(document("a", None), "document", b"")
    with pytest.raises(UserError, match="unit 'window'"):
        unit_of(document("a", None), "window", KEY)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="share is in"):
            split_of("unit", share, KEY)
