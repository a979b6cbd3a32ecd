"""Rotating the keys of a bundle: its signer signs it again, and nobody else can."""

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from variants import rest_in_full

from dpmlm.artifacts import (
    IntegrityError,
    SealedFolder,
    canonical_json,
    load_identity,
    load_signing_key,
    new_identity,
    new_signing_key,
)
from dpmlm.artifacts.rotation import Change
from dpmlm.errors import UserError
from dpmlm.release import load_released
from dpmlm.release.inventory import MANIFEST, RECIPIENTS
from dpmlm.release.rewrap import plan_bundle


@pytest.fixture(scope="module")
def trainer(keys):
    return load_identity(keys.folder / "trainer.key")


@pytest.fixture(scope="module")
def auditor(keys):
    return load_identity(keys.folder / "auditor.key")


@pytest.fixture(scope="module")
def heir():
    return new_identity(role="consumer")


def replaced(old, new) -> Change:
    return Change(replace=((old.key_id, new.recipient),))


def opens(bundle, identity) -> bool:
    try:
        SealedFolder.open(bundle / "model", [identity])
        return True
    except IntegrityError:
        raise
    except UserError:
        return False


def manifest_of(bundle) -> dict:
    return json.loads(base64.b64decode(json.loads((bundle / MANIFEST).read_bytes())["payload"]))


def naive_after(listed: dict, change: Change, *, passed: bool) -> dict:
    """Twin of `recipients_after`: one key after the other."""
    role = dict.fromkeys(listed["keep"], "keep")
    role |= dict.fromkeys(listed["consumers"], "consumers")
    for old, new in change.replace:
        if old in role:
            role[new.key_id] = role.pop(old)
    for key_id in change.remove:
        role.pop(key_id, None)
    for one in change.add:
        role.setdefault(one.key_id, "consumers" if passed else "keep")
    return {kind: sorted(k for k, is_one in role.items() if is_one == kind)
            for kind in ("keep", "consumers")}  # fmt: skip


def test_a_rotated_bundle_is_signed_again_and_nothing_else_changes(
    bundle, check, keys, trainer, heir
):
    before = {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    keeper, more = new_identity(), new_identity()
    change = Change(
        add=(more.recipient,),
        replace=((trainer.key_id, keeper.recipient), (keys.consumer.key_id, heir.recipient)),
    )
    expected = naive_after(manifest_of(bundle)["predicate"]["recipients"], change, passed=True)
    was = manifest_of(bundle)
    plan_bundle(bundle, [trainer], change, keys.signing).write()
    changed = {p.relative_to(bundle) for p, data in before.items() if p.read_bytes() != data}
    assert {str(path) for path in changed} == {MANIFEST, RECIPIENTS}
    found = check(bundle)
    assert (found.ok, found.verdict) == (True, "PASS")
    assert found.manifest["recipients"] == expected
    now = manifest_of(bundle)
    assert [entry["name"] for entry in now["subject"]] == [e["name"] for e in was["subject"]]
    for payload in (was, now):
        del payload["predicate"]["recipients"], payload["predicate"]["files"][RECIPIENTS]
        payload["subject"] = [e for e in payload["subject"] if e["name"] != RECIPIENTS]
    assert now == was
    for one in (keeper, heir, more):
        load_released(bundle, identity=one, trusted_keys=keys.trusted)
    assert not opens(bundle, trainer)
    with pytest.raises(UserError, match="only the keys"):
        load_released(bundle, identity=keys.consumer, trusted_keys=keys.trusted)
    for name in ("model/weights.sealed", RECIPIENTS, "plan.json", MANIFEST):
        whole = (bundle / name).read_bytes()
        (bundle / name).write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        assert [finding.file for finding in check(bundle).findings] == [name]
        (bundle / name).write_bytes(whole)
    signed = (bundle / MANIFEST).read_bytes()
    plan_bundle(bundle, [keeper], change).write()  # so already: no key is asked for
    assert (bundle / MANIFEST).read_bytes() == signed


@pytest.mark.parametrize("verdict", rest_in_full(["bundle", "failed"], ["bundle"]))
@pytest.mark.parametrize("who", ["trainer", "auditor"])
def test_nobody_but_the_signer_changes_who_can_open(request, check, keys, verdict, who, auditor):
    """Whoever can open it, whatever role the new key is said to have, also to take one away."""
    folder, identity = request.getfixturevalue(verdict), request.getfixturevalue(who)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    stranger = new_identity()
    (other,) = {one.key_id for one in keys.keep} - {identity.key_id}
    for change in (
        Change(add=(stranger.recipient,)),
        replaced(identity, stranger),
        Change(remove=frozenset({other})),
    ):
        with pytest.raises(UserError, match="its signature covers") as refusal:
            plan_bundle(folder, [identity], change)
        assert "--signing-key" in str(refusal.value)
        for key in (load_signing_key(keys.folder / "auditor-sign.key"), new_signing_key()):
            with pytest.raises(UserError, match="did not sign"):
                plan_bundle(folder, [identity], change, key)
    assert {path: path.read_bytes() for path in before} == before
    assert not plan_bundle(folder, [identity], Change()).model.changes
    assert check(folder).ok


def test_what_did_not_pass_gets_keepers_and_no_consumer(failed, check, keys, trainer, auditor):
    with pytest.raises(UserError, match="only a model that passed"):
        plan_bundle(failed, [trainer], Change(add=(keys.consumer_pub,)), keys.signing)
    new = new_identity(role="trainer")
    change = Change(remove=frozenset({auditor.key_id}), replace=((trainer.key_id, new.recipient),))
    plan_bundle(failed, [trainer], change, keys.signing).write()
    found = check(failed)
    assert (found.ok, found.verdict) == (True, "FAIL")
    assert found.manifest["recipients"] == {"keep": [new.key_id], "consumers": []}
    load_released(failed, identity=new, trusted_keys=keys.trusted)
    assert not any(opens(failed, one) for one in (trainer, auditor, keys.consumer))


@pytest.mark.parametrize("verdict", rest_in_full(["bundle", "failed"], ["bundle"]))
def test_entries_that_somebody_put_in_are_not_signed(
    request, check, keys, trainer, auditor, verdict
):
    """An auditor has the data key and can wrap it for anybody; it shows, and stays so."""
    folder, stranger = request.getfixturevalue(verdict), new_identity()
    listed = SealedFolder.open(folder / "model", [auditor])
    signed = (folder / RECIPIENTS).read_bytes()
    consumers = [keys.consumer_pub] if verdict == "bundle" else []
    listed.rewrap([*keys.keep, *consumers, stranger.recipient])
    assert [finding.file for finding in check(folder).findings] == [RECIPIENTS]
    with pytest.raises(IntegrityError):
        load_released(folder, identity=stranger, trusted_keys=keys.trusted)
    for change in (
        Change(add=(new_identity().recipient,)),
        Change(remove=frozenset({auditor.key_id})),
        replaced(trainer, stranger),
    ):
        with pytest.raises(UserError, match="not what was signed"):
            plan_bundle(folder, [trainer], change, keys.signing)
    # Taking the stranger out again leaves those that were signed.
    change = Change(remove=frozenset({stranger.key_id}))
    plan_bundle(folder, [trainer], change, keys.signing).write()
    assert (folder / RECIPIENTS).read_bytes() != signed
    assert check(folder).ok
    assert not opens(folder, stranger)


def test_a_verdict_edited_for_the_rotation_is_not_signed(failed, keys, auditor):
    envelope = json.loads((failed / MANIFEST).read_bytes())
    payload = manifest_of(failed)
    payload["predicate"]["verdict"] = "PASS"
    envelope["payload"] = base64.b64encode(canonical_json(payload)).decode()
    (failed / MANIFEST).write_bytes(canonical_json(envelope))
    with pytest.raises(UserError, match="did not sign"):
        plan_bundle(failed, [auditor], Change(add=(keys.consumer_pub,)), keys.signing)


@pytest.mark.parametrize("verdict", rest_in_full(["bundle", "failed"], ["bundle"]))
@pytest.mark.parametrize("kind", ["add", "remove", "replace"])
def test_a_kill_between_the_two_files_is_mended_by_the_same_command(
    request, check, keys, trainer, auditor, verdict, kind, monkeypatch
):
    folder, new = request.getfixturevalue(verdict), new_identity()
    change = {
        "add": Change(add=(new.recipient,)),
        "remove": Change(remove=frozenset({auditor.key_id})),
        "replace": replaced(trainer, new),
    }[kind]
    whole, real = (folder / RECIPIENTS).read_bytes(), os.replace

    def dying(source, target):
        if Path(target).name == "recipients.json":
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as dies:
        dies.setattr(os, "replace", dying)
        for _ in range(2):  # killed, and killed again
            with pytest.raises(KeyboardInterrupt):
                plan_bundle(folder, [trainer], change, keys.signing).write()
    assert (folder / RECIPIENTS).read_bytes() == whole
    assert [finding.file for finding in check(folder).findings] == [RECIPIENTS]
    with pytest.raises(UserError, match="its signature covers"):
        plan_bundle(folder, [trainer], change)
    another = Change(add=(new_identity().recipient,))
    with pytest.raises(UserError, match="repeat the rotation that was killed"):
        plan_bundle(folder, [trainer], another, keys.signing)
    plan_bundle(folder, [trainer], change, keys.signing).write()
    assert check(folder).ok
    assert opens(folder, trainer) == (kind != "replace")
    assert opens(folder, auditor) == (kind != "remove")
    assert opens(folder, new) == (kind != "remove")


def test_what_is_no_bundle_is_refused(bundle, trainer):
    whole = json.loads((bundle / MANIFEST).read_bytes())
    payload = manifest_of(bundle)
    predicate = payload["predicate"]
    values: list[object] = [
        b"",
        b"[]",
        b"[" * 100_000,
        {**whole, "payload": "%"},
        *(
            {**whole, "payload": base64.b64encode(canonical_json(part)).decode()}
            for part in (
                [],
                {**payload, "subject": 1},
                {**payload, "predicate": {**predicate, "files": []}},
                {**payload, "predicate": {**predicate, "recipients": {"keep": []}}},
            )
        ),
    ]
    for value in values:
        data = canonical_json(value) if isinstance(value, Mapping) else value
        (bundle / MANIFEST).write_bytes(data)
        with pytest.raises(UserError, match="no manifest of a bundle"):
            plan_bundle(bundle, [trainer], Change())
    (bundle / MANIFEST).unlink()
    with pytest.raises(UserError, match="no manifest of a bundle"):
        plan_bundle(bundle, [trainer], Change())
