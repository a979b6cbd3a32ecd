"""Statements of auditors and approvers: who may say what of which bundle, and that it is missed."""

import copy
import hashlib
import json
import os
import random
import shutil
from datetime import timedelta
from types import SimpleNamespace

import pytest
from settled import settled
from signing_again import payload_of, write_envelope
from statements_peer import naive_subject, opened

from dpmlm.artifacts import create_keys, load_identity, load_signing_key, new_identity
from dpmlm.artifacts.rotation import Change
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release import Outside, countersigning, load_released, public_evidence, verify_bundle
from dpmlm.release.consistency import read_contents
from dpmlm.release.countersigning import (
    Bundle,
    Countersignature,
    check_countersignatures,
    disputes,
    missing,
)
from dpmlm.release.inventory import MANIFEST, compare
from dpmlm.release.rewrap import plan_bundle
from dpmlm.release.trust import load_trust
from dpmlm.release.verification import attest_bundle


@pytest.fixture(scope="session")
def people(keys, tmp_path_factory):
    """Keys of everybody, and a folder of trusted ones that knows each in one role."""
    folder = tmp_path_factory.mktemp("people")
    create_keys(folder / "approver", roles=["approver"])
    shutil.copytree(keys.trusted, folder / "trusted")
    (folder / "trusted/approver").mkdir()
    shutil.copy(folder / "approver/approver.pub", folder / "trusted/approver")
    found = {
        "trainer": keys.signing,
        "auditor": load_signing_key(keys.folder / "auditor-sign.key"),
        "approver": load_signing_key(folder / "approver/approver.key"),
    }
    return SimpleNamespace(trusted=folder / "trusted", keys=found)


@pytest.fixture
def attest(people, now):
    """A function by which somebody countersigns a bundle in a role."""

    def by(folder, role, **changed):
        given = {"key": people.keys[role], "trusted_keys": people.trusted, "now": now} | changed
        return attest_bundle(folder, role, given.pop("key"), **given)

    return by


@pytest.fixture
def look(people, now):
    """A function that verifies a bundle for a reader who trusts all of them."""
    return lambda folder, at=now, **more: verify_bundle(folder, people.trusted, now=at, **more)


def parsed(folder) -> Bundle:
    """A bundle whose rest is taken to be sound, which spares the time to look at it again."""
    manifest, (contents, _) = payload_of(folder / MANIFEST)["predicate"], read_contents(folder)
    return Bundle(folder, manifest, contents)


@pytest.fixture
def sign(people, now):
    """A function that countersigns as `attest` does, without verifying first."""

    def by(folder, role, *, key=None, trusted=people.trusted, evidence=None):
        given = (parsed(folder), role, key or people.keys[role], load_trust(trusted))
        return countersigning.attest(*given, now=now, evidence=evidence)

    return by


@pytest.fixture
def judge(people, now):
    """A function that judges the countersignatures of a bundle, and nothing else of it."""

    def of(folder):
        bundle, trust = parsed(folder), load_trust(people.trusted)
        return lambda: check_countersignatures(bundle, trust, now)[0]

    return of


@pytest.fixture
def signed(bundle, sign):
    """A bundle that both have countersigned, and their files."""
    files = {role: bundle / sign(bundle, role).file for role in ("auditor", "approver")}
    return SimpleNamespace(folder=bundle, **files)


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


def test_one_changed_byte_in_any_of_them_is_found(signed, look, judge):
    generator, findings = random.Random(7), judge(signed.folder)
    assert findings() == []
    for path in (signed.auditor, signed.approver):
        whole = path.read_bytes()
        name = str(path.relative_to(signed.folder))
        middle = generator.sample(range(len(whole)), 100)
        for offset in (0, *middle, len(whole) - 1):
            changed = bytearray(whole)
            changed[offset] ^= 1 << (offset % 7)
            path.write_bytes(changed)
            assert [one.file for one in findings()] == [name], offset
        assert [one.file for one in look(signed.folder).findings] == [name]
        for cut in (b"", whole[:-1], whole + b"\n", whole + b"{}", b"[" * 99_999, b" " * (2 << 20)):
            path.write_bytes(cut)
            assert [one.file for one in findings()] == [name]
        path.write_bytes(whole)
    assert look(signed.folder).ok


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


def test_other_files_beside_them_are_found(signed, look, judge):
    place, findings = signed.auditor.parent, judge(signed.folder)
    files = payload_of(signed.folder / MANIFEST)["predicate"]["files"]
    key_id = signed.auditor.name.split("-")[1].split(".")[0]
    for name in (
        "note.txt", f"auditor-{key_id}.json", f"Auditor-{key_id}.dsse.json", "auditor-.dsse.json",
        f"trainer-{key_id}.dsse.json", f"auditor-{key_id}.dsse.json.tmp",
        f"auditor-{key_id.upper()}X.dsse.json", f"deeper/{signed.auditor.name}",
    ):  # fmt: skip
        (place / name).parent.mkdir(exist_ok=True)
        shutil.copy(signed.auditor, place / name)
        assert [one.file for one in compare(signed.folder, files)] == [f"attestations/{name}"]
        (place / name).unlink()
    (place / "deeper").rmdir()
    whole = signed.auditor.read_bytes()
    signed.auditor.unlink()
    outside = signed.folder.parent / "outside.json"
    outside.write_bytes(whole)
    for make in (lambda: signed.auditor.symlink_to(outside), signed.auditor.mkdir):
        make()
        assert "no plain file" in findings()[0].what
        signed.auditor.rmdir() if not signed.auditor.is_symlink() else signed.auditor.unlink()
    (signed.folder / "auditor-0000000000000000.dsse.json").write_bytes(whole)
    assert not look(signed.folder).ok


@pytest.mark.parametrize("role", ["auditor", "approver"])
def test_nobody_signs_in_another_role(bundle, sign, judge, people, keys, role):
    findings = judge(bundle)
    others = [key for name, key in people.keys.items() if name != role]
    for key in others:
        with pytest.raises(UserError, match=f"as {role}: it is trusted as ") as refusal:
            sign(bundle, role, key=key)
        assert f"sign with a key of the {role}'s own" in str(refusal.value)
        assert ".pub" not in str(refusal.value)
    with pytest.raises(UserError, match="nobody trusts it yet") as refusal:
        sign(bundle, "approver", key=people.keys["approver"], trusted=keys.trusted)
    assert str(keys.trusted / "approver") in str(refusal.value)
    assert len(list((bundle / "attestations").iterdir())) == 3
    # And whoever writes such a file by hand is found.
    payload = payload_of(bundle / sign(bundle, role).file)
    for key in others:
        path = bundle / f"attestations/{role}-{key.key_id}.dsse.json"
        write_envelope(path, payload, key)
        (finding,) = findings()
        assert finding.file == f"attestations/{path.name}"
        assert "signs nothing as" in finding.what
        path.unlink()
    path = bundle / f"attestations/{role}-{people.keys[role].key_id}.dsse.json"
    write_envelope(path, payload, *others)  # under the name of the right key
    (finding,) = findings()
    assert "envelope signed by" in finding.where
    write_envelope(path, payload, people.keys[role], others[0])
    assert findings()


def test_a_reader_who_trusts_nobody_in_the_role_is_told_where_to_put_the_key(signed, keys, now):
    findings = verify_bundle(signed.folder, keys.trusted, now=now).findings
    (finding,) = [one for one in findings if one.file.endswith(signed.approver.name)]
    assert str(keys.trusted / "approver") in finding.next_step
    with pytest.raises(IntegrityError, match="is not trusted as approver"):
        load_released(signed.folder, identity=keys.consumer, trusted_keys=keys.trusted)


@pytest.mark.parametrize(("one", "other"), [("", "auditor"), ("", "approver"),
                                            ("auditor", "approver")])  # fmt: skip
def test_one_key_in_two_roles_is_refused(bundle, people, tmp_path, now, one, other):
    trusted = shutil.copytree(people.trusted, tmp_path / "trusted")
    shutil.copy(next((trusted / one).glob("*.pub")), trusted / other / "again.pub")
    with pytest.raises(UserError, match=r"it is trusted as (trainer|auditor) and as "):
        verify_bundle(bundle, trusted, now=now)


def edits(now):
    """What the holder of the right key could write, by role: dotted place and value."""
    late, early = (now + timedelta(days=days) for days in (3, -3))
    zero = {"sha256": "0" * 64}
    more = {"uri": "attestations/auditor-0000000000000000.dsse.json", "digest": zero}
    return {
        "auditor": [
            ("predicate/result", "PASSED"),
            ("predicate/result", "FAILED"),
            ("predicate/passedTests", []),
            ("predicate/passedTests", "audit:gating"),
            ("predicate/warnedTests", [3]),
            ("predicate/configuration/0/digest", zero),
            ("predicate/configuration", []),
            ("predicate/urn:dpmlm:evidence:1", {"digest": {"sha256": "short"}}),
            ("predicate/urn:dpmlm:evidence:1", None),
            ("predicate/note", "by the way"),
            ("predicate", {}),
            ("subject/0/digest", zero),
            ("predicateType", "https://in-toto.io/attestation/test-result/v0.2"),
            ("predicateType", "https://slsa.dev/verification_summary/v1"),
        ],
        "approver": [
            ("predicate/verificationResult", "FAILED"),
            ("predicate/verifiedLevels", ["SLSA_BUILD_LEVEL_3"]),
            ("predicate/verifier", {"id": "urn:dpmlm:trainer:0"}),
            ("predicate/policy/digest", zero),
            ("predicate/resourceUri", "urn:dpmlm:release:sha256:0"),
            ("predicate/inputAttestations", []),
            ("predicate/inputAttestations/1/digest", zero),
            ("predicate/inputAttestations/3", {**more, "uri": "../outside"}),
            ("predicate/inputAttestations/3", {**more, "uri": "plan.json"}),
            ("predicate/inputAttestations/3", {**more, "content": "x"}),
            ("predicate/inputAttestations/3", more),
            ("predicate/timeVerified", late.strftime("%Y-%m-%dT%H:%M:%SZ")),
            ("predicate/timeVerified", early.strftime("%Y-%m-%dT%H:%M:%SZ")),
            ("predicate/timeVerified", now.isoformat()),
            ("predicate/timeVerified", "2026-11-27T00:00:00"),
            ("predicate/timeVerified", 7),
            ("predicate", []),
            ("subject", []),
        ],
    }


@pytest.mark.parametrize("role", ["auditor", "approver"])
def test_what_does_not_follow_from_the_bundle_is_found(signed, look, judge, people, now, role):
    path, findings = getattr(signed, role), judge(signed.folder)
    more = "attestations/auditor-0000000000000000.dsse.json"
    whole, payload = path.read_bytes(), payload_of(path)
    for place, value in edits(now)[role]:
        changed = copy.deepcopy(payload)
        *walk, last = [int(part) if part.isdecimal() else part for part in place.split("/")]
        inner = changed
        for part in walk:
            inner = inner[part]
        inner[last] = value
        if (
            role == "auditor"
            and place == "predicate/result"
            and value == payload["predicate"]["result"]
        ):
            continue
        write_envelope(path, changed, people.keys[role])
        found = [one.file for one in findings()]
        assert f"attestations/{path.name}" in found, (place, value)
        if isinstance(value, dict) and value.get("uri", more) != more:
            assert "no auditor's statement" in findings()[0].what
    assert not look(signed.folder).ok
    path.write_bytes(whole)
    assert look(signed.folder).ok
    # Written under a clock that was a little ahead.
    assert look(signed.folder, now - timedelta(hours=20)).ok


def test_a_statement_about_another_bundle_is_found(signed, failed, judge):
    shutil.copy(signed.auditor, failed / "attestations")
    (finding,) = judge(failed)()
    assert (finding.file, finding.where) == (f"attestations/{signed.auditor.name}", "subject")
    assert "another release" in finding.what


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
