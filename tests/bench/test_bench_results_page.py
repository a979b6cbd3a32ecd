"""`benchmarks/results.py` turns the JSON of a bench into the table of docs/results.md."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from dpmlm.bench import BenchRequest, measure, to_json

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results():
    path = ROOT / "benchmarks/results.py"
    spec = importlib.util.spec_from_file_location("benchmark_results", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_measurement_becomes_a_table(results):
    request = BenchRequest(
        models=("tiny",), windows=(16,), batch=2, repeats=1, vocabulary=100, memory=False
    )
    found = {"schema": "dpmlm.bench/1", **to_json(measure(request))}
    found["rows"][0]["columns"]["opacus_ghost"] = {"error": "NotImplementedError: tying"}
    found["targets"] = [
        {"model": "tiny", "window": 16, "batch": 2, "measure": "peak_bytes", "met": False,
         "ratio": "private/plain", "measured": 0.9, "at_most": 0.8},
    ]  # fmt: skip
    text = results.section(found, "dpmlm bench --models tiny")
    assert "dpmlm bench --models tiny" in text
    line = next(line for line in text.splitlines() if line.startswith("| tiny, 16, 2 |"))
    assert line.count("|") == 12
    assert "NotImplementedError" in line
    assert "| 0.8 | 0.900 | **missed** |" in text
    assert found["versions"]["opacus"] in text


def test_other_columns_become_a_table_of_their_own(results):
    columns = ("plain", "private", "private_rows")
    request = BenchRequest(
        models=("tiny",),
        windows=(16,),
        columns=columns,
        batch=2,
        repeats=1,
        vocabulary=100,
        memory=False,
    )
    text = results.section({"schema": "dpmlm.bench/1", **to_json(measure(request))}, "dpmlm bench")
    assert "| model, tokens, rows | plain | `private` | `private_rows` |" in text
    line = next(line for line in text.splitlines() if line.startswith("| tiny, 16, 2 |"))
    assert line.count("(-)") == 2


def test_the_page_has_the_markers_of_both_devices():
    page = (ROOT / "docs/results.md").read_text()
    for name in ("bench-cpu", "bench-idle", "bench-ways", "bench-cuda"):
        assert page.count(f"<!-- {name} -->") == page.count(f"<!-- /{name} -->") == 1


@pytest.mark.parametrize("name", ["cpu", "idle", "ways", "cuda"])
def test_the_page_is_what_the_committed_json_says(results, name):
    page = (ROOT / "docs/results.md").read_text()
    found = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    shown = re.search(f"<!-- bench-{name} -->\n(.*?)<!-- /bench-{name} -->", page, re.DOTALL)[1]
    command = re.search(r"```\n(dpmlm bench .*?)\n```", shown, re.DOTALL)[1]
    assert f"--out benchmarks/results/{name}.json" in command
    assert results.section(found, command) == shown
    for target in found["targets"]:
        assert f"{target['measured']:.3f}" in shown
