"""Statements of auditors and approvers: what they say, and that they are missed."""

import hashlib
import os

import pytest
from signing_again import payload_of
from statements_peer import naive_subject, opened

from dpmlm.artifacts import load_identity, new_identity
from dpmlm.artifacts.rotation import Change
from dpmlm.errors import IntegrityError
from dpmlm.release import load_released
from dpmlm.release.countersigning import (
    Countersignature,
    disputes,
    missing,
)
from dpmlm.release.inventory import MANIFEST
from dpmlm.release.rewrap import plan_bundle


def test_what_each_states_of_a_pass_and_a_fail(bundle, failed, attest, look, people):
    auditor = people.keys["auditor"].key_id
    for folder, verdict in ((bundle, "PASSED"), (failed, "FAILED")):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for role in ("auditor", "approver"):
            made = attest(folder, role)
            key = people.keys[role]
            assert made.file == f"attestations/{role}-{key.key_id}.dsse.json"
            whole = opened(folder / made.file, key.verify_key.public)
            said = whole["predicate"]
            assert whole["subject"] == naive_subject(folder)
            if role == "auditor":
                ours = payload_of(folder / "attestations/test-result.dsse.json")["predicate"]
                assert said == ours
                assert made.result == said["result"]
                assert (said["result"] == "FAILED") == (verdict == "FAILED")
            else:
                assert made.result == said["verificationResult"] == verdict
                assert said["verifier"] == {"id": f"urn:dpmlm:approver:{key.key_id}"}
                names = (
                    "provenance",
                    "test-result",
                    "summary",
                    f"auditor-{auditor}",
                )
                files = [f"attestations/{name}.dsse.json" for name in names]
                assert said["inputAttestations"] == [
                    {"uri": name, "digest": {"sha256": _sha256(folder / name)}} for name in files
                ]
        found = look(folder, require=("auditor", "approver"))
        assert found.ok, found.findings
        assert {one.role for one in found.countersigned} == {"auditor", "approver"}
        assert {one["role"] for one in found.to_json()["countersigned"]} == {"auditor", "approver"}
        for one in found.countersigned:
            told = f"countersigned by the {one.role}'s key {one.key_id}: {one.result}"
            assert told in found.notes
        assert {path: path.read_bytes() for path in before} == before


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_undecided_run_is_attested_as_failed(tmp_path, write, facts, attest, look):
    facts["audit"] = {}
    folder = write(tmp_path / "bare", facts)
    assert [attest(folder, role).result for role in ("auditor", "approver")] == ["FAILED"] * 2
    assert look(folder, require=["auditor", "approver"]).verdict == "INCONCLUSIVE"
    said = payload_of(folder / "attestations/test-result.dsse.json")["predicate"]
    assert "urn:dpmlm:evidence:1" not in said
    assert not [test for test in said["warnedTests"] if test.startswith("audit:")]


def test_a_statement_that_is_gone_is_missed_by_who_needs_it(signed, look, keys, people):
    both = {"require": ("auditor", "approver")}
    assert look(signed.folder, **both).ok
    auditors = signed.auditor.read_bytes()
    signed.auditor.unlink()
    # The approver saw it.
    (finding,) = look(signed.folder).findings
    assert "and it is gone" in finding.what
    assert finding.file == f"attestations/{signed.approver.name}"
    signed.approver.unlink()
    assert look(signed.folder).ok
    with pytest.raises(IntegrityError, match="no approver countersigned it"):
        load_released(
            signed.folder, identity=keys.consumer, trusted_keys=people.trusted, require=["approver"]
        )
    load_released(signed.folder, identity=keys.consumer, trusted_keys=people.trusted)
    missed = look(signed.folder, **both)
    assert [(one.file, one.where) for one in missed.findings] == [
        ("attestations", "auditor"), ("attestations", "approver")
    ]  # fmt: skip
    assert not missed.ok
    assert "dpmlm release attest" in missed.findings[0].next_step
    signed.auditor.write_bytes(auditors)
    (finding,) = look(signed.folder, **both).findings
    assert finding.where == "approver"


def test_what_does_not_verify_is_not_attested(bundle, attest):
    path = bundle / "report.html"
    path.write_text(path.read_text() + " ")
    for role in ("auditor", "approver"):
        with pytest.raises(IntegrityError, match=r"report\.html"):
            attest(bundle, role)
    assert len(list((bundle / "attestations").iterdir())) == 3


def test_one_step_and_again_after_whatever_went_wrong(bundle, attest, sign, judge, monkeypatch):
    path, findings = bundle / sign(bundle, "approver").file, judge(bundle)
    whole = path.read_bytes()

    def dying(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as dies:
        dies.setattr(os, "replace", dying)
        for role in ("auditor", "approver"):
            with pytest.raises(KeyboardInterrupt):
                sign(bundle, role)
    assert not findings()
    assert path.read_bytes() == whole
    path.write_bytes(b"spoilt")
    assert findings()
    attest(bundle, "approver")
    assert path.read_bytes() == whole
    (path.parent / f"auditor-{'0' * 16}.dsse.json").write_bytes(whole)  # somebody else's
    with pytest.raises(IntegrityError, match="auditor-0000"):
        attest(bundle, "approver")


def test_they_survive_a_rotation_of_the_bundle(signed, look, keys):
    before = {path: path.read_bytes() for path in (signed.auditor, signed.approver)}
    trainer = load_identity(keys.folder / "trainer.key")
    change = Change(add=(new_identity(role="consumer").recipient,))
    manifest = (signed.folder / MANIFEST).read_bytes()
    plan_bundle(signed.folder, [trainer], change, keys.signing).write()
    assert (signed.folder / MANIFEST).read_bytes() != manifest
    assert look(signed.folder, require=["auditor", "approver"]).ok
    assert {path: path.read_bytes() for path in before} == before


def test_one_auditors_failed_is_enough_whatever_others_say():
    """A second opinion of one's own choice does not outvote the first."""
    said = [
        Countersignature("auditor", "1" * 16, "FAILED", "attestations/a"),
        Countersignature("auditor", "2" * 16, "WARNED", "attestations/b"),
        Countersignature("approver", "3" * 16, "PASSED", "attestations/c"),
    ]
    need = ("auditor", "approver")
    (finding,) = missing(need, said, "PASS")
    assert (finding.file, finding.where) == ("attestations/a", "result")
    assert len(disputes(said, "PASS")) == 1
    assert not missing(need, said[1:], "PASS")
    assert not missing(need, said, "FAIL")
    assert not disputes(said, "FAIL")
    assert not missing((), said, "PASS")


def test_an_auditor_is_told_first_who_rests_on_what_they_replace(signed, attest, people):
    told, before = [], signed.auditor.read_bytes()
    attest(signed.folder, "auditor", tell=told.append)
    (line,) = told
    assert f"the approver's key {people.keys['approver'].key_id} rests on attest" in line
    assert signed.auditor.read_bytes() == before  # on the same evidence it says the same
    attest(signed.folder, "approver", tell=told.append)
    assert told == [line]
