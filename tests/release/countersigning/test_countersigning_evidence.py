"""An auditor's own evidence."""

import copy
import hashlib
import json

import pytest
from settled import settled
from signing_again import payload_of, write_envelope

from dpmlm.errors import UserError
from dpmlm.release import Outside, countersigning, public_evidence


@pytest.mark.full
def test_evidence_of_an_auditors_own(signed, sign, look, judge, people, facts):
    """It is about this model and plan, follows from its figures, and may come out otherwise."""
    bundle, findings = signed.folder, judge(signed.folder)
    own = copy.deepcopy(facts["audit"])
    own["seconds"] = 3.5  # private, so it changes no digest
    sign(bundle, "auditor", evidence=own)
    assert look(bundle).countersigned[1].evidence is None
    own["subjects"]["target"]["canary_extraction"]["extracted"] = 3
    with pytest.raises(UserError, match="follow"):
        sign(bundle, "auditor", evidence=own)
    settled(own, facts["plan"])
    assert sign(bundle, "auditor", evidence=own).result == "FAILED"
    (finding,) = findings()
    assert "the approver saw another" in finding.what
    assert sign(bundle, "approver").result == "PASSED"  # the gate decides on the bundle's
    found = look(bundle)
    assert (found.ok, found.verdict) == (True, "PASS")
    shown = json.dumps(public_evidence(own), sort_keys=True, separators=(",", ":"),
                       ensure_ascii=False)  # fmt: skip
    digest = "sha256:" + hashlib.sha256(shown.encode()).hexdigest()
    (auditors,) = [one for one in found.countersigned if one.role == "auditor"]
    assert (auditors.result, auditors.evidence) == ("FAILED", digest)
    assert any("FAILED, on evidence of their own" in note for note in found.notes)
    assert "says FAILED, and its verdict is PASS; ask them" in found.warnings[0]
    (finding,) = look(bundle, require=["auditor"]).findings
    assert "says FAILED, and its verdict is PASS" in finding.what
    # Whoever gets the evidence can look whether it is what the auditor says.
    path = bundle.parent / "own.json"
    path.write_text(json.dumps(own))
    given = look(bundle, outside=Outside(evidence=path))
    assert given.ok
    assert any(f"key {people.keys['auditor'].key_id} attested ({digest})" in n for n in given.notes)
    path.write_text(json.dumps(facts["audit"]))
    (finding,) = look(bundle, outside=Outside(evidence=path)).findings
    assert "no auditor's statement is on this evidence" in finding.what
    path.write_text(json.dumps(own))
    statement = payload_of(signed.auditor)
    listed = {kind: statement["predicate"][f"{kind}Tests"] for kind in ("passed", "failed")}
    lie = {"failedTests": [], "passedTests": sorted(listed["passed"] + listed["failed"])}
    said = statement["predicate"] | lie
    said["result"] = "WARNED" if said["warnedTests"] else "PASSED"
    write_envelope(signed.auditor, statement | {"predicate": said}, people.keys["auditor"])
    sign(bundle, "approver")
    assert look(bundle).ok
    (finding,) = look(bundle, outside=Outside(evidence=path)).findings
    assert finding.file == f"attestations/{signed.auditor.name}"
    write_envelope(signed.auditor, statement, people.keys["auditor"])
    sign(bundle, "approver")
    # Whose evidence nobody else has, can be misquoted only so far.
    payload = payload_of(signed.auditor)
    for edit in (
        {"failedTests": [], "passedTests": ["audit:gating"]}, {"result": "PASSED"},
        {"failedTests": ["audit:nothing"]}, {"failedTests": ["audit:gating", "audit:gating"]},
        {"failedTests": ["gate:dp.epsilon"]},
    ):  # fmt: skip
        changed = payload | {"predicate": payload["predicate"] | edit}
        write_envelope(signed.auditor, changed, people.keys["auditor"])
        named = [one.file for one in findings()]
        assert f"attestations/{signed.auditor.name}" in named, edit


def test_evidence_that_is_not_about_this_bundle_is_refused(bundle, sign, facts, tmp_path):
    for place, value, says in (
        ("claim/plan_digest", "sha256:" + "0" * 64, "another plan"),
        ("claim/epsilon", 3.0, "another epsilon"),
        ("subjects/target/model_digest", "sha256:" + "0" * 64, "another model"),
        ("declared/commitment", "sha256:" + "0" * 64, "other canaries"),
    ):
        own = copy.deepcopy(facts["audit"])
        *walk, last = place.split("/")
        inner = own
        for part in walk:
            inner = inner[part]
        inner[last] = value
        with pytest.raises(UserError, match=says):
            sign(bundle, "auditor", evidence=own)
    with pytest.raises(UserError, match="another plan"):
        sign(bundle, "auditor", evidence={})
    with pytest.raises(UserError, match="leave it out"):
        sign(bundle, "approver", evidence=facts["audit"])
    assert len(list((bundle / "attestations").iterdir())) == 3
    path = tmp_path / "evidence.json"
    for value in (b"", b"[]", b"3", b"{", b"\xff", b"[" * 99_999):
        path.write_bytes(value)
        with pytest.raises(UserError, match="it is no evidence"):
            countersigning.read_evidence(path)
    path.write_text(json.dumps(facts["audit"]))
    assert countersigning.read_evidence(path) == facts["audit"]
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        countersigning.read_evidence(path)
