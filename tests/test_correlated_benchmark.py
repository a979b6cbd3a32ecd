"""The table of correlated noise in docs/results.md is the one of the committed figures."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_shows_the_committed_figures():
    path = ROOT / "benchmarks/correlated.py"
    spec = importlib.util.spec_from_file_location("benchmark_correlated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = json.loads((ROOT / "benchmarks/results/correlated.json").read_text())
    shown = module.table([module.Trained(**one) for one in found["trained"]])
    assert shown.count("\n") == 10
    assert shown in (ROOT / "docs/results.md").read_text()
