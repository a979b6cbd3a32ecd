import numpy as np

from dpmlm.training import CanaryUnits, CorpusUnits, JoinedUnits


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

    def id(self, i):
        return f"d{i}"


def test_a_unit_contributes_one_of_its_documents_by_seed_unit_and_visit_alone():
    units = CorpusUnits(Store(), "train", b"s" * 32)
    again = CorpusUnits(Store(), "train", b"s" * 32)
    seen = [units.example(0, visit).id for visit in range(200)]
    assert seen == [again.example(0, visit).id for visit in range(200)]
    assert 60 < seen.count("d0") < 140
    assert set(seen) == {"d0", "d1"}
    other = CorpusUnits(Store(), "train", b"t" * 32)
    assert seen != [other.example(0, visit).id for visit in range(200)]


def test_joined_units_keep_every_unit_once():
    canaries = CanaryUnits([("x", (1, 2), (7, 8, 9)), ("y", (3,), (5, 6))])
    joined = JoinedUnits(CorpusUnits(Store(), "train", b"s" * 32), canaries)
    assert list(joined.names) == ["a", "b", "c", "x", "y"]
    assert joined.example(1, 0).id == "d2"
    canary = joined.example(3, 0)
    assert canary.id == "x"
    assert canary.secret_span == (2, 5)
    assert list(canary.tokens) == [1, 2, 7, 8, 9]


def test_an_empty_source_shifts_nothing():
    canaries = CanaryUnits([("x", (1,), (7,))])
    joined = JoinedUnits(CorpusUnits(Store(), "validation", b"s" * 32), canaries)
    assert joined.example(0, 5).id == "x"
