"""Where verbatim spans stand, and how many other units hold their documents."""

import random
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from small_run import WORDS

from dpmlm.dedup.shingles import jaccard, shingle_set
from dpmlm.pipeline import verbatim_case as made
from dpmlm.pipeline.verbatim_case import SPAN, drawn_spans, surviving_duplicates, verbatim_case


class Notes:
    """A store of units with documents of the lengths given; token i of document d is 1000 d + i."""

    def __init__(self, *units):
        self._lengths = [length for unit in units for length in unit]
        starts = np.cumsum([0, *map(len, units)])
        self._units = [list(range(a, b)) for a, b in pairwise(starts)]

    def units(self, split):
        return [f"{split} {index}" for index in range(len(self._units))]

    def documents_of(self, unit):
        return self._units[int(unit.split()[1])]

    def id(self, number):
        return f"d{number}"

    def tokens(self, number):
        return 1000 * number + np.arange(self._lengths[number])


def a_run(window, **audit):
    return SimpleNamespace(
        secrets=SimpleNamespace(mask_seed=b"seed"),
        config=SimpleNamespace(
            tokens=SimpleNamespace(window=window),
            audit=SimpleNamespace(groups=[], **audit),
        ),
        folder=lambda name: name,
        source=lambda name: name,
    )


@pytest.mark.parametrize("window", [8, 16, 31])
def test_a_window_too_short_for_a_span_gives_none(window):
    assert drawn_spans(a_run(window), Notes([5], [29], [30], [300]), "train", 9) == []


@pytest.mark.parametrize("window", [32, 33, 128])
def test_a_span_lies_inside_a_window_with_context_on_both_sides(window):
    spans = drawn_spans(a_run(window), Notes([29], [30], [31], [40], [300]), "train", 9)
    assert len(spans) == 4
    for number, span in spans:
        assert span.row == tuple(range(span.row[0], span.row[0] + len(span.row)))
        assert span.row[0] // 1000 == span.row[-1] // 1000 == number
        assert 30 <= len(span.row) <= window - 2
        assert len(span.secret) == SPAN
        assert min(len(span.left), len(span.right)) >= SPAN


def test_a_unit_gives_one_span_from_any_document_that_is_long_enough():
    store = Notes(*[[5, 40, 12, 50]] * 30)
    spans = drawn_spans(a_run(32), store, "train", 100)
    assert len(spans) == len({span.unit for _, span in spans}) == 30
    assert {number % 4 for number, _ in spans} == {1, 3}
    assert len(drawn_spans(a_run(32), store, "train", 7)) == 7


def corpus():
    """Units with copies, near copies and texts of their own."""
    rng = random.Random(1)
    rows = []
    for unit in range(16):
        words = [rng.choice(WORDS) for _ in range(60)]
        rows.append((f"u{unit}", " ".join(words)))
        for copy in range(unit % 4):
            words[rng.randrange(60)] = "changed"
            if copy == 1:
                words = words[:30] + ["other"] * 30
            rows.append((f"c{unit % 7}-{copy}", " ".join(words)))
    first = rows[0][1]
    rows += [("u0", first), ("v1", first), ("v1", first + " more"), ("v2", "So: " + first)]
    rows += [("dots", "..."), ("points", "..."), ("dashes", "--")]
    splits = ["validation" if unit.startswith("c3") else "train" for unit, _ in rows]
    return [
        {"id": f"d{i}", "text": text, "unit": unit, "split": split}
        for i, ((unit, text), split) in enumerate(zip(rows, splits))
    ]


def test_surviving_duplicates_against_every_pair():
    documents = corpus()
    wanted = {one["id"] for one in documents if one["split"] == "train"}
    found = surviving_duplicates(lambda: iter(documents), wanted)
    assert set(found) == wanted
    sets = {one["id"]: shingle_set(one["text"]) for one in documents}
    for mine in documents:
        if mine["id"] not in wanted:
            continue
        units = {
            other["unit"]
            for other in documents
            if other["split"] == "train"
            and other["unit"] != mine["unit"]
            and (
                other["text"] == mine["text"] or jaccard(sets[other["id"]], sets[mine["id"]]) >= 0.8
            )
        }
        assert found[mine["id"]] == len(units)
    assert found["d0"] == 2  # v1 holds it twice and is one unit; u0 is its own
    assert found[documents[-1]["id"]] == 0
    assert surviving_duplicates(lambda: iter(documents), set()) == {}


def test_a_case_carries_counts_grid_and_seed(monkeypatch):
    texts = [" ".join(WORDS)] * 2 + ["another text altogether"]
    documents = [
        {"id": f"d{i}", "text": text, "unit": f"train {i}", "split": "train"}
        for i, text in enumerate(texts)
    ]
    monkeypatch.setattr(made.TokenStore, "open", lambda folder: Notes([40], [50], [60]))
    monkeypatch.setattr(made, "read_shards", lambda folder: iter(documents))
    run = a_run(64, verbatim_spans=9, verbatim_grid="full")
    case = verbatim_case(run)
    assert [len(case.train), len(case.twins), case.grid] == [3, 3, "full"]
    counts = {span.unit: span.duplicates for span in case.train}
    assert counts == {"train 0": 1, "train 1": 1, "train 2": 0}
    assert all(span.duplicates is None for span in case.twins)
    assert case.seed == verbatim_case(run).seed > 0
    assert verbatim_case(a_run(64, verbatim_spans=0)) is None
