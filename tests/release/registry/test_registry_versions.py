"""Versions and aliases: by the gate alone, and refused at every read once they were changed."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from registries import again, flip

from dpmlm.artifacts import (
    IntegrityError,
    UserError,
    create_keys,
    load_signing_key,
)
from dpmlm.cli.main import status_of
from dpmlm.release.exports import log_export, log_of
from dpmlm.release.inventory import release_digest
from dpmlm.release.registry.local import Registry
from dpmlm.release.verification import attest_bundle

pytestmark = pytest.mark.usefixtures("verified_once")


def test_what_it_says_of_a_version(registry, bundle, check, keys):
    version = registry.add(bundle, "notes")
    manifest = check(bundle).manifest
    ledger = json.loads((bundle / "ledger.json").read_text())
    assert (version.name, version.number, version.state) == ("notes", 1, "registered")
    assert version.release == release_digest(manifest["files"])
    assert version.model_digest == manifest["model_digest"]
    assert version.run_id == manifest.get("run_id", ledger["run_id"]) == "run"
    assert (version.verdict, version.created) == ("PASS", manifest["created"])
    assert version.added_by == keys.signing.key_id
    copied = {p.relative_to(version.path): p.read_bytes() for p in version.path.rglob("*.*")}
    assert copied == {p.relative_to(bundle): p.read_bytes() for p in bundle.rglob("*.*")}
    # Without trusted keys it lists the same.
    assert Registry(registry.folder).versions() == [version]


def test_promotion_and_rollback_move_an_alias(registry, bundle, second, keys):
    registry.add(bundle, "notes")
    registry.add(second, "notes")
    assert registry.promote("notes", 1, "champion").state == "promoted"
    registry.promote("notes", 2, "champion")
    registry.promote("notes", 2, "staging")
    assert again(registry, keys).aliases("notes") == {"champion": 2, "staging": 2}
    assert again(registry, keys).resolve("notes@champion").number == 2
    assert registry.rollback("notes", "champion").number == 1
    assert again(registry, keys).resolve("notes@champion").path == registry.folder / "notes/1"
    with pytest.raises(UserError, match="no version before"):
        registry.rollback("notes", "champion")
    kinds = [line["kind"] for line in registry.entries()]
    assert kinds == ["registry", "add", "add", "promote", "promote", "promote", "rollback"]
    assert registry.verify() == []


def test_promotion_can_ask_for_countersignatures(registry, bundle, keys):
    registry.add(bundle, "notes")
    with pytest.raises(IntegrityError, match="auditor"):
        registry.promote("notes", 1, "champion", require=["auditor"])
    assert registry.aliases("notes") == {}
    assert registry.promote("notes", 1, "champion").state == "promoted"


@pytest.fixture
def countersign(keys, tmp_path, now):
    """A function that countersigns a bundle; those who do are trusted from the first on."""
    trusted = shutil.copytree(keys.trusted, tmp_path / "trusted")
    create_keys(tmp_path / "approver", roles=["approver"])
    (trusted / "approver").mkdir()
    shutil.copy(tmp_path / "approver/approver.pub", trusted / "approver")
    signing = {
        "auditor": load_signing_key(keys.folder / "auditor-sign.key"),
        "approver": load_signing_key(tmp_path / "approver/approver.key"),
    }

    def by(folder, role, later=0):
        when = now + timedelta(hours=later)
        return attest_bundle(folder, role, signing[role], trusted_keys=trusted, now=when)

    by.trusted = trusted
    return by


@pytest.mark.full
def test_countersignatures_are_taken_over_by_adding_the_release_again(
    registry, bundle, keys, countersign, tmp_path
):
    trusting = {"trusted_keys": countersign.trusted, "signing_key": keys.signing}
    registry = Registry(registry.folder, **trusting)
    copy = registry.add(bundle, "notes").path
    with pytest.raises(IntegrityError, match=r"release attest .*notes/1 --role auditor"):
        registry.promote("notes", 1, "champion", require=["auditor"])
    countersign(bundle, "auditor")
    countersign(bundle, "approver")  # who saw the auditor's
    registry.add(bundle, "notes")
    promoted = registry.promote("notes", 1, "champion", require=["auditor", "approver"])
    assert promoted.state == "promoted"
    assert registry.verify() == []
    # Another statement under one name is not written over.
    for file in copy.glob("attestations/a*-*"):
        file.unlink()
    countersign(copy, "approver", later=1)
    before = {path: path.read_bytes() for path in copy.glob("attestations/*")}
    with pytest.raises(UserError, match=r"release attest .*notes/1"):
        registry.add(bundle, "notes")
    assert {path: path.read_bytes() for path in copy.glob("attestations/*")} == before


def test_the_same_again_changes_nothing(registry, bundle):
    first = registry.add(bundle, "notes")
    registry.promote("notes", 1, "champion")
    length = len(registry.entries())
    assert registry.add(bundle, "notes").release == first.release
    registry.promote("notes", 1, "champion")
    assert len(registry.entries()) == length
    assert registry.add(bundle, "other").number == 1


def test_what_failed_is_kept_and_never_promoted(registry, failed, keys):
    assert registry.add(failed, "notes").verdict == "FAIL"
    with pytest.raises(UserError, match="did not pass"):
        registry.promote("notes", 1, "champion")
    assert again(registry, keys).resolve("notes@1").verdict == "FAIL"
    # Nor by somebody with a key who writes the line.
    with registry._journal.exclusive():
        with pytest.raises(IntegrityError, match="did not pass"):
            registry._append("promote", name="notes", version=1, alias="champion")
        registry._journal._apply = lambda entry: None
        registry._append("promote", name="notes", version=1, alias="champion")
    with pytest.raises(IntegrityError, match="line 3: it points an alias to what did not pass"):
        again(registry, keys).versions()


def test_a_verdict_that_says_no_is_exit_status_1(registry, failed, keys, capsys):
    registry.add(failed, "notes")
    given = ["--trusted-keys", str(keys.trusted), "--signing-key", str(keys.folder / "sign.key")]
    words = ["registry", "promote", str(registry.folder), "notes", "1", "--alias", "champion"]
    assert status_of([*words, *given]) == 1
    assert "did not pass" in capsys.readouterr().err
    flip(registry.folder / "journal.jsonl")
    for words in (["list"], ["history"], ["show", "notes"]):
        assert status_of(["registry", words[0], str(registry.folder), *words[1:]]) == 1
        assert "the chain is broken" in capsys.readouterr().err


def test_a_retired_version_is_promoted_no_more_and_left_out_of_rolling_back(
    held,
):
    registry = held
    for number in (2, 1):
        registry.promote("notes", number, "champion")
    with pytest.raises(UserError, match="champion points to it"):
        registry.retire("notes", 1)
    assert registry.retire("notes", 2).state == "retired"
    with pytest.raises(UserError, match="was retired"):
        registry.promote("notes", 2, "champion")
    with pytest.raises(UserError, match="no version before 1"):
        registry.rollback("notes", "champion")
    length = len(registry.entries())
    assert registry.retire("notes", 2).state == "retired"
    assert len(registry.entries()) == length
    assert [one.state for one in registry.versions("notes")] == ["promoted", "retired"]


def swap_for_other(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.parents[2] / "second", folder)


TAMPERING = {
    "a changed byte of the model": lambda folder: flip(folder / "model/weights.sealed"),
    "a changed byte of a page": lambda folder: flip(folder / "report.html"),
    "a file more": lambda folder: (folder / "more").write_text("x"),
    "a file less": lambda folder: (folder / "plan.json").unlink(),
    "a link": lambda folder: (folder / "link").symlink_to("/etc/hostname"),
    "another signed release": swap_for_other,
    "the folder": shutil.rmtree,
    "the folder moved away and linked": lambda folder: (
        folder.rename(folder.parent / ".away"),
        folder.symlink_to(".away"),
    ),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_a_version_that_was_changed_is_refused_at_every_read(held, bundle, keys, how):
    registry = held
    TAMPERING[how](registry.folder / "notes/1")
    for read in (
        lambda: again(registry, keys).resolve("notes@champion"),
        lambda: again(registry, keys).resolve("notes@1"),
        lambda: registry.promote("notes", 1, "next"),
    ):
        with pytest.raises(IntegrityError, match="notes/1"):
            read()
    assert [one.file for one in again(registry, keys).verify()] == ["notes/1"]
    # A good copy of the same release takes its place.
    registry.add(bundle, "notes")
    assert registry.verify() == []
    assert again(registry, keys).resolve("notes@champion").number == 1


def test_a_rollback_to_what_was_changed_is_refused(held):
    registry = held
    registry.promote("notes", 2, "champion")
    flip(registry.folder / "notes/1/statement.json")
    with pytest.raises(IntegrityError, match="notes/1"):
        registry.rollback("notes", "champion")
    assert registry.resolve("notes@champion").number == 2


def test_folders_that_no_line_names_are_found(held, bundle):
    registry = held
    shutil.copytree(bundle, registry.folder / "notes/3")
    (registry.folder / "strange").write_text("x")
    log, said = log_of(registry.folder / "notes/1"), {"release": "r", "manifest": "m"}
    for target in ("a", "b"):
        log_export(log, **said, opened_by="k", target=target)
    assert [one.file for one in registry.verify()] == ["notes/3", "strange"]
    assert (registry.folder / "exports.jsonl").exists()


def test_a_pass_on_an_expired_waiver_is_promoted_no_more(
    registry, tmp_path, write, facts, keys, model_digest, now
):
    from dpmlm.artifacts import create_keys, load_signing_key
    from dpmlm.release import decide, load_policy
    from dpmlm.release.waivers import sign_waiver

    create_keys(tmp_path / "approver", roles=["approver"])
    trusted, policy = tmp_path / "trusted", load_policy("partner")
    shutil.copytree(keys.trusted, trusted)
    (trusted / "approver").mkdir()
    shutil.copy(tmp_path / "approver/approver.pub", trusted / "approver")
    waiver = sign_waiver(
        rule="dp.epsilon",
        policy_digest=policy.digest,
        model_digest=model_digest,
        reason="Reviewed.",
        expires=(now + timedelta(days=30)).isoformat(),
        key=load_signing_key(tmp_path / "approver/approver.key"),
        now=now,
    )
    decision = decide(policy, facts, now=now, waivers=[waiver])
    bundle = write(tmp_path / "waived", facts, policy=policy, decision=decision)
    at = [now]
    given = {"trusted_keys": trusted, "signing_key": keys.signing, "clock": lambda: at[0]}
    held = Registry(registry.folder, **given)
    held.add(bundle, "notes")
    held.promote("notes", 1, "champion")
    at[0] = now + timedelta(days=31)
    with pytest.raises(UserError, match=r"waiver of dp\.epsilon that expired"):
        held.promote("notes", 1, "staging")
    assert held.resolve("notes@champion").number == 1


def test_promotion_can_ask_for_a_policy(held):
    with pytest.raises(UserError, match=r"partner/v1 .* is asked for"):
        held.promote("notes", 1, "staging", policy="partner")
    assert "staging" not in held.aliases("notes")
    held.promote("notes", 1, "staging", policy="internal")
    assert held.aliases("notes")["staging"] == 1
