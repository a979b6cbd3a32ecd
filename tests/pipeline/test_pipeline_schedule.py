"""A whole run with growing batches, cut samples and units of several windows."""

import json
from datetime import UTC, datetime

import pytest
from small_run import draw_keys, write_corpus, write_run_file

from dpmlm.config import load_config
from dpmlm.pipeline.run import execute_run
from dpmlm.privacy import PrivacyPlan, epsilon_of
from dpmlm.release import verify_bundle

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("scheduled-run")]

CHANGES = {
    "training__batch_schedule": {2: 12, 4: 16},
    "training__windows_per_draw": 2,
    "privacy__accountant": "pld",
    "privacy__max_batch_size": 18,
    "training__activation_checkpointing": True,
}


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scheduled")
    write_corpus(folder)
    write_run_file(folder, **CHANGES)
    draw_keys(folder)
    return folder, execute_run(load_config(folder / "run.yaml"))


def test_the_bundle_holds_the_schedule_and_its_claim(scheduled):
    _, result = scheduled
    plan = PrivacyPlan.from_json(json.loads((result.bundle / "plan.json").read_text()))
    assert plan.plateaus == ((2, 8.0), (2, 12.0), (2, 16.0))
    assert plan.bindings["windows_per_draw"] == 2
    signed = json.loads((result.bundle / "statement.json").read_text())
    assert signed["epsilon"] == pytest.approx(
        epsilon_of("pld", plan.composition(), plan.delta), abs=1e-3
    )
    assert "then 0.16 for 2 steps, of more than 18 as many at random" in signed["sentence"]


def test_it_verifies_and_a_second_run_skips_everything(scheduled):
    folder, result = scheduled
    verification = verify_bundle(result.bundle, folder / "keys" / "trusted", now=datetime.now(UTC))
    assert verification.ok, verification
    charges = (folder / "ledger.jsonl").read_text().count('"charge"')
    again = execute_run(load_config(folder / "run.yaml"))
    assert again.verdict == result.verdict
    assert (folder / "ledger.jsonl").read_text().count('"charge"') == charges == 6


def test_the_audits_take_the_plans_own_curve(scheduled):
    _, result = scheduled
    gating = result.to_json()["public"]["audit"]["target"]["gating"]
    assert gating["guesses"] > 0
