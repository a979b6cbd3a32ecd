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


def failing(result, lost):
    """The result without the figures of the cells in `lost`, {(ratio, seed)}."""
    rows = [
        replace(row, figures=None, failed="it diverged")
        if (row.setting["masking.ratio"], row.seed) in lost else row
        for row in result.rows
    ]  # fmt: skip
    return replace(result, rows=tuple(rows))


def test_a_setting_that_always_fails_is_named_and_the_others_are_compared():
    whole = made({0.15: [0.1, 0.2, 0.3], 0.4: [0.2, 0.3, 0.401], 0.9: [0.2, 0.2, 0.2]})
    result = failing(whole, {(0.9, 0), (0.9, 1), (0.9, 2), (0.4, 1)})
    (found,) = (one for one in result.findings() if one.metric == "top1")
    assert (found.one, found.other, found.seeds) == (0.15, 0.4, 2)
    setting = "ot compared: ratio 0.9 (no training of it has a figure)"
    seed = "ot compared: seed 1 (not every other setting has a figure of it)"
    for told in (result.text(), render(result)):
        assert setting in told
        assert seed in told
    assert "no figures to compare" not in render(result)
    assert "not compared" not in whole.text()


def test_what_leaves_nothing_to_compare_is_said():
    whole = made({0.15: [0.1, 0.2], 0.4: [0.2, 0.3]})
    torn = failing(whole, {(0.15, 0), (0.4, 1)})
    assert "No two settings could be compared. Not compared: seed 0, 1" in render(torn)
    none = failing(whole, {(ratio, seed) for ratio in (0.15, 0.4) for seed in (0, 1)})
    assert "There are no figures to compare." in render(none)


def test_bits_a_byte_stand_in_the_table_where_they_are_known():
    result = made({0.15: [0.1], 0.4: [0.9]})
    bits = [{**row.figures, "held_out": {**row.figures["held_out"], "bits_per_byte": 2.25}}
            for row in result.rows]  # fmt: skip
    told = replace(result, rows=tuple(map(with_figures, result.rows, bits))).text().split("\n")
    assert "bits a byte" in told[0]
    assert "2.250" in told[1]


def with_figures(row, figures):
    return replace(row, figures=figures)


EXAMPLES = ("small", "static")
"""Parts of examples/masking/compare.sh whose figures are committed."""


def committed(part):
    """The JSON of a part, and the result that it was made from."""
    told = json.loads((ROOT / f"examples/masking/{part}.json").read_text())
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
    return told, GridResult("masking", True, axes, settings, tuple(told["seeds"]), tuple(rows))


@pytest.mark.parametrize("part", EXAMPLES)
def test_the_example_shows_its_committed_figures(part):
    """examples/masking: its tables and sentences in docs/compare.md follow from its JSON."""
    told, result = committed(part)
    page = (ROOT / "docs/compare.md").read_text()
    for line in result.text().split("\n"):
        assert line.strip() in page
    assert result.to_json()["findings"] == told["findings"]
    seconds = sum(cell["cpu_seconds"] for cell in told["cells"])
    assert f"`{part}` {seconds:.0f} s" in page


@pytest.mark.parametrize("part", EXAMPLES)
def test_the_results_show_the_committed_figures_of_the_example(part):
    """The tables of docs/results.md, made again from the JSON by hand."""
    told, _ = committed(part)
    page = (ROOT / "docs/results.md").read_text()
    words = {False: "no", True: "yes"}
    for setting in (cell["setting"] for cell in told["cells"] if cell["seed"] == 1):
        cells = [cell for cell in told["cells"] if cell["setting"] == setting]
        texts = [cell["held_out"] for cell in cells]
        top1 = sorted(100 * text["top1"] for text in texts)
        rare = sum(100 * text["by_bucket"]["1 to 10"]["top1"] for text in texts) / 2
        loss = sum(text["loss"] for text in texts) / 2
        bits = sum(cell["exposure"]["mean_bits"] for cell in cells) / 2
        seconds = sum(cell["cpu_seconds"] for cell in cells) / 2
        values = [words.get(value, value) for value in setting.values()]
        line = [
            *map(str, values), f"{sum(top1) / 2:.2f} % ({top1[0]:.1f} to {top1[1]:.1f})",
            f"{rare:.2f} %", f"{loss:.3f}", f"{bits:.2f}", f"{seconds:.0f}",
        ]  # fmt: skip
        assert f"| {' | '.join(line)} |" in page


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
