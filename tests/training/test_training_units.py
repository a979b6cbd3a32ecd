from collections import Counter

import numpy as np

from dpmlm.training import CanaryUnits, CorpusUnits, JoinedUnits, SequenceUnits, units_of


class Store:
    """Three units: one with two documents, two with one."""

    def __init__(self):
        self.documents = {"a": [0, 1], "b": [2], "c": [3]}

    def units(self, split):
        return sorted(self.documents) if split == "train" else []

    def documents_of(self, unit):
        return self.documents[unit]

    def tokens(self, i):
        return np.arange(i + 1)

    def names(self, i):
        return None

    def id(self, i):
        return f"d{i}"


class Many(Store):
    """One unit of many documents."""

    def __init__(self, count):
        self.documents = {"a": range(count)}


def only(units, index, step):
    """The example of a unit that contributes one row."""
    ((example, visit),) = units.views(index, step, 1)
    assert visit == step
    return example


def test_a_unit_contributes_one_of_its_documents_by_seed_unit_and_visit_alone():
    units = CorpusUnits(Store(), "train", b"s" * 32)
    again = CorpusUnits(Store(), "train", b"s" * 32)
    seen = [only(units, 0, step).id for step in range(200)]
    assert seen == [only(again, 0, step).id for step in range(200)]
    assert 60 < seen.count("d0") < 140
    assert set(seen) == {"d0", "d1"}
    other = CorpusUnits(Store(), "train", b"t" * 32)
    assert seen != [only(other, 0, step).id for step in range(200)]


def test_joined_units_keep_every_unit_once():
    canaries = CanaryUnits([("x", (1, 2), (7, 8, 9)), ("y", (3,), (5, 6))])
    joined = JoinedUnits(CorpusUnits(Store(), "train", b"s" * 32), canaries)
    assert list(joined.names) == ["a", "b", "c", "x", "y"]
    assert only(joined, 1, 0).id == "d2"
    canary = only(joined, 3, 0)
    assert canary.id == "x"
    assert canary.secret_span == (2, 5)
    assert list(canary.tokens) == [1, 2, 7, 8, 9]


def test_an_empty_source_shifts_nothing():
    canaries = CanaryUnits([("x", (1,), (7,))])
    joined = JoinedUnits(CorpusUnits(Store(), "validation", b"s" * 32), canaries)
    assert only(joined, 0, 5).id == "x"


def test_a_unit_of_many_documents_contributes_as_many_rows_as_were_asked_for():
    units = CorpusUnits(Many(1000), "train", b"s" * 32)
    views = units.views(0, 3, 8)
    assert len(views) == 8
    assert len({view.example.id for view in views}) == 8


def test_a_unit_of_few_documents_contributes_more_views_of_them_and_never_the_same_twice():
    units = CorpusUnits(Store(), "train", b"s" * 32)
    seen = Counter()
    for step in range(50):
        views = units.views(0, step, 5)
        ids = Counter(view.example.id for view in views)
        assert sorted(ids.values()) == [2, 3]
        seen.update((view.example.id, view.visit) for view in views)
    assert set(seen.values()) == {1}


def test_another_view_of_a_canary_would_be_the_same():
    canaries = CanaryUnits([("x", (1,), (7,))])
    assert len(canaries.views(0, 0, 6)) == 1


class Long(Store):
    """Documents of 9, 3 and 0 tokens."""

    def __init__(self):
        self.documents = {"a": [0], "b": [1], "c": [2]}

    def tokens(self, i):
        return np.arange([9, 3, 0][i]) + 10 * i


def test_every_row_of_a_document_is_a_sequence_and_none_overlap():
    units = SequenceUnits(Long(), "train", window=6)
    assert list(units.names) == ["d0/0", "d0/4", "d0/8", "d1/0"]
    rows = [list(only(units, index, 5).tokens) for index in range(4)]
    assert rows == [[0, 1, 2, 3], [4, 5, 6, 7], [8], [10, 11, 12]]
    assert SequenceUnits(Long(), "validation", window=6).names == []


def test_a_sequence_contributes_views_of_its_own_row_alone():
    units = SequenceUnits(Long(), "train", window=6)
    views = [view for step in range(3) for view in units.views(1, step, 2)]
    assert {view.example.id for view in views} == {"d0/4"}
    assert [view.visit for view in views] == [0, 1, 2, 3, 4, 5]


def test_the_plans_unit_says_what_is_drawn():
    assert isinstance(units_of(Long(), "train", "sequence", b"s", 6), SequenceUnits)
    for unit in ("document", "person"):
        assert list(units_of(Long(), "train", unit, b"s", 6).names) == ["a", "b", "c"]
