"""What does not follow from the bundle is found, and one byte of it."""

import copy
import random
import shutil
from datetime import timedelta

import pytest
from signing_again import payload_of, write_envelope

from dpmlm.release.inventory import MANIFEST, compare


@pytest.mark.parametrize("places", [3, pytest.param(300, marks=pytest.mark.full)])
def test_one_changed_byte_in_any_of_them_is_found(signed, look, judge, places):
    generator, findings = random.Random(7), judge(signed.folder)
    assert findings() == []
    for path in (signed.auditor, signed.approver):
        whole = path.read_bytes()
        name = str(path.relative_to(signed.folder))
        middle = generator.sample(range(len(whole)), places)
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


@pytest.mark.parametrize("role", ["auditor", pytest.param("approver", marks=pytest.mark.full)])
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
