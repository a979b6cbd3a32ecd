"""The grid of verbatim extraction, what gates and what explores, and its small formulas."""

from dataclasses import replace

import numpy as np
import pytest
from variants import rest_in_full

from audits.models import LoadedModel
from audits.statistics import upper_limit
from audits.text import spans
from audits.text.attempts import NEAR, edit_distance, is_near
from audits.text.spans import Cell, Span, VerbatimCase, cells, cut
from audits.text.verbatim import bound, extraction_chance, spans_needed, verbatim, verbatim_rows
from dpmlm.artifacts import UserError

pytestmark = pytest.mark.xdist_group("verbatim")

EVERY = (
    Cell("greedy", 4, 6),
    Cell("greedy", 1, 6),
    Cell("greedy", 4, 6, left_only=True),
    Cell("confidence", 4, 6),
    Cell("beam", 4, 6),
    Cell("gibbs", 4, 6),
    Cell("sampling", 4, 6),
)


def _window(rng: np.random.Generator, unit: str, duplicates: int | None) -> Span:
    row = tuple(int(token) for token in rng.integers(5, 700, 16))
    return Span(row[:6], row[6:10], row[10:], unit, duplicates)


@pytest.fixture(scope="module")
def case() -> VerbatimCase:
    rng = np.random.default_rng(1)
    return VerbatimCase(
        train=[_window(rng, f"u{i}", (0, 1, 3, 40)[i % 4]) for i in range(30)],
        twins=[_window(rng, f"v{i}", None) for i in range(30)],
    )


@pytest.fixture(scope="module")
def parrot(untrained: LoadedModel, case: VerbatimCase, memoriser) -> LoadedModel:
    """Trained on every training span but those of documents without a duplicate."""
    rows = [span.row for span in case.train if span.duplicates]
    ends = [(start, 10) for start in range(6, 10) for _ in rows]
    singles = [(at, at + 1) for at in range(6, 10) for _ in rows]
    return memoriser(untrained, rows * 8, ends + singles, 60)


@pytest.fixture
def every(monkeypatch) -> tuple[Cell, ...]:
    """Each decoder, in rows that the tests' model is trained on."""
    monkeypatch.setattr(spans, "STANDARD", EVERY)
    return EVERY


@pytest.fixture(scope="module")
def read_out(parrot: LoadedModel, untrained: LoadedModel, case: VerbatimCase) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "STANDARD", EVERY)
        return verbatim(parrot, untrained, case)


def test_every_decoder_reads_an_overfitted_model_out(read_out: dict) -> None:
    grid = read_out["grid"]
    assert [(cell["decoder"], cell["tokens"]) for cell in grid["cells"]] == [
        (cell.decoder, cell.tokens) for cell in EVERY
    ]
    assert grid["exploratory"] is True
    assert (grid["cells_run"], grid["tests_run"]) == (7, 12)
    for cell in grid["cells"]:
        assert cell["spans"] == {"train": spans.STANDARD_SPANS, "twins": spans.STANDARD_SPANS}
        if cell["decoder"] == "sampling" or cell["left_only"]:
            continue
        assert cell["hits"]["train"] >= 12, cell
        assert cell["hits"]["reference"] == cell["hits"]["twins"] == 0
        assert cell["mcnemar_p_value"] == 0.5 ** cell["discordant"] < 1e-3
        assert cell["fisher_p_value"] < 1e-3
        assert cell["discordant_upper"] == upper_limit(cell["discordant"], 25)
    rejected = {(one["cell"], one["test"]) for one in grid["rejected"]}
    assert {(n, "mcnemar_p_value") for n in (0, 1, 3, 4, 5)} <= rejected
    once, often = grid["cells"][6]["by_tries"][0], grid["cells"][6]["by_tries"][3]
    assert once["expected_hits"]["train"] > 5 > 0.1 > once["expected_hits"]["reference"]
    assert often["expected_hits"]["train"] >= once["expected_hits"]["train"]
    assert often["spans_at"]["0.5"]["train"] >= often["spans_at"]["0.9"]["train"] >= 12


def test_an_untrained_model_gives_nothing_away(
    untrained: LoadedModel, parrot: LoadedModel, case: VerbatimCase, every
) -> None:
    found = verbatim(untrained, parrot, case)
    assert found["grid"]["rejected"] == []
    for cell in found["grid"]["cells"][:-1]:
        assert cell["hits"]["train"] == cell["discordant"] == 0
        assert cell["mcnemar_p_value"] == 1


def test_hits_are_joined_to_the_duplicates_of_their_documents(
    read_out: dict, untrained: LoadedModel, case: VerbatimCase, monkeypatch
) -> None:
    found, linked = read_out, read_out["duplicates"]
    assert [(p["least"], p["most"], p["spans"]) for p in linked["by_count"]] == [
        (0, 0, 8), (1, 1, 8), (2, 3, 7), (4, 15, 0), (16, None, 7)
    ]  # fmt: skip
    assert sum(part["hits"] for part in linked["by_count"]) == found["hits"]["train"]
    assert linked["hits_on_unique"] == 0
    assert linked["hits_on_duplicated"] == found["hits"]["train"] >= 15
    assert linked["by_count"][3]["rate_interval"] is None
    for cell in found["grid"]["cells"][:-1]:
        each = cell["duplicates"]
        assert each["spans"] == cell["spans"]["train"]
        assert each["hits_on_duplicated"] + each["hits_on_unique"] == cell["hits"]["train"]
    assert found["grid"]["cells"][0]["duplicates"]["hits_on_unique"] == 0
    monkeypatch.setattr(spans, "STANDARD", ())
    uncounted = [replace(span, duplicates=None) for span in case.train]
    found = verbatim(untrained, untrained, replace(case, train=uncounted))
    assert found["duplicates"]["applicable"] is False


def test_the_declared_cell_is_what_it_is_without_the_grid(
    read_out: dict, parrot: LoadedModel, untrained: LoadedModel, case: VerbatimCase, monkeypatch
) -> None:
    with_grid = read_out
    monkeypatch.setattr(spans, "STANDARD", ())
    without = verbatim(parrot, untrained, case)
    assert with_grid["grid"]["cells"]
    assert without["grid"]["cells"] == []
    for name in with_grid.keys() - {"grid"}:
        assert with_grid[name] == without[name]


def test_cells_that_cannot_be_run_say_what_is_missing(
    parrot: LoadedModel, untrained: LoadedModel, case: VerbatimCase
) -> None:
    small = VerbatimCase(case.train[:9], case.twins[:9], grid="full")
    found = verbatim(parrot, untrained, small)["grid"]
    assert len(found["cells"]) == len(cells("full")) == 5 * 5 * 3 * 2
    assert found["tests_run"] == 2 * 4 * 2 == 2 * sum("hits" in cell for cell in found["cells"])
    reasons = {}
    for cell in found["cells"]:
        length = cell["tokens"] + cell["context"] * (1 if cell["left_only"] else 2)
        runs = length <= 16 and length + 2 <= 64
        assert cell.get("applicable", True) is runs
        if not runs:
            reasons.setdefault(tuple(cell["missing"].items()), cell["reason"])
            missing = {"row_tokens": length + 2 - 64} if length > 62 else {}
            assert cell["missing"] == (missing or {"window_tokens": length - 16})
    assert found["cells_run"] == 5 * 2  # one token or five, after ten on the left


@pytest.mark.parametrize("role", rest_in_full(["target", "reference"], ["target"]))
def test_a_cell_of_a_model_that_is_not_finite_is_not_applicable(
    broken: LoadedModel, untrained: LoadedModel, case: VerbatimCase, every, role: str
) -> None:
    from audits.text.verbatim import _grid

    models = {"target": untrained, "reference": untrained} | {role: broken}
    grid = _grid(models["target"], models["reference"], case, 0.05, None)
    assert (grid["cells_run"], grid["tests_run"]) == (0, 0)
    for cell in grid["cells"]:
        assert cell["applicable"] is False
        assert cell["reason"].startswith("the model" if role == "target" else "the reference")


def test_progress_ends_at_the_rows_that_were_announced(
    parrot: LoadedModel, untrained: LoadedModel, case: VerbatimCase, every
) -> None:
    unknown = untrained.tokenizer.unk_token_id
    odd = [replace(span, secret=(unknown, 6, 7, 8)) for span in case.train[:3]]
    some = VerbatimCase([*odd, *case.train[3:12]], case.twins[:8])
    done: list[int] = []
    verbatim(parrot, untrained, some, progress=done.append)
    assert sum(done) == verbatim_rows(parrot, untrained, some) == 2 * 12 + 8 + 7 * (2 * 9 + 8)


def test_a_cut_moves_a_span_no_farther_than_its_context_needs() -> None:
    row = tuple(range(100, 126))
    for start in range(4, 22):
        span = Span(row[:start], row[start : start + 4], row[start + 4 :], "u")
        for cell in (Cell("greedy", 5, 8), Cell("greedy", 5, 8, left_only=True)):
            made = cut(span, cell)
            assert made is not None
            places = range(8, 26 - 5 - (0 if cell.left_only else 8) + 1)
            expected = min(places, key=lambda place: abs(place - start))
            assert made.secret == row[expected : expected + 5]
            assert made.left == row[expected - 8 : expected]
            assert made.right == (() if cell.left_only else row[expected + 5 : expected + 13])
            assert made.unit == "u"
    assert cut(Span(row[:4], row[4:8], row[8:20]), Cell("greedy", 5, 8)) is None


def test_spans_needed_for_a_bound() -> None:
    assert spans_needed(1e-3) == 2995
    assert bound(0, 300) == {"rate": 1e-3, "spans_needed": 2995, "spans_missing": 2695}
    assert bound(0, 3000)["spans_missing"] == 0
    for rate, discordant in [(0.05, 0), (0.05, 2), (0.3, 7), (0.9, 1)]:
        naive = next(n for n in range(discordant + 1, 999) if upper_limit(discordant, n) <= rate)
        assert spans_needed(rate, discordant=discordant) == naive
    with pytest.raises(UserError, match="between 0 and 1"):
        spans_needed(0.0)


def test_chance_of_extraction_by_tries() -> None:
    chances = np.array([0.0, 1e-12, 0.03, 0.5, 1.0])
    with np.errstate(divide="ignore"):
        logprobs = np.log(chances)
    for tries in (1, 2, 10, 1000):
        expected = [1 - (1 - p) ** tries for p in chances]
        assert extraction_chance(logprobs, tries) == pytest.approx(expected, rel=1e-3, abs=1e-15)


def test_near_is_the_edit_distance() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        text = list(rng.choice(list("abcdef "), int(rng.integers(0, 40))))
        said = list(text)
        for _ in range(int(rng.integers(0, 6))):
            at = int(rng.integers(0, len(said) + 1))
            said[at : at + int(rng.integers(0, 2))] = rng.choice(list("abc "), rng.integers(0, 2))
        first, second = "".join(text), "".join(said)
        assert is_near(first, second) == (edit_distance(first, second) <= NEAR)
        seen.add(is_near(first, second))
    assert seen == {True, False}
