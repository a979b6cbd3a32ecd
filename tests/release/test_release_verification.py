"""A bundle that was touched or signed by a stranger is refused, and the place is named."""

import json
import random
import shutil

import pytest
from signing_again import sign_manifest
from variants import rest_in_full

from dpmlm.artifacts import canonical_json, new_signing_key
from dpmlm.artifacts.chunks import HEADER_BYTES, SEALED_CHUNK_BYTES
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release import load_released, verify_bundle
from dpmlm.release.inventory import MANIFEST, files_of

FILES = [
    "MODEL_CARD.md",
    "attestations/provenance.dsse.json",
    "attestations/summary.dsse.json",
    "attestations/test-result.dsse.json",
    "bom.cdx.json",
    "decision.json",
    "evidence.json",
    "ledger.json",
    "manifest.dsse.json",
    "model/answers.sealed",
    "model/config.sealed",
    "model/manifest.sealed",
    "model/recipients.json",
    "model/tokenizer.sealed",
    "model/weights.sealed",
    "plan.json",
    "policy.yaml",
    "report.html",
    "statement.json",
    "training.json",
]
FAST = ["attestations/summary.dsse.json", "decision.json", "manifest.dsse.json",
        "model/weights.sealed", "report.html"]  # fmt: skip


def _flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << (offset % 7)
    path.write_bytes(data)


def test_the_files_of_a_bundle(bundle):
    assert files_of(bundle) == sorted(FILES)


def test_verifying_needs_no_decryption_key(bundle, check, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a private key was asked for")

    monkeypatch.setattr("dpmlm.artifacts.keys.load_identity", refuse)
    monkeypatch.setattr("dpmlm.artifacts.identities.Identity.unwrap", refuse)
    assert check(bundle).ok


@pytest.mark.parametrize("name", rest_in_full(FILES, FAST))
def test_one_changed_byte_in_any_file_is_found_and_named(name, bundle, check):
    path = bundle / name
    whole = path.read_bytes()
    generator = random.Random(name)
    for offset in {0, len(whole) // 2, len(whole) - 1, generator.randrange(len(whole))}:
        _flip(path, offset)
        findings = check(bundle).findings
        assert [finding.file for finding in findings] == [name]
        _assert_place(findings[0].where, name, offset)
        path.write_bytes(whole)
    assert check(bundle).ok


def _assert_place(where, name, offset):
    """The range that a finding names holds the byte that was changed."""
    if name == MANIFEST:
        return
    first, last = where.split("bytes ")[1].split(" (")[0].split(" to ")
    assert int(first) <= offset <= int(last)
    if name.endswith(".sealed"):
        chunk = (offset - HEADER_BYTES) // SEALED_CHUNK_BYTES
        assert where.startswith("header" if offset < HEADER_BYTES else f"chunk {chunk},")


def test_every_header_byte_of_every_sealed_file(bundle, check):
    for path in sorted((bundle / "model").glob("*.sealed")):
        whole = path.read_bytes()
        for offset in range(HEADER_BYTES):
            _flip(path, offset)
            findings = check(bundle).findings
            assert [finding.file for finding in findings] == [f"model/{path.name}"]
            assert findings[0].where == f"header, bytes 0 to {HEADER_BYTES - 1}"
            path.write_bytes(whole)


def test_every_byte_of_the_manifest(bundle, check):
    path = bundle / MANIFEST
    whole = path.read_bytes()
    offsets = [*range(40), *range(len(whole) - 200, len(whole))]
    offsets += random.Random(1).sample(range(len(whole)), 60)
    for offset in offsets:
        for bit in (1, 0x20):  # 0x20 turns a blank into NUL and letters into their other case
            changed = bytearray(whole)
            changed[offset] ^= bit
            path.write_bytes(changed)
            assert [finding.file for finding in check(bundle).findings] == [MANIFEST], offset
    for more in (b" ", b"\n", b"{}"):
        path.write_bytes(whole + more)
        assert not check(bundle).ok


@pytest.mark.parametrize(
    ("changes", "cuts"), [(36, 4), pytest.param(10_000, 1_000, marks=pytest.mark.full)]
)
def test_random_changes_and_truncations(bundle, check, changes, cuts):
    seed = 20261120
    print(f"seed {seed}")
    generator = random.Random(seed)
    sizes = {name: (bundle / name).stat().st_size for name in FILES}
    for number in range(changes + cuts):
        name = generator.choices(FILES, weights=[sizes[name] for name in FILES])[0]
        whole = (bundle / name).read_bytes()
        offset = generator.randrange(len(whole))
        if number < changes:
            _flip(bundle / name, offset)
        else:
            (bundle / name).write_bytes(whole[:offset])
        findings = check(bundle).findings
        assert [finding.file for finding in findings] == [name], (name, offset)
        if number < changes:
            _assert_place(findings[0].where, name, offset)
        (bundle / name).write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_removed_truncated_and_renamed_files(name, bundle, check):
    path = bundle / name
    whole = path.read_bytes()
    path.unlink()
    assert name in [finding.file for finding in check(bundle).findings]
    path.write_bytes(whole[: len(whole) // 2])
    assert name in [finding.file for finding in check(bundle).findings]
    path.write_bytes(whole + b"x")
    assert name in [finding.file for finding in check(bundle).findings]
    path.write_bytes(whole)
    path.rename(path.with_name("other.json"))
    named = [finding.file for finding in check(bundle).findings]
    assert name in named
    if name != MANIFEST:
        assert str(path.with_name("other.json").relative_to(bundle)) in named


def test_added_files_folders_and_links(bundle, check, tmp_path):
    (bundle / "extra.txt").write_text("hello")
    assert [finding.file for finding in check(bundle).findings] == ["extra.txt"]
    (bundle / "extra.txt").unlink()
    (bundle / "model" / "empty").mkdir()
    assert [finding.file for finding in check(bundle).findings] == ["model/empty"]
    (bundle / "model" / "empty").rmdir()
    outside = tmp_path / "plan.json"
    shutil.move(bundle / "plan.json", outside)
    (bundle / "plan.json").symlink_to(outside)
    assert [finding.file for finding in check(bundle).findings] == ["plan.json"]
    (bundle / "plan.json").unlink()
    shutil.move(outside, bundle / "plan.json")
    assert check(bundle).ok
    (bundle / "link").symlink_to(tmp_path)
    assert [finding.file for finding in check(bundle).findings] == ["link"]


def test_swapped_files(bundle, check):
    one, other = bundle / "model/config.sealed", bundle / "model/tokenizer.sealed"
    config, tokenizer = one.read_bytes(), other.read_bytes()
    one.write_bytes(tokenizer)
    other.write_bytes(config)
    assert {finding.file for finding in check(bundle).findings} == {
        "model/config.sealed",
        "model/tokenizer.sealed",
    }


def test_a_bundle_signed_again_by_a_stranger_is_refused(bundle, check, keys):
    stranger = new_signing_key()
    sign_manifest(bundle, stranger)
    findings = check(bundle).findings
    assert [finding.file for finding in findings] == [MANIFEST]
    assert stranger.key_id in findings[0].where
    with pytest.raises(IntegrityError):
        load_released(bundle, identity=keys.consumer, trusted_keys=keys.trusted)


def test_a_stranger_under_the_signers_key_id_is_refused(bundle, check, keys):
    sign_manifest(bundle, new_signing_key())
    path = bundle / MANIFEST
    envelope = json.loads(path.read_bytes())
    envelope["signatures"][0]["keyid"] = keys.signing.key_id
    path.write_bytes(canonical_json(envelope))
    assert [finding.file for finding in check(bundle).findings] == [MANIFEST]


def test_an_envelope_without_signatures_is_refused(bundle, check):
    path = bundle / MANIFEST
    envelope = json.loads(path.read_bytes())
    envelope["signatures"] = []
    path.write_bytes(canonical_json(envelope))
    assert not check(bundle).ok


def test_no_folder_and_no_keys(tmp_path, keys, now):
    with pytest.raises(UserError, match="no such folder"):
        verify_bundle(tmp_path / "nothing", keys.trusted, now=now)
    with pytest.raises(UserError):
        verify_bundle(tmp_path, tmp_path / "nothing", now=now)
    findings = verify_bundle(tmp_path, keys.trusted, now=now).findings
    assert [finding.file for finding in findings] == [MANIFEST]
