"""The whole audit: a memorising model is rejected, an untrained one is not, nothing leaks."""

import copy
import json
import math

import pytest
import torch

import audits
from audits.evidence import audit, plan_digest
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet, plan_canaries
from audits.verdict import verdict_of
from dpmlm.artifacts import IntegrityError, UserError
from dpmlm.privacy import make_plan

pytestmark = pytest.mark.xdist_group("evidence")


@pytest.fixture(scope="module")
def evidence(untrained: LoadedModel, leaky: LoadedModel, canaries: CanarySet, plan: dict) -> dict:
    return audit(untrained, plan=plan, canaries=canaries, control=leaky, untrained=untrained)


def test_memorising_control_is_rejected_and_untrained_passes(evidence: dict) -> None:
    control = evidence["subjects"]["control"]
    assert {"exposure", "canary_extraction"} <= set(control["rejected_by"])
    assert control["canary_extraction"]["extracted"] > 50
    assert control["canary_extraction"]["extracted_never_inserted"] == 0
    assert control["exposure"]["max_bits"] == 36
    assert control["exposure"]["mean_bits"] > control["exposure"]["ceiling_bits"]
    assert evidence["subjects"]["untrained"]["rejected_by"] == []
    power = evidence["power"]
    assert power["control_rejected_by"] == control["rejected_by"]
    assert power["untrained_rejected_by"] == []
    assert power["status"] == "shown"
    for test, part in power["tests"].items():
        caught = test in control["rejected_by"]
        assert (part["control_rejected"] is True, part["power"]) == (caught, caught)
    known = evidence["subjects"]["target"]["gating"]["smallest_multiple_detected"]
    assert power["tests"]["gating"]["smallest_multiple_detected"] == known


def test_gating_alone_rejects_the_memorising_model_at_epsilon_1(
    untrained: LoadedModel, leaky: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    smaller = plan | {"epsilon": 1.0, "noise_multiplier": 2.827}
    found = audit(leaky, plan=smaller, canaries=canaries, untrained=untrained)
    target = found["subjects"]["target"]
    assert target["gating"]["correct"] == target["gating"]["guesses"] >= 10
    assert target["gating"]["rejected"]
    assert set(target["rejected_by"]) == {"gating", "exposure", "canary_extraction"}
    assert target["lower_bound"]["one_run"] > found["claim"]["epsilon"]
    assert found["power"]["status"] == "not shown"


def test_evidence_is_json_of_the_agreed_shape(evidence: dict, plan: dict) -> None:
    assert json.loads(json.dumps(evidence, allow_nan=False)) == evidence
    assert evidence["schema"] == "dpmlm.evidence/1"
    assert evidence["claim"]["plan_digest"] == plan_digest(plan)
    assert evidence["claim"]["recomputed_epsilon"] == pytest.approx(8.0, abs=0.01)
    assert evidence["declared"]["tests"] == ["gating", "exposure", "canary_extraction"]
    target = evidence["subjects"]["target"]
    assert target["gating"].keys() >= {"canaries", "guesses", "correct", "needed", "rejected"}
    assert target["lower_bound"].keys() >= {"one_run", "one_run_ceiling", "fdp_one_run"}
    bins = target["exposure"]["histogram"]
    assert len(bins["edges"]) == len(bins["in"]) + 1 == len(bins["out"]) + 1
    assert sum(bins["in"]) + sum(bins["out"]) == 200
    assert evidence["verbatim"] is None
    status = {entry["attack"].split(" (")[0]: entry["status"] for entry in evidence["attacks"]}
    assert status["extraction of planted secrets"] == "RUN"
    assert status["verbatim extraction of training spans"] == "NOT RUN"
    assert all(entry["could_find"] for entry in evidence["attacks"])


def test_no_secret_nonce_or_coin_is_in_the_evidence(evidence: dict, canaries: CanarySet) -> None:
    text = json.dumps(evidence)
    assert canaries.nonce not in text
    for canary in canaries.canaries:
        assert canary.id not in text
        assert json.dumps(list(canary.secret)) not in text
    assert '"included"' not in text


def test_run_without_privacy_has_counts_but_no_test(
    untrained: LoadedModel, leaky: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    open_plan = plan | {"epsilon": "inf", "noise_multiplier": 0.0}
    found = audit(leaky, plan=open_plan, canaries=canaries, control=leaky, untrained=untrained)
    target = found["subjects"]["target"]
    assert found["claim"]["epsilon"] == "inf"
    assert target["gating"]["applicable"] is False
    assert "epsilon inf" in target["gating"]["reason"]
    assert target["canary_extraction"]["extracted"] > 50
    assert target["canary_extraction"]["test"]["applicable"] is False
    assert target["rejected_by"] == []
    assert found["power"]["status"] == "not shown"
    json.dumps(found, allow_nan=False)


def _repeated(count: int) -> CanarySet:
    return plan_canaries(
        count=count,
        token_ids=range(5, 400),
        prefix_ids=range(400, 700),
        copies=4,
        secret=b"copies",
    )


def test_copies_are_judged_by_the_claim_for_that_many_units(
    untrained: LoadedModel, plan: dict
) -> None:
    smaller = plan | {"epsilon": 1.0, "noise_multiplier": 2.8268}
    found = audit(untrained, plan=smaller, canaries=_repeated(20), untrained=untrained)
    assert found["claim"]["canary_epsilon"] == pytest.approx(4.6, abs=0.05)
    exposure = found["subjects"]["target"]["exposure"]
    assert exposure["applicable"] is True
    assert exposure["ceiling_bits"] == pytest.approx(5.6 / math.log(2), abs=0.1)


@pytest.mark.full
def test_copies_beyond_the_space_have_counts_but_no_test(
    untrained: LoadedModel, plan: dict
) -> None:
    found = audit(untrained, plan=plan, canaries=_repeated(20), untrained=untrained)
    assert found["claim"]["canary_epsilon"] == pytest.approx(39.5, abs=0.3)
    target = found["subjects"]["target"]
    assert target["gating"]["applicable"] is False
    assert "4 copies" in target["gating"]["reason"]
    assert target["canary_extraction"]["extracted"] == 0


def test_run_without_canaries_says_so(untrained: LoadedModel, plan: dict) -> None:
    none = plan_canaries(count=0, token_ids=range(5, 400), prefix_ids=range(400, 700))
    found = audit(untrained, plan=plan, canaries=none, control=untrained, untrained=untrained)
    assert found["subjects"]["target"]["exposure"]["applicable"] is False
    assert found["power"]["status"] == "not shown"
    assert any("no canaries" in entry.get("reason", "") for entry in found["attacks"])


def test_progress_ends_at_its_total(
    untrained: LoadedModel, leaky: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    seen: list[tuple[int, int]] = []
    audit(
        leaky,
        plan=plan,
        canaries=canaries,
        untrained=untrained,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (800, 800)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_canaries_of_another_run_are_refused(
    untrained: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    bound = plan | {"bindings": {"canary_commitment": "sha256:other"}}
    with pytest.raises(IntegrityError, match="drawn for this run"):
        audit(untrained, plan=bound, canaries=canaries)


def test_unfit_plans_are_refused(untrained: LoadedModel, canaries: CanarySet, plan: dict) -> None:
    without = {name: value for name, value in plan.items() if name != "sample_rate"}
    with pytest.raises(UserError, match="sample_rate"):
        audit(untrained, plan=without, canaries=canaries)
    with pytest.raises(UserError, match="plan"):
        audit(untrained, plan="nowhere/plan.json", canaries=canaries)


def test_wrong_sigma_shows_in_the_recomputed_epsilon(
    untrained: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    found = audit(untrained, plan=plan | {"noise_multiplier": 0.4}, canaries=canaries)
    assert float(found["claim"]["recomputed_epsilon"]) > 20 > found["claim"]["epsilon"]


def test_package_can_be_called_with_folders(
    untrained: LoadedModel, canaries: CanarySet, plan: dict, tmp_path
) -> None:
    untrained.model.save_pretrained(tmp_path / "model")
    untrained.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    found = audits.audit(str(tmp_path / "model"), plan=tmp_path / "plan.json", canaries=canaries)
    assert found["subjects"]["target"]["model_digest"] == untrained.digest
    assert found["subjects"]["target"]["rejected_by"] == []
    assert math.isfinite(found["seconds"])


@pytest.mark.full
def test_a_model_as_its_own_reference_calibrates_nothing_away(
    untrained: LoadedModel, leaky: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    again = LoadedModel.of(copy.deepcopy(leaky.model), leaky.tokenizer)
    found = audit(leaky, plan=plan, canaries=canaries, untrained=untrained, reference=again)
    gating = found["subjects"]["target"]["gating"]
    assert gating["correct"] > 0.9 * gating["guesses"]


@pytest.mark.full
def test_a_reference_that_saw_the_canaries_hides_nothing(
    untrained: LoadedModel, leaky: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    near = copy.deepcopy(leaky.model)
    with torch.no_grad():
        near.get_input_embeddings().weight.mul_(1.001)
    reference = LoadedModel.of(near, leaky.tokenizer)
    asked = {"plan": plan, "canaries": canaries, "control": leaky, "reference": reference}
    found = audit(leaky, untrained=untrained, **asked)
    gating = found["subjects"]["target"]["gating"]
    assert gating["correct"] > 0.9 * gating["guesses"]
    assert found["declared"]["reference"] == {
        "model_digest": untrained.digest,
        "is": "untrained",
    }
    # Alone it calibrates, and hides what it knows: but then nothing is passed.
    alone = audit(leaky, **asked)
    assert alone["declared"]["reference"]["is"] == "given"
    assert verdict_of(alone).word != "PASS"


def test_a_plan_is_known_by_what_it_fixes(
    untrained: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    forged = audit(untrained, plan=plan | {"digest": "sha256:" + "0" * 64}, canaries=canaries)
    assert forged["claim"]["plan_digest"] == plan_digest(plan) != "sha256:" + "0" * 64
    run = make_plan(
        epsilon=8, delta=1e-6, units=2000, expected_batch_size=100, steps=150, max_grad_norm=1.0
    )
    assert plan_digest(run.to_json()) == run.digest


def test_a_plan_of_fewer_units_than_canaries_is_refused(
    untrained: LoadedModel, canaries: CanarySet, plan: dict
) -> None:
    with pytest.raises(UserError, match="of 199 units with canaries of 200"):
        audit(untrained, plan=plan | {"units": 199}, canaries=canaries)
