"""A bundle that contradicts itself is refused, whoever signed it."""

import json
from datetime import timedelta

import pytest
from signing_again import edit_json, sign_manifest
from variants import rest_in_full

from dpmlm.artifacts import SealedFolder, load_identity, new_identity


def test_a_decision_edited_to_pass_is_found_even_when_the_signer_signs_it(failed, check, keys):
    def lie(decision):
        decision["verdict"] = "PASS"
        for rule in decision["rules"]:
            if rule["id"] == "audit.extraction":
                rule |= {"status": "pass", "observed": 0}

    edit_json(failed / "decision.json", lie)
    assert [finding.file for finding in check(failed).findings] == ["decision.json"]
    sign_manifest(failed, keys.signing, lambda predicate: predicate.update(verdict="PASS"))
    findings = check(failed).findings
    assert {finding.file for finding in findings} == {"decision.json", "bom.cdx.json"}
    assert any(finding.where == "verdict" for finding in findings)
    assert any("audit.extraction" in finding.where for finding in findings)


CONTRADICTIONS = [
    ("plan.json", lambda plan: plan.update(epsilon=2.0), "plan.json"),
    ("ledger.json", lambda ledger: ledger.update(epsilon=2.0), "statement.json"),
    ("ledger.json", lambda ledger: ledger.update(charged_steps=5), "decision.json"),
    ("ledger.json", lambda ledger: ledger.update(plan_digest="x"), "ledger.json"),
    ("statement.json", lambda claim: claim.update(epsilon=1.0), "statement.json"),
    ("statement.json", lambda claim: claim.update(unit="document"), "statement.json"),
    ("statement.json", lambda claim: claim["not_covered"].pop(1), "statement.json"),
    ("statement.json", lambda claim: claim["not_covered"].append("rain"), "statement.json"),
    ("statement.json", lambda claim: claim.update(not_covered=7), "statement.json"),
    (
        "statement.json",
        lambda claim: claim["epsilon_by_accountant"].update(rdp=0.5),
        "statement.json",
    ),
    ("statement.json", lambda claim: claim.update(charged_steps=7), "statement.json"),
    ("statement.json", lambda claim: claim["lineage"].update(runs=9), "statement.json"),
    ("statement.json", lambda claim: claim["details"].update(adjacency="x"), "statement.json"),
    (
        "statement.json",
        lambda claim: claim["details"]["renyi"][0].update(divergence=0.1),
        "statement.json",
    ),
    ("statement.json", lambda claim: claim.update(sentence="All is well."), "statement.json"),
    ("evidence.json", lambda audit: audit["power"].update(status="no"), "decision.json"),
    ("evidence.json", lambda audit: audit["claim"].update(plan_digest="x"), "evidence.json"),
    (
        "evidence.json",
        lambda audit: audit["subjects"]["target"].update(model_digest="x"),
        "evidence.json",
    ),
    ("evidence.json", lambda audit: audit.clear(), "decision.json"),
    ("decision.json", lambda decision: decision["rules"].pop(), "decision.json"),
    ("decision.json", lambda decision: decision.update(policy="kind/v1"), "decision.json"),
    (
        "decision.json",
        lambda decision: decision["rules"][1]["threshold"].update(max=80.0),
        "decision.json",
    ),
    (
        "decision.json",
        lambda decision: decision["rules"][0].update(private=True),
        "decision.json",
    ),
    ("decision.json", lambda decision: decision.update(more=1), "decision.json"),
]


@pytest.mark.parametrize(
    ("file", "edit", "found_in"), rest_in_full(CONTRADICTIONS, CONTRADICTIONS[::3])
)
def test_contradictions_that_the_signer_signed(bundle, check, keys, file, edit, found_in):
    edit_json(bundle / file, edit)
    sign_manifest(bundle, keys.signing)
    assert found_in in {finding.file for finding in check(bundle).findings}


def fewer_steps(ledger):
    """Of a run whose plan and ledger have more."""
    ledger.update(committed_steps=1, charged_steps=1, reserved_steps=1)


def several_runs(ledger):
    ledger["lineage"]["runs"] = 2


TOLD = [
    (lambda ledger: None, 2.0),
    (fewer_steps, 2.0),
    (several_runs, 2.0),
    (lambda ledger: ledger.update(committed_steps=10**6), None),
    (lambda ledger: ledger.pop("lineage"), None),
    (lambda ledger: ledger.update(basis="filter"), None),
]


@pytest.mark.parametrize(("edit", "epsilon"), rest_in_full(TOLD, TOLD[::2]))
def test_an_epsilon_that_plan_and_ledger_do_not_give_is_found(bundle, check, keys, edit, epsilon):
    """Even where sentence, fields and ledger agree on it and the signer signed it."""
    ledger, claim = (json.loads((bundle / f"{part}.json").read_text())
                     for part in ("ledger", "statement"))  # fmt: skip
    told = f"{claim['epsilon']:.4f}"

    def tell(part):
        part["epsilon"] = epsilon or part["epsilon"]
        if "sentence" in part:
            part["sentence"] = part["sentence"].replace(told, f"{part['epsilon']:.4f}")

    edit_json(bundle / "ledger.json", edit)
    for part in ("ledger", "statement"):
        edit_json(bundle / f"{part}.json", tell)
    sign_manifest(bundle, keys.signing)
    found = {finding.file for finding in check(bundle).findings}
    assert "ledger.json" in found
    assert ledger["epsilon"] != epsilon


def test_another_policy_under_the_same_decision_is_found(bundle, check, keys):
    path = bundle / "policy.yaml"
    path.write_text(path.read_text().replace("max: 8.0", "max: 80.0"))
    sign_manifest(bundle, keys.signing)
    assert not check(bundle).ok


def test_an_added_recipient_is_found(bundle, check, keys):
    auditor = keys.folder / "auditor.key"
    stranger = new_identity()
    sealed = SealedFolder.open(bundle / "model", [load_identity(auditor)])
    sealed.rewrap([*keys.keep, keys.consumer_pub, stranger.recipient])
    assert [finding.file for finding in check(bundle).findings] == ["model/recipients.json"]
    sign_manifest(bundle, keys.signing)
    findings = check(bundle).findings
    assert [finding.file for finding in findings] == ["model/recipients.json"]
    assert stranger.key_id in findings[0].what


def test_consumers_listed_without_a_pass_are_found(failed, check, keys):
    sealed = SealedFolder.open(failed / "model", [load_identity(keys.folder / "auditor.key")])
    sealed.rewrap([*keys.keep, keys.consumer_pub])
    edit = {"consumers": [keys.consumer_pub.key_id]}
    sign_manifest(failed, keys.signing, lambda predicate: predicate["recipients"].update(edit))
    assert "FAIL" in check(failed).findings[0].what


def test_a_bundle_from_the_future_is_found(bundle, check, now):
    assert check(bundle).ok
    findings = check(bundle, now - timedelta(days=36500)).findings
    assert [finding.where for finding in findings] == ["created"]
