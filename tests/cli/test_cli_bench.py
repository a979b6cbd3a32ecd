"""`dpmlm bench`: its output, its file, and what --check says."""

import json

import pytest

from dpmlm.bench import targets as targets_module
from dpmlm.bench.request import MODELS
from dpmlm.bench.targets import Target

QUICK = ("--models", "tiny", "--windows", "16", "--batch", "2", "--vocabulary", "120")
ONCE = (*QUICK, "--repeats", "1", "--columns", "plain,private", "--no-memory")


@pytest.fixture
def figure(monkeypatch):
    """Hold the quick measurement to a figure, whatever its batch and vocabulary."""

    def hold(at_most):
        class Any(Target):
            def covers(self, measured, row):
                return True

        monkeypatch.setattr(targets_module, "TARGETS", (Any("tiny", "plain", at_most),))

    return hold


def test_a_table_on_standard_output_and_progress_beside_it(call):
    called = call("bench", *ONCE)
    assert called.status == 0, called.err
    assert "tiny (2 x 128), 16 tokens, 2 rows" in called.out
    assert "clip_and_sum" in called.out
    assert "seconds of plain, private" in called.err


def test_json_is_what_the_file_holds(call, tmp_path):
    called = call("bench", *ONCE, "--json", "--out", tmp_path / "cpu.json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    assert found == json.loads((tmp_path / "cpu.json").read_text())
    assert found["schema"] == "dpmlm.bench/1"
    assert found["settings"]["repeats"] == 1
    assert list(found["columns"]) == ["plain", "private"]


def test_check_passes_or_fails_by_the_figures(call, figure):
    figure(1e6)
    called = call("bench", *ONCE, "--check")
    assert called.status == 0, called.err
    assert "met: tiny" in called.out
    figure(1e-6)
    called = call("bench", *ONCE, "--check", "--json")
    assert called.status == 1
    assert "MISSED: tiny, 16 tokens, 2 rows: time of private / plain" in called.err
    assert json.loads(called.out)["targets"][0]["met"] is False
    assert call("bench", *ONCE).status == 0


def test_check_of_nothing_is_no_pass(call):
    called = call("bench", *ONCE, "--check")
    assert called.status == 2
    assert "has a figure to reach" in called.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--models", "huge"), "known: tiny"),
        (("--columns", "ours"), "known: plain"),
        (("--windows", "wide"), "list of numbers"),
        (("--windows", "0"), "8 to 8192"),
        (("--models", ","), "--models"),
        (("--out", "nowhere/cpu.json"), "make the folder"),
        (("--device", "tpu"), "--device"),
        (("--repeats", "0"), "--repeats"),
    ],
)
def test_what_cannot_be_measured_is_refused(refused, monkeypatch, tmp_path, arguments, named):
    monkeypatch.chdir(tmp_path)
    assert named in refused("bench", *arguments)


def test_figures_are_about_models_as_they_come():
    assert {target.model for target in targets_module.TARGETS} <= set(MODELS)
