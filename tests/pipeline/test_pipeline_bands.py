"""A whole run whose units are rows of tokens and whose noise is correlated over two steps."""

import json
from datetime import UTC, datetime

import pytest
from small_run import draw_keys, write_corpus, write_run_file

from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.preview import preview
from dpmlm.pipeline.run import execute_run, execute_until
from dpmlm.privacy import PrivacyPlan
from dpmlm.privacy.rules import SEQUENCES
from dpmlm.release import verify_bundle

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("bands-run")]

CHANGES = {"privacy__unit": "sequence", "privacy__units": 400, "privacy__bands": 2}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bands")
    write_corpus(folder)
    write_run_file(folder, **CHANGES)
    draw_keys(folder)
    return folder, execute_run(load_config(folder / "run.yaml"))


def test_the_bundle_says_what_was_promised_and_how(done):
    folder, result = done
    plan = PrivacyPlan.from_json(json.loads((result.bundle / "plan.json").read_text()))
    assert (plan.bands, plan.unit, plan.scope) == (2, "sequence", SEQUENCES)
    signed = json.loads((result.bundle / "statement.json").read_text())
    assert "adding or removing one sequence" in signed["sentence"]
    assert "each sequence in one of every 2 of 6 steps" in signed["sentence"]
    assert "correlated over 2 steps" in signed["sentence"]
    assert f"scope: {SEQUENCES}" in signed["sentence"]
    assert "several sequences of one document or person together" in signed["sentence"]
    assert signed["details"]["mechanism"]["accounted_as"] == [
        {"steps": 3, "sample_rate": pytest.approx(0.04)}
    ]
    assert verify_bundle(result.bundle, folder / "keys/trusted", now=datetime.now(UTC)).ok


def test_no_shipped_policy_passes_single_rows(done):
    decision = json.loads((done[1].bundle / "decision.json").read_text())
    assert {rule["id"]: rule["status"] for rule in decision["rules"]}["dp.unit"] == "fail"
    assert decision["verdict"] == "FAIL"


def test_plan_compares_bands_and_says_whose_turn_it_is(done):
    config = load_config(done[0] / "run.yaml", {"ledger.path": str(done[0] / "none.jsonl")})
    shown = preview(config)
    text = shown.text()
    assert "bands                2: as many groups of units take turns" in text
    assert "the same steps with correlated noise (privacy.bands)" in text
    found = shown.to_json()["forecast"]["correlations"]
    assert [way["bands"] for way in found] == [1, 2, 4]
    assert found[0]["noise_of_sums"] == 1
    assert found[1]["noise_multiplier"] == pytest.approx(shown.plan.noise_multiplier, rel=0.2)


def test_more_rows_than_declared_are_refused(done, tmp_path):
    write_corpus(tmp_path)
    write_run_file(tmp_path, **{**CHANGES, "privacy__units": 100, "audit__control": None})
    draw_keys(tmp_path)
    with pytest.raises(UserError, match="declare a larger upper bound"):
        execute_until(load_config(tmp_path / "run.yaml"), "training")
