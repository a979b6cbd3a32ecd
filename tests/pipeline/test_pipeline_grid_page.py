"""What the result of a grid says, and its page."""

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from dpmlm.pipeline.grid import Axis
from dpmlm.pipeline.grid.page import render
from dpmlm.pipeline.grid.result import GridResult, Row

ROOT = Path(__file__).parents[2]


def made(values, **changes):
    """A result on public text with these shares, {ratio: one a seed}."""
    axis = Axis("masking.ratio", tuple(values))
    settings = tuple({"masking.ratio": ratio} for ratio in values)
    seeds = tuple(range(len(next(iter(values.values())))))
    rows = [
        Row(
            f"r-{ratio}-{seed}", {"masking.ratio": ratio}, seed, epsilon=1.0, delta=1e-5,
            rows=64, steps=4,
            figures={
                "held_out": {
                    "label": "public", "documents": 3, "tokens": 100, "loss": 5.0, "top1": share,
                    "top1_interval": [share - 0.01, share + 0.01], "by_bucket": {},
                },
                "exposure": None, "public_text": None, "cpu_seconds": 2.0,
            },
        )
        for ratio, shares in values.items()
        for seed, share in enumerate(shares)
    ]  # fmt: skip
    return replace(GridResult("made", True, (axis,), settings, seeds, tuple(rows)), **changes)


def test_sentences_say_what_is_told_apart_and_what_is_not():
    same = made({0.15: [0.1, 0.2, 0.3], 0.4: [0.1, 0.2, 0.3]})
    assert "told apart" in same.text()
    assert all("not told apart" in line for line in same.text().split("\n") if "against" in line)
    assert "Nothing: no difference" in render(same)
    far = made({0.15: [0.1, 0.2, 0.3], 0.4: [0.2, 0.3, 0.401]})
    (line,) = [line for line in far.text().split("\n") if "hidden words guessed right:" in line]
    assert "not told apart" not in line
    assert "+10.03 points" in line
    assert "40 % is better" in render(far)
    assert "its epsilon all the same" in render(far)
    silent = tuple(replace(row, epsilon=math.inf) for row in far.rows)
    assert "No run had noise" in render(replace(far, rows=silent))
    once = made({0.15: [0.1], 0.4: [0.9]})
    assert "one seed shows no chance" in once.text()
    assert "was trained once" in render(once)


def test_the_example_shows_its_committed_figures():
    """examples/masking/small.json: its table and sentences in docs/compare.md follow from it."""
    told = json.loads((ROOT / "examples/masking/small.json").read_text())
    axes = tuple(Axis(key, tuple(values)) for key, values in told["axes"].items())
    rows = [
        Row(
            cell["name"], cell["setting"], cell["seed"], epsilon=math.inf, delta=cell["delta"],
            rows=cell["rows"], steps=cell["steps"],
            figures={part: cell[part] for part in ("held_out", "public_text", "exposure")}
            | {"cpu_seconds": cell["cpu_seconds"]},
        )
        for cell in told["cells"]
    ]  # fmt: skip
    settings = tuple(row.setting for row in rows if row.seed == told["seeds"][0])
    result = GridResult("masking", True, axes, settings, tuple(told["seeds"]), tuple(rows))
    page = (ROOT / "docs/compare.md").read_text()
    for line in result.text().split("\n"):
        assert line.strip() in page
    assert result.to_json()["findings"] == told["findings"]


@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.full)])
def test_the_page_can_be_read_narrow_and_wide(tmp_path, dark):
    place = ROOT / "tests/release/report/test_report_browser.py"
    spec = importlib.util.spec_from_file_location("report_browser", place)
    browser = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(browser)
    if not browser.CHROMIUM.exists():
        pytest.skip(f"{browser.CHROMIUM} is not installed: the page was shown to no browser")
    result = made({0.15: [0.1, 0.2, 0.3], 0.4: [0.2, 0.3, 0.401]})
    names = {"masking.strategy": "a_strategy_of_a_name_that_is_longer_than_any_drawing"}
    long = replace(
        result,
        axes=(Axis("masking.strategy", (names["masking.strategy"],)), *result.axes),
        settings=tuple({**names, **setting} for setting in result.settings),
        rows=tuple(replace(row, setting={**names, **row.setting}) for row in result.rows),
    )
    pages = {"short": render(result), "long": render(long)}
    for one in browser.measured(tmp_path, pages, (320, 1000, browser.PAPER), dark=dark):
        assert not one["wrong"], one
        assert one["charts"] == 1
