"""Key files, recipients and signatures."""

import base64
import json
import os
from pathlib import Path

import pytest

from dpmlm.artifacts import (
    CLASSICAL,
    HYBRID,
    Identity,
    IntegrityError,
    UserError,
    canonical_json,
    create_keys,
    load_identity,
    load_recipient,
    load_secret_key,
    load_signing_key,
    load_trusted_keys,
    load_verify_key,
    new_identity,
    new_secret_key,
    new_signing_key,
    save_identity,
    save_recipient,
    save_secret_key,
    save_signing_key,
    save_verify_key,
)
from dpmlm.artifacts import passphrase as phrases
from dpmlm.artifacts.recipients import MAX_RECIPIENTS, WrappedKey

KEY = bytes(range(32))
ROLES = ("trainer", "auditor", "consumer")
CONTEXT = b"tests/recipients"


@pytest.mark.parametrize(("kem", "length"), [(HYBRID, 1168), (CLASSICAL, 80)])
def test_wrapped_key_lengths_and_binding(kem: str, length: int) -> None:
    identity, other = new_identity(kem), new_identity(kem)
    wrapped = identity.recipient.wrap(KEY, info=b"one")
    assert len(wrapped) == length
    assert identity.unwrap(wrapped, info=b"one") == KEY
    assert identity.unwrap(wrapped, info=b"two") is None
    assert other.unwrap(wrapped, info=b"one") is None


def test_private_parts_are_not_printed() -> None:
    identity, signing = new_identity(CLASSICAL), new_signing_key()
    assert repr(identity.private) not in repr(identity)
    assert repr(signing.private) not in repr(signing)


def test_unknown_kem() -> None:
    with pytest.raises(ValueError, match="known"):
        new_identity("RSA")


def test_create_keys(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    written = create_keys(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in written)
    assert names == sorted(
        [
            *(f"{role}.{end}" for role in ROLES for end in ("key", "pub")),
            "auditor-sign.key",
            "auditor-sign.pub",
            "sign.key",
            "sign.pub",
            "pseudonym.key",
            "trusted/auditor/auditor-sign.pub",
            "trusted/sign.pub",
        ]
    )
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert on_disk == set(names)
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.key")} == {0o600}
    for role in ROLES:
        identity = load_identity(folder / f"{role}.key")
        assert identity.kem == HYBRID
        assert identity.recipient == load_recipient(folder / f"{role}.pub")
    signing = load_signing_key(folder / "sign.key")
    assert load_trusted_keys(folder / "trusted") == {signing.key_id: signing.verify_key}
    auditors = load_signing_key(folder / "auditor-sign.key")
    assert list(load_trusted_keys(folder / "trusted/auditor")) == [auditors.key_id]
    assert load_verify_key(folder / "sign.pub") == signing.verify_key
    assert len(load_secret_key(folder / "pseudonym.key")) == 32


def test_create_keys_refuses_to_overwrite_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "sign.pub").write_text("mine")
    with pytest.raises(UserError, match="never overwritten"):
        create_keys(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["sign.pub"]


def dying_at(dies: pytest.MonkeyPatch, name: str) -> None:
    """The rename of `name` to its place is what does not happen any more."""
    real = os.replace

    def dying(source: Path, target: Path) -> None:
        if target.name == name:
            raise KeyboardInterrupt
        real(source, target)

    dies.setattr(os, "replace", dying)


@pytest.mark.parametrize("last", [".drawn", "trainer.key", "auditor.pub", "consumer.pub"])
def test_killed_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    with monkeypatch.context() as dies:
        dying_at(dies, last)
        with pytest.raises(KeyboardInterrupt):
            create_keys(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.*") if path.is_file()}
    written = create_keys(tmp_path)
    assert len(written) == 13
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    before.pop(".drawn", None)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    for role in ROLES:
        public = load_recipient(tmp_path / f"{role}.pub")
        assert load_identity(tmp_path / f"{role}.key").recipient == public
    assert list(load_trusted_keys(tmp_path / "trusted")) == [
        load_signing_key(tmp_path / "sign.key").key_id
    ]
    with pytest.raises(UserError, match="never overwritten"):
        create_keys(tmp_path)


def test_killed_another_call_is_told_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path, passphrase: str | None) -> None:
        with monkeypatch.context() as dies:
            dying_at(dies, "consumer.pub")
            with pytest.raises(KeyboardInterrupt):
                create_keys(folder, roles=["consumer"], passphrase=passphrase)

    monkeypatch.setattr(phrases, "COST", {"m": 64, "t": 1, "p": 1})
    first, second = "four random words here", "four other words there"
    killed(tmp_path / "plain", None)
    with pytest.raises(UserError, match="never overwritten"):
        create_keys(tmp_path / "plain", roles=["consumer"], passphrase=first)
    load_identity(tmp_path / "plain/consumer.key")
    killed(tmp_path / "sealed", first)
    with pytest.raises(UserError, match="does not open it"):
        create_keys(tmp_path / "sealed", roles=["consumer"], passphrase=second)
    load_identity(tmp_path / "sealed/consumer.key", passphrase=first)
    killed(tmp_path / "more", first)
    written = create_keys(tmp_path / "more", roles=["approver"])
    assert [path.name for path in written] == ["approver.key", "approver.pub"]
    assert (tmp_path / "more/consumer.pub").is_file()
    assert not (tmp_path / "more/.drawn").exists()


def test_what_lies_in_the_place_of_drawn_keys_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phrases, "COST", {"m": 64, "t": 1, "p": 1})
    drawn = tmp_path / ".drawn"
    for text in ("", "{", "[]x", "7", '{"../a.key": {}}', '{"a/b.key": {}}', '{"/tmp/a.key": {}}'):
        drawn.write_text(text)
        drawn.chmod(0o600)
        with pytest.raises(UserError, match="not what"):
            create_keys(tmp_path, roles=["consumer"])
    drawn.chmod(0o644)
    with pytest.raises(UserError, match="mode 0644"):
        create_keys(tmp_path, roles=["consumer"])
    drawn.unlink()
    create_keys(tmp_path, roles=[*ROLES, "approver"], passphrase="four random words here")


def test_files_round_trip(tmp_path: Path) -> None:
    for kem in (HYBRID, CLASSICAL):
        identity = new_identity(kem)
        save_identity(tmp_path / f"{kem}.key", identity)
        save_recipient(tmp_path / f"{kem}.pub", identity.recipient)
        assert load_identity(tmp_path / f"{kem}.key") == identity
        assert load_recipient(tmp_path / f"{kem}.pub").key_id == identity.key_id
    secret, signing = new_secret_key(), new_signing_key()
    save_secret_key(tmp_path / "secret.key", secret)
    save_signing_key(tmp_path / "sign.key", signing)
    save_verify_key(tmp_path / "sign.pub", signing.verify_key)
    assert load_secret_key(tmp_path / "secret.key") == secret
    assert load_signing_key(tmp_path / "sign.key") == signing
    assert load_verify_key(tmp_path / "sign.pub").key_id == signing.key_id
    with pytest.raises(UserError, match="never overwritten"):
        save_secret_key(tmp_path / "secret.key", secret)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o700])
def test_private_files_wider_than_0600_are_refused(tmp_path: Path, mode: int) -> None:
    create_keys(tmp_path)
    loaders = {
        "trainer.key": load_identity,
        "sign.key": load_signing_key,
        "pseudonym.key": load_secret_key,
    }
    for name, load in loaders.items():
        (tmp_path / name).chmod(mode)
        with pytest.raises(UserError, match=rf"mode 0{mode:o}.*0600.*chmod 600"):
            load(tmp_path / name)
        (tmp_path / name).chmod(0o400)
        load(tmp_path / name)


def test_bad_key_files_are_named(tmp_path: Path) -> None:
    create_keys(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        load_identity(tmp_path / "absent.key")
    with pytest.raises(UserError, match=r"is a dpmlm.recipient/1 file, not a dpmlm.verify-key/1"):
        load_verify_key(tmp_path / "trainer.pub")
    with pytest.raises(UserError, match=r"is a dpmlm.signing-key/2 file, not a dpmlm.identity/2"):
        load_identity(tmp_path / "sign.key")
    whole = (tmp_path / "trainer.pub").read_text()
    fields = json.loads(whole)
    no_key = json.dumps({**fields, "key": "AAAA"})
    not_a_key = json.dumps({**fields, "key": base64.b64encode(b"\xff" * 1216).decode()})
    for content in ("", "text", "[]", "{}", "null", whole[:-20], no_key, not_a_key):
        (tmp_path / "bad.pub").write_text(content)
        with pytest.raises(UserError, match=r"not a whole dpmlm\.recipient/1 file"):
            load_recipient(tmp_path / "bad.pub")
    (tmp_path / "bad.pub").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not a whole"):
        load_recipient(tmp_path / "bad.pub")


def test_keys_of_another_length_are_refused(tmp_path: Path) -> None:
    create_keys(tmp_path)
    loaders = {
        "trainer.key": load_identity,
        "sign.key": load_signing_key,
        "sign.pub": load_verify_key,
        "pseudonym.key": load_secret_key,
    }
    for name, load in loaders.items():
        fields = json.loads((tmp_path / name).read_text())
        for cut in (0, 31, 33):
            key = base64.b64encode(bytes(cut)).decode()
            (tmp_path / name).write_text(json.dumps({**fields, "key": key}))
            with pytest.raises(UserError, match=rf"{name}: it is not a whole"):
                load(tmp_path / name)


def test_trusted_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"folder of \.pub files"):
        load_trusted_keys(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no \.pub file"):
        load_trusted_keys(tmp_path)
    save_recipient(tmp_path / "a.pub", new_identity(CLASSICAL).recipient)
    with pytest.raises(UserError, match=r"a\.pub.*not a dpmlm.verify-key"):
        load_trusted_keys(tmp_path)


def test_signatures() -> None:
    key, stranger = new_signing_key(), new_signing_key()
    signature = key.sign(b"data")
    assert key.verify_key.verify(signature, b"data")
    assert not key.verify_key.verify(signature, b"date")
    assert not stranger.verify_key.verify(signature, b"data")
    assert not key.verify_key.verify(signature[:-1], b"data")
    assert key.key_id != stranger.key_id
    assert len(key.key_id) == 16


def wrapped_for(*kems: str) -> tuple[list[Identity], bytes]:
    identities = [new_identity(kem) for kem in kems]
    recipients = [identity.recipient for identity in identities]
    wrapped = WrappedKey.wrap(KEY, recipients, label="file", context=CONTEXT)
    return identities, wrapped.to_bytes()


def unwrap(data: bytes, identities: list[Identity], context: bytes = CONTEXT) -> bytes:
    return WrappedKey.parse(data, name="r.json").unwrap(identities, context=context, name="r.json")


def test_every_recipient_unwraps() -> None:
    identities, data = wrapped_for(HYBRID, HYBRID, HYBRID)
    for identity in identities:
        assert unwrap(data, [identity]) == KEY
    assert unwrap(data, [new_identity(), new_identity(CLASSICAL), identities[2]]) == KEY


def test_strangers_do_not_unwrap() -> None:
    _, data = wrapped_for(HYBRID)
    for identities in ([], [new_identity()], [new_identity(CLASSICAL)]):
        with pytest.raises(UserError, match="use the identity file of a recipient"):
            unwrap(data, identities)


def test_other_context_is_an_integrity_error() -> None:
    identities, data = wrapped_for(CLASSICAL)
    with pytest.raises(IntegrityError, match="another context"):
        unwrap(data, identities, b"tests/other")


def test_mixed_kinds_are_refused() -> None:
    recipients = [new_identity(HYBRID).recipient, new_identity(CLASSICAL).recipient]
    with pytest.raises(UserError, match="not mixed"):
        WrappedKey.wrap(KEY, recipients, label="file", context=CONTEXT)
    _, hybrid = wrapped_for(HYBRID)
    _, classical = wrapped_for(CLASSICAL)
    mixed = json.loads(hybrid)
    mixed["recipients"] += json.loads(classical)["recipients"]
    with pytest.raises(IntegrityError, match="entry 1"):
        WrappedKey.parse(json.dumps(mixed).encode(), name="r.json")


def test_number_of_recipients() -> None:
    with pytest.raises(UserError, match="0 recipients"):
        WrappedKey.wrap(KEY, [], label="file", context=CONTEXT)
    many = [new_identity(CLASSICAL).recipient for _ in range(MAX_RECIPIENTS + 1)]
    with pytest.raises(UserError, match="65 recipients"):
        WrappedKey.wrap(KEY, many, label="file", context=CONTEXT)
    whole = WrappedKey.wrap(KEY, many[:-1] + many[:3], label="file", context=CONTEXT)
    assert len(WrappedKey.parse(whole.to_bytes(), name="r.json").entries) == MAX_RECIPIENTS


def test_cap_is_checked_before_any_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data = wrapped_for(CLASSICAL)
    fields = json.loads(data)
    fields["recipients"] *= MAX_RECIPIENTS + 1
    monkeypatch.setattr("dpmlm.artifacts.identities._SUITES", None)
    monkeypatch.setattr("dpmlm.artifacts.recipients.HKDFExpand", None)
    with pytest.raises(IntegrityError, match="65 recipients"):
        WrappedKey.parse(json.dumps(fields).encode(), name="r.json")
    with pytest.raises(IntegrityError, match="at most 262144 bytes"):
        WrappedKey.parse(bytes(300_000), name="r.json")


def test_mac_covers_entries_and_label() -> None:
    identities, data = wrapped_for(CLASSICAL, CLASSICAL)
    stranger = new_identity(CLASSICAL).recipient
    info = b"dpmlm recipients/1\x00" + CONTEXT
    added = json.loads(data)
    added["recipients"].append(
        {
            "key_id": stranger.key_id,
            "wrapped": base64.b64encode(stranger.wrap(KEY, info=info)).decode(),
        }
    )
    dropped = json.loads(data)
    del dropped["recipients"][1]
    swapped = json.loads(data)
    swapped["recipients"].reverse()
    renamed = {**json.loads(data), "label": "other"}
    for fields in (added, dropped, swapped, renamed):
        with pytest.raises(IntegrityError, match="MAC"):
            unwrap(canonical_json(fields) + b"\n", [identities[0]])


def test_every_byte_of_the_recipients_file_counts() -> None:
    identities, data = wrapped_for(CLASSICAL, CLASSICAL)
    for offset in range(len(data)):
        for flip in (1, 0x20):
            changed = bytearray(data)
            changed[offset] ^= flip
            # Damage in the reader's own entry cannot be told from an entry for somebody else.
            with pytest.raises(UserError, match=r"r\.json"):
                unwrap(bytes(changed), [identities[0]])
    for respelled in (data + b"\n", b" " + data, data[:-1]):
        with pytest.raises(IntegrityError, match=r"r\.json"):
            unwrap(respelled, [identities[0]])
