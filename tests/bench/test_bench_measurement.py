"""One small measurement end to end, its table and its JSON."""

import json
import math

import pytest
import torch

from dpmlm.bench import BenchRequest, judge, measure, table, to_json
from dpmlm.bench import memory as memory_module
from dpmlm.bench import timing as timing_module
from dpmlm.bench.memory import Memory, measure_memory
from dpmlm.bench.request import COLUMNS
from dpmlm.bench.steps import STEPS, Column
from dpmlm.bench.timing import Timing, ratios, time_columns
from dpmlm.errors import UserError

pytestmark = pytest.mark.xdist_group("measured")


def numbers(value):
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers(item)]
    if isinstance(value, list | tuple):
        return [n for item in value for n in numbers(item)]
    return [value] if isinstance(value, int | float) else []


@pytest.fixture(scope="module")
def measured():
    said = []
    request = BenchRequest(
        models=("tiny",), windows=(16,), batch=2, repeats=2, vocabulary=200, memory=False
    )
    found = measure(request, said.append)
    assert any("tiny" in line for line in said)
    return found


def test_every_column_has_finite_figures(measured):
    found = json.loads(json.dumps(to_json(measured), allow_nan=False))
    (row,) = found["rows"]
    assert set(row["columns"]) == set(COLUMNS)
    for column in row["columns"].values():
        assert "error" not in column
        assert column["wall_seconds"] > 0
        assert column["cpu_seconds"] > 0
        assert len(column["wall_turns"]) == 2
    assert all(math.isfinite(n) for n in numbers(row))
    assert set(row["updates"]) == {"plain", "private"}
    assert found["machine"]["threads"] >= 1
    assert {"python", "dpmlm", "torch", "transformers", "opacus"} == set(found["versions"])


def test_ratios_are_of_the_figures_beside_them(measured):
    (row,) = to_json(measured)["rows"]
    for baseline in ("plain", "own", "opacus_hooks", "opacus_ghost"):
        for kind in ("wall", "cpu"):
            of = row["ratios"][f"{kind}_seconds"][baseline]
            base = row["columns"][baseline][f"{kind}_turns"]
            for name in COLUMNS:
                turns = row["columns"][name][f"{kind}_turns"]
                first, second = (one / other for one, other in zip(turns, base))
                assert of[name] == pytest.approx((first + second) / 2)
    assert row["ratios"]["peak_bytes"] == {}


def test_the_table_names_every_column_and_its_repairs(measured):
    shown = table(measured)
    for name in COLUMNS:
        assert name in shown
        assert STEPS[name].says in shown
    assert "tiny (2 x 128), 16 tokens, 2 rows" in shown


def test_a_vocabulary_of_another_size_has_no_target(measured):
    assert judge(measured) == []


def test_a_column_that_fails_is_reported_and_the_others_go_on(bert, monkeypatch):
    def broken(work, bound):
        raise AttributeError("no bias\nmore")

    turns = []

    def late(work, bound):
        model, run = STEPS["plain"].build(work, bound)

        def fails(batch):
            turns.append(1)
            if len(turns) > 2:
                raise RuntimeError("second turn")
            run(batch)

        return model, fails

    broken_columns = {"opacus_hooks": Column("x", broken), "opacus_ghost": Column("y", late)}
    monkeypatch.setattr(timing_module, "STEPS", STEPS | broken_columns)
    results, steps = time_columns(bert, ("plain", "opacus_hooks", "opacus_ghost"), 2)
    assert isinstance(results["plain"], Timing)
    assert results["opacus_hooks"] == "AttributeError: no bias"
    assert results["opacus_ghost"] == "RuntimeError: second turn"
    assert set(steps) == {"plain"}


def test_turns_start_with_another_column_each(bert, monkeypatch):
    order = []

    def noting(name):
        def build(work, bound):
            model, _ = STEPS["own"].build(work, bound)
            return model, lambda batch: order.append(name)

        return Column("", build)

    monkeypatch.setattr(timing_module, "STEPS", {name: noting(name) for name in "abc"})
    time_columns(bert, ("a", "b", "c"), 2)
    assert "".join(order) == "aabbcc" + "bbccaa" + "ccaabb"


def test_memory_is_the_growth_of_a_step(bert, monkeypatch):
    def build(work, bound):
        model = work.build()
        torch.zeros(500_000_000, dtype=torch.uint8).add_(1)  # a peak of building, not of the step

        def run(batch):
            torch.zeros(len(batch) * 50_000_000, dtype=torch.uint8).add_(1)

        return model, run

    monkeypatch.setattr(memory_module, "STEPS", {"some": Column("", build)})
    found = memory_module._on_cpu(bert, "some")
    if found.method != "VmHWM":
        pytest.skip("the system cannot reset the high-water mark")
    assert found.growth_bytes == pytest.approx(200_000_000, rel=0.1)
    weights = sum(p.numel() for p in bert.build().parameters())
    assert found.peak_bytes == found.growth_bytes + 4 * weights


@pytest.mark.full
def test_memory_is_measured_in_a_process_of_its_own(bert):
    found = measure_memory(bert, "private", 1)
    assert isinstance(found, Memory), found
    assert 0 <= found.growth_bytes < 100_000_000


def test_ratios_without_a_baseline_are_none():
    assert ratios({"plain": (2.0,), "own": (1.0,)}, "plain") == {"plain": 1.0, "own": 0.5}
    assert ratios({"own": (1.0,)}, "plain") == {}


def test_a_machine_that_slows_down_moves_no_ratio():
    """Most turns say a half; the medians over the turns, 6 and 1, would say a sixth."""
    slowing = {"plain": (2.0, 2.0, 6.0, 6.0, 6.0), "own": (1.0, 1.0, 3.0, 0.9, 0.9)}
    assert ratios(slowing, "plain")["own"] == 0.5


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"models": ("huge",)}, "known: tiny"),
        ({"models": ()}, "known: tiny"),
        ({"columns": ("plain", "ours")}, "ours"),
        ({"windows": (4,)}, "8 to 8192"),
        ({"windows": ()}, "8 to 8192"),
        ({"repeats": 0}, "--repeats 0"),
        ({"batch": 0}, "--batch 0"),
        ({"threads": 0}, "--threads 0"),
        ({"vocabulary": 3}, "--vocabulary 3"),
        ({"device": "tpu"}, "--device tpu"),
        ({"precision": "float16"}, "--precision float16"),
    ],
)
def test_a_request_out_of_range_is_refused(fields, named):
    with pytest.raises(UserError, match=named):
        BenchRequest(**fields)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        measure(BenchRequest(device="cuda"))
