"""The table of a run in docs/results.md: whom verbatim extraction was held against, odd figures."""

import importlib.util
import json
import statistics
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "results.py"


@pytest.fixture(scope="module")
def rows_of():
    spec = importlib.util.spec_from_file_location("benchmark_results", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda result: dict(module.rows_of(result))


def a_result(is_="control", perplexity=9.0):
    held_out = {"loss": 2.0, "perplexity": perplexity, "top1": 0.1, "top5": 0.2}
    plan = {"delta": 1e-5, "unit": "person", "scope": "source corpus", "noise_multiplier": 1.0,
            "max_grad_norm": 1.0, "sample_rate": 0.1, "steps": 3}  # fmt: skip
    return {
        "verdict": "PASS",
        "public": {"plan": plan, "ledger": {"epsilon": 8.0}, "audit": {"power": "shown"}},
        "private": {
            "corpus": {"documents": 9, "units": 3, "dropped": {}},
            "scrub": {"found": {}},
            "dedup": {"removed": {}, "cross_split_pairs": 0},
            "evaluation": {"before": held_out, "after": held_out},
            "verbatim": {
                "hits": {"train": 3, "twins": 2, "reference": 1},
                "spans": {"train": 5, "twins": 4},
                "reference": {"is": is_},
            },
            "seconds": {"corpus": 1.0},
        },
    }


@pytest.mark.parametrize(
    ("is_", "said"),
    [
        ("given", "the reference model"),
        ("control", "the control"),
        ("untrained", "the untrained model"),
    ],
)
def test_the_rival_of_verbatim_extraction_is_named(rows_of, is_, said):
    assert rows_of(a_result(is_))["verbatim spans read out"].endswith(f", 1 by {said}")


def test_a_perplexity_beyond_any_number_stays_spelled(rows_of):
    assert rows_of(a_result(perplexity="inf"))["held-out perplexity"] == "inf, inf"
    assert rows_of(a_result())["held-out perplexity"] == "9, 9"


def test_the_page_shows_how_long_a_stop_takes():
    spec = importlib.util.spec_from_file_location("stopping", SCRIPT.with_name("stopping.py"))
    stopping = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stopping)
    facts = json.loads(SCRIPT.with_name("results").joinpath("stopping.json").read_text())
    assert [one["size"] for one in facts["measured"]] == list(stopping.SIZES)
    assert max(max(one["seconds"]) for one in facts["measured"]) < stopping.ALLOWED
    page = (SCRIPT.parents[1] / "docs/results.md").read_text()
    assert stopping.table(facts["measured"]) in page
    assert facts["date"] in page
    before = json.loads(SCRIPT.with_name("results").joinpath("stopping-before.json").read_text())
    tiny, small, base = (statistics.median(one["seconds"]) for one in before["measured"])
    assert f"took {tiny:.1f}, {small:.1f} and {base:.1f} s (medians" in page
