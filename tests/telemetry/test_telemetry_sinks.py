"""No sink shows a figure that is more secret than its clearance, whatever it is handed."""

import json
import stat
from pathlib import Path

import pytest

from dpmlm.errors import UserError
from dpmlm.telemetry import METRICS, EventFile, Label, cleared, event

FIGURES = {name: number / 8 for number, name in enumerate(METRICS)}


def naive(item, clearance):
    """Figures by name alone, of all groups: what may be seen."""
    allowed = {"public": {"public"}, "dp": {"public", "dp"}}[clearance.value]
    every = {name: (group, value) for group, values in item.items() if group != "step"
             for name, value in values.items()}  # fmt: skip
    return {name: value for name, (group, value) in every.items()
            if group in allowed and METRICS[name].label.value in allowed}  # fmt: skip


@pytest.mark.parametrize("clearance", [Label.PUBLIC, Label.DP])
@pytest.mark.parametrize("private_plan", [True, False])
def test_only_what_the_clearance_allows_is_shown(clearance, private_plan):
    shown = cleared(event(3, FIGURES, private_plan=private_plan), clearance)
    assert shown.pop("step") == 3
    flat = {name: value for group in shown.values() for name, value in group.items()}
    assert flat == naive(event(3, FIGURES, private_plan=private_plan), clearance)
    assert ("noised_gradient_norm" in flat) == (private_plan and clearance is Label.DP)
    assert "learning_rate" in flat
    assert "loss" not in flat


def test_a_figure_in_the_wrong_group_is_not_shown():
    item = {"step": 1, "public": {"loss": 2.0, "learning_rate": 0.1}, "dp": {"units": 7}}
    assert cleared(item, Label.DP) == {"step": 1, "public": {"learning_rate": 0.1}}


def test_a_group_can_only_make_a_figure_more_secret():
    item = {"step": 1, "private": {"learning_rate": 0.1}}
    assert cleared(item, Label.DP) == {"step": 1}


def test_what_nobody_declared_is_an_error():
    with pytest.raises(KeyError):
        event(1, {"perplexity": 3.0}, private_plan=True)
    with pytest.raises(KeyError):
        cleared({"step": 1, "public": {"perplexity": 3.0}}, Label.DP)
    with pytest.raises(ValueError):
        cleared({"step": 1, "secret": {"loss": 3.0}}, Label.DP)


def test_a_file_in_clear_takes_no_private_clearance(tmp_path):
    with pytest.raises(ValueError, match="private"):
        EventFile(tmp_path / "events.jsonl", Label.PRIVATE)


def test_the_file_holds_all_steps_and_no_private_figure(tmp_path):
    path = tmp_path / "new" / "events.jsonl"
    for steps in (2, 5):
        EventFile(path).write([event(s + 1, FIGURES, private_plan=True) for s in range(steps)])
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, steps + 1))
        for line in lines:
            assert line.keys() == {"step", "public", "dp"}
    assert [entry.name for entry in path.parent.iterdir()] == ["events.jsonl"]
    assert stat.S_ISREG(path.stat().st_mode)


@pytest.mark.parametrize("content", [b"{}\n", b"some ledger", b'{"schema": "dpmlm.ledger/1"}\n'])
def test_another_file_is_never_replaced(tmp_path, content):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="would be replaced"):
        EventFile(path)
    with pytest.raises(UserError, match="would be replaced"):
        EventFile(tmp_path)
    assert path.read_bytes() == content


def test_an_empty_file_and_ones_own_are_taken(tmp_path):
    path = tmp_path / "events.jsonl"
    path.touch()
    EventFile(path).write([event(1, FIGURES, private_plan=True)])
    EventFile(path).write([])
    EventFile(path).write([event(1, FIGURES, private_plan=True)])
    assert EventFile(path)


def test_the_table_in_the_docs_is_what_is_declared():
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text().split("## Telemetry")[1]
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {name.strip("`"): (label, meaning) for name, label, meaning in rows}
    assert told.keys() == METRICS.keys()
    for name, metric in METRICS.items():
        unit = f", in {metric.unit}" if metric.unit == "nats" else ""
        assert told[name] == (metric.label.value, metric.meaning + unit)
