"""The claim that a run prints is the claim that it signed."""

import json

import pytest
import yaml
from small_run import draw_keys, write_corpus, write_run_file

from dpmlm.config import load_config
from dpmlm.pipeline.outcome import delta_curve, epsilon_curve
from dpmlm.pipeline.preview import preview
from dpmlm.pipeline.run import execute_run, execute_until
from dpmlm.privacy import Ledger, headroom, make_plan

pytestmark = pytest.mark.xdist_group("second-run")

POLICY = {
    "policy": "verbatim/v1",
    "summary": "Nobody may open it.",
    "require": [
        {
            "id": "verbatim.twins",
            "title": "Is real text spelled out?",
            "metric": "audit.verbatim.train.n",
            "min": 0,
            "why": "It was somebody's.",
        }
    ],
}


def other_plan(steps=5):
    return make_plan(
        epsilon=1, delta=1e-4, units=200, unit="person", expected_batch_size=10, steps=steps,
        max_grad_norm=1.0, accountant="rdp", scope="deduplicated corpus",
    )  # fmt: skip


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """A run on a ledger that another run was charged to, under a policy on private figures."""
    folder = tmp_path_factory.mktemp("second")
    write_corpus(folder)
    (folder / "verbatim.yaml").write_text(yaml.safe_dump(POLICY))
    write_run_file(
        folder, privacy__accountant="rdp", privacy__epsilon=2, release__policy="verbatim.yaml"
    )
    draw_keys(folder)
    Ledger.open(folder / "ledger.jsonl").reserve("first", other_plan())
    shown = preview(load_config(folder / "run.yaml"))
    return folder, execute_run(load_config(folder / "run.yaml")), shown


@pytest.mark.full
def test_a_second_run_on_a_ledger_prints_what_it_signed(second):
    _, result, _ = second
    signed = json.loads((result.bundle / "statement.json").read_text())
    assert signed["epsilon"] == 16.0
    printed = result.summary()
    assert signed["sentence"] in printed
    assert signed["note"] in printed
    (row,) = [line for line in printed.splitlines() if line.startswith("claim ")]
    assert "epsilon 16" in row
    assert "delta 0.001" in row
    assert result.to_json()["public"]["statement"]["sentence"] == signed["sentence"]


@pytest.mark.full
def test_a_preview_says_the_sentence_beforehand(second):
    _, result, shown = second
    signed = json.loads((result.bundle / "statement.json").read_text())
    assert shown.sentence == signed["sentence"]
    assert shown.sentence in shown.text()
    assert shown.to_json()["sentence"] == shown.sentence


@pytest.mark.full
def test_a_verdict_on_private_figures_is_said_not_to_be_covered(second, finished):
    for result, said in ((second[1], True), (finished[1], False)):
        statement = json.loads((result.bundle / "statement.json").read_text())
        what = "the verdict, as rules of its policy look at private figures ("
        assert any(part.startswith(what) for part in statement["not_covered"]) is said
        assert (what in statement["sentence"]) is said


@pytest.mark.full
def test_runs_charged_later_do_not_change_what_was_signed(second):
    folder, result, _ = second
    Ledger.open(folder / "ledger.jsonl").reserve("third", other_plan(steps=6))
    signed = json.loads((result.bundle / "statement.json").read_text())
    again = execute_run(load_config(folder / "run.yaml"))
    assert again.public["statement"] == signed


def test_a_run_without_a_release_prints_its_claim_too(small):
    write_run_file(small, privacy__accountant="rdp", audit__control=None)
    result = execute_until(load_config(small / "run.yaml"), "training")
    claim = result.public["statement"]
    assert claim["epsilon"] == pytest.approx(result.public["ledger"]["epsilon"], abs=1e-4)
    assert claim["sentence"] in result.summary()
    assert "bundle" not in claim["what"]


def test_the_last_point_of_the_curve_is_the_claim(tmp_path):
    plan = other_plan()
    ledger = Ledger.register(tmp_path / "alone.jsonl", epsilon=4, delta=1e-3, corpus="notes")
    ledger.reserve("run", plan)
    curve = epsilon_curve(plan)
    assert curve[-1] == (plan.steps, ledger.summary("run")["epsilon"])
    assert [step for step, _ in curve] == sorted({step for step, _ in curve})


def test_every_point_of_the_curve_is_the_larger_of_both_accountants(monkeypatch):
    monkeypatch.setattr(headroom, "pld_epsilon", lambda plan, steps: 100.0 + steps)
    assert epsilon_curve(other_plan()) == [(step, 100.0 + step) for step in range(1, 6)]


def test_epsilon_over_delta_by_both_accountants_meets_the_claim():
    plan = other_plan()
    curves = delta_curve(plan)
    assert list(curves) == ["PLD", "RDP"]
    for name, curve in curves.items():
        deltas, epsilons = zip(*curve, strict=True)
        assert len(curve) == 8
        assert list(deltas) == sorted(deltas)
        assert list(epsilons) == sorted(epsilons, reverse=True)
        at = dict(curve)[plan.delta]
        table = plan.check()
        assert at == getattr(table, name.lower())
    assert all(pld <= rdp for (_, pld), (_, rdp) in zip(*curves.values(), strict=True))
