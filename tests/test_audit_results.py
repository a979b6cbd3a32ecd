"""The figures of docs/audits.md are those of the JSON that its commands wrote."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/audits.md").read_text()


TESTS = {"gating", "exposure", "canary_extraction"}
BLACK_BOX = {"control": TESTS, "no noise": TESTS, "wrong rate accounted": {"verdict"}}
WHITE_BOX = {"no noise": {"noise"}, "half the noise": {"noise"}, "drawn too often": {"drawn"}}
"""What the page's table says was caught in all seeds, and by nothing else of these audits."""


def figures(name):
    return json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text())


def cells(beginning):
    """Of the row that begins so, its cells."""
    row = re.search(rf"^\| {re.escape(beginning)} \|(.*)\|$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in row[1].split("|")]


def test_attainable_bounds():
    for entry in figures("audit_power")["attained"]:
        if entry["runs"] == 20:
            told = cells(f"{entry['epsilon']:g}")
            assert told == [f"{entry['one_run']:.2f}", f"{entry['fdp_one_run']:.2f}"]


def test_rates_of_rejection_and_of_false_alarms():
    found = figures("audit_power")
    counts = {(e["epsilon"], e["noise"]): e["count"] / found["trials"] for e in found["rejected"]}
    table = PAGE[PAGE.index("| claim | correct noise rejected") :]
    for claim in (8, 1):
        row = re.search(rf"^\| {claim} \| ([\d.]+) % \| ([\d.]+) % \|$", table, re.MULTILINE)
        told = [float(row[1]), float(row[2])]
        assert told == pytest.approx(
            [100 * counts[claim, 1.0], 100 * counts[claim, 0.5]], abs=0.051
        )
    worst = max(found["false_alarms"].values())
    assert f"at 5 %: {worst} at most ({found['allowed']} are allowed)" in PAGE
    wrong = [twin for _, twin in found["mistakes"].values()]
    assert len(wrong) == 7
    assert f"raise {min(wrong)} to {max(wrong):,}" in PAGE.replace("\n", " ")


def test_white_box_bounds():
    found = figures("whitebox")
    bounds = [run["lower_bound"]["fdp_one_run"] for run in found["runs"]]
    one_run = [run["lower_bound"]["one_run"] for run in found["runs"]]
    mean = sum(bounds) / len(bounds)
    assert mean >= found["target"]
    assert f"f-DP bound {mean:.2f} on average ({min(bounds):.2f} to {max(bounds):.2f})" in PAGE
    assert f"one-run bound {sum(one_run) / len(one_run):.2f}" in PAGE


def test_faults_that_were_caught():
    summary = figures("selftest")["summary"]
    for epsilon in (1, 8):
        claim = summary[f"claims/{epsilon}"]
        seeds, alarms = len(claim["seeds"]), len(claim["wrong_alarms"])
        told = [f"{seeds - alarms} of {seeds}", f"{claim['control_rejected']} of {seeds}"]
        assert re.search(rf"^\| {epsilon} \| {told[0]} \| {told[1]} \|$", PAGE, re.MULTILINE)
    faults = summary["faults/8"]["faults"]
    assert all(faults[name]["caught"] == 7 for name in faults if name != "correct")
    assert faults["correct"]["caught"] == 0
    for detector, told in (("black-box audit", BLACK_BOX), ("white-box audit", WHITE_BOX)):
        always = {
            name: {test for test, seeds in found["by"].get(detector, {}).items() if seeds == 7}
            for name, found in faults.items()
        }
        assert {name: tests for name, tests in always.items() if tests} == told
