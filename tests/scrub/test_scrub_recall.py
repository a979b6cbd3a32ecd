import math
from pathlib import Path
from typing import Any

import pytest

from dpmlm.errors import UserError
from dpmlm.scrub import Scrubber, measure_recall
from dpmlm.scrub.recall import Miss, Rate, RecallReport, clopper_pearson
from dpmlm.scrub.training.examples import gold_rows


def _at_least(hits: int, total: int, p: float) -> float:
    terms = range(hits, total + 1)
    return sum(math.comb(total, k) * p**k * (1 - p) ** (total - k) for k in terms)


def _naive_bounds(hits: int, total: int) -> tuple[float, float]:
    """Bisection on the binomial tails, from the definition."""

    def solve(tail: Any) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if tail(middle) < 0.025 else (low, middle)
        return low

    lower = 0.0 if hits == 0 else solve(lambda p: _at_least(hits, total, p))
    upper = 1.0 if hits == total else 1 - solve(lambda q: _at_least(total - hits, total, q))
    return lower, upper


@pytest.mark.parametrize(("hits", "total"), [(0, 5), (5, 5), (3, 9), (49, 50), (1, 40), (0, 0)])
def test_interval_equals_the_definition(hits: int, total: int) -> None:
    assert clopper_pearson(hits, total) == pytest.approx(_naive_bounds(hits, total), abs=1e-9)


TEXT = "Mr Robert Hughes, jane@example.org, lives somewhere quiet."


def _span(value: str, kind: str, **more: str) -> dict[str, Any]:
    start = TEXT.index(value)
    return {"start": start, "end": start + len(value), "type": kind, **more}


def test_a_span_counts_when_all_of_it_is_covered(scrubber: Scrubber) -> None:
    spans = [
        _span("Robert Hughes", "PERSON", identifier="DIRECT"),
        _span("jane@example.org, lives", "EMAIL", identifier="QUASI"),
        _span("quiet", "MISC", identifier="NO_MASK"),
    ]
    report = measure_recall(scrubber, [{"id": "1", "text": TEXT, "spans": spans}])
    assert (report.recall.hits, report.recall.total) == (1, 2)
    assert report.by_identifier["DIRECT"].value == 1.0
    assert report.by_type_and_identifier["EMAIL/QUASI"].value == 0.0
    assert "MISC" not in report.by_type
    assert (report.precision.hits, report.precision.total) == (28, 30)  # "Mr" is in no span
    document = report.to_json()
    assert document["by_type"]["PERSON"]["low"] == pytest.approx(0.025)
    assert document["schema"] == "dpmlm.scrub.recall/2"


def _naive_precision(scrubber: Scrubber, row: dict[str, Any]) -> tuple[int, int]:
    """By sets of places, from the definition."""
    text = row["text"]
    replaced = {
        i for d in scrubber.scrub(text).decisions if d.operator != "keep"
        for i in range(d.start, d.end) if not text[i].isspace()
    }  # fmt: skip
    gold = {i for s in row["spans"] for i in range(s["start"], s["end"])}
    return len(replaced & gold), len(replaced)


def test_precision_equals_its_definition_by_characters(scrubber: Scrubber) -> None:
    rows: list[dict[str, Any]] = [
        {"text": TEXT, "spans": [_span("bert Hughes", "PERSON"), _span("quiet", "MISC"),
                                 _span("jane@", "X", identifier="NO_MASK")]},
        {"text": "On 3 May 2004 Ms Ann Lee left.", "spans": [{"start": 3, "end": 7, "type": "D"}]},
    ]  # fmt: skip
    report = measure_recall(scrubber, rows)
    sums = [sum(of) for of in zip(*(_naive_precision(scrubber, row) for row in rows), strict=True)]
    assert [report.precision.hits, report.precision.total] == sums
    assert 0 < sums[0] < sums[1]
    right = report.to_json()["precision"]
    assert (right["right"], right["characters"]) == tuple(sums)
    assert "low" not in right


def test_what_stands_alone_lowers_precision(scrubber: Scrubber) -> None:
    report = measure_recall(scrubber, [{"id": "1", "text": TEXT, "spans": []}])
    assert report.precision.total >= 2
    assert report.precision.hits == 0
    assert report.recall.value is None


@pytest.mark.parametrize(
    "row",
    [
        {"text": "abc"},
        {"spans": []},
        {"text": "abc", "spans": [{"start": 0, "end": 9, "type": "X"}]},
        {"text": "abc", "spans": [{"start": 2, "end": 1, "type": "X"}]},
        {"text": "abc", "spans": [{"start": -1, "end": 1, "type": "X"}]},
        {"text": "abc", "spans": [{"start": 0, "end": 1}]},
        {"text": "abc", "spans": [{"start": "0", "end": 1, "type": "X"}]},
        "abc",
    ],
)
def test_wrong_gold_is_refused_with_its_row(scrubber: Scrubber, row: Any) -> None:
    with pytest.raises(UserError, match="gold row 2"):
        measure_recall(scrubber, [{"text": "ok", "spans": []}, row])


def test_shipped_model_on_unseen_judgments_and_templates(
    scrubber: Scrubber, shared_data: Path
) -> None:
    tab = measure_recall(scrubber, gold_rows(shared_data, "tab")[:4])
    assert tab.by_identifier["DIRECT"].value >= 0.85
    synthetic = gold_rows(shared_data, "pii_synthetic")[:120]
    assert measure_recall(scrubber, synthetic).recall.value >= 0.75


def test_misses_are_told_direct_ones_and_seldom_found_types_first() -> None:
    def rate(hits: int, total: int) -> Rate:
        return Rate(hits, total)

    misses = (
        Miss(0, 1, 2, "PERSON/QUASI"), Miss(1, 5, 9, "CODE"), Miss(0, 9, 12, "DATE/DIRECT"),
        Miss(0, 3, 4, "PERSON/QUASI"),
    )  # fmt: skip
    report = RecallReport(
        "p", 2, rate(6, 10), {"PERSON": rate(4, 6), "CODE": rate(0, 1), "DATE": rate(2, 3)},
        {}, {}, rate(1, 1), misses,
    )  # fmt: skip
    kinds = [(miss.kind, miss.start) for miss in report.worst(9)]
    assert kinds == [("DATE/DIRECT", 9), ("CODE", 5), ("PERSON/QUASI", 1), ("PERSON/QUASI", 3)]
    assert report.worst(1) == [misses[2]]
    assert "misses" not in report.to_json()


def test_every_span_that_stayed_is_a_miss(scrubber: Scrubber) -> None:
    text = "Mr Robert Hughes grew tulips."
    spans = [
        {"start": 3, "end": 16, "type": "PERSON", "identifier": "DIRECT"},
        {"start": 22, "end": 28, "type": "MISC", "identifier": "QUASI"},
        {"start": 17, "end": 21, "type": "MISC", "identifier": "NO_MASK"},
    ]
    report = measure_recall(scrubber, [{"id": "a", "text": text, "spans": spans}])
    assert report.misses == (Miss(0, 22, 28, "MISC/QUASI"),)
    assert (report.recall.hits, report.recall.total) == (1, 2)
