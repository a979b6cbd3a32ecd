"""Key files under a passphrase, and where keys may be kept besides files."""

import base64
import io
import json
import os
from pathlib import Path

import pytest

from dpmlm.artifacts import (
    CLASSICAL,
    UserError,
    create_keys,
    load_identity,
    load_recipient,
    load_secret_key,
    load_signing_key,
    new_identity,
    save_identity,
)
from dpmlm.artifacts import passphrase as module
from dpmlm.artifacts.keyring import describe_folder, describe_key
from dpmlm.artifacts.keys import read_key_file
from dpmlm.artifacts.passphrase import FILE_VARIABLE, new_passphrase
from dpmlm.config import load_config

VECTOR = json.loads((Path(__file__).parents[1] / "formats/keys/argon2id.json").read_text())
PHRASE = "four random words here"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Argon2id at a cost that tests can pay, and a process that remembers nothing."""
    monkeypatch.setattr(module, "COST", {"m": 64, "t": 1, "p": 1})
    monkeypatch.setattr(module, "_opened", {})
    monkeypatch.setattr(module, "_last", "")
    monkeypatch.delenv(FILE_VARIABLE, raising=False)


@pytest.fixture
def given(tmp_path, monkeypatch):
    """A function that names a passphrase file."""

    def give(content: bytes, mode: int = 0o600) -> Path:
        path = tmp_path / "phrase"
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        monkeypatch.setenv(FILE_VARIABLE, str(path))
        return path

    return give


def write(path: Path, fields: dict) -> Path:
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(fields))
    path.chmod(0o600)
    return path


def test_a_file_that_another_argon2_made_opens(tmp_path):
    path = write(tmp_path / "a.key", VECTOR["file"])
    identity = load_identity(path, passphrase=VECTOR["passphrase"])
    assert identity.private.hex() == VECTOR["private"]
    decomposed = "Gru\u0308ne A\u0308pfel und 7 Birnen"  # typed on another keyboard
    assert load_identity(path, passphrase=decomposed) == identity
    with pytest.raises(UserError, match="passphrase does not open it"):
        load_identity(path, passphrase=VECTOR["passphrase"] + " ")


def test_the_cost_that_is_written_is_that_of_the_rfc(monkeypatch):
    monkeypatch.undo()
    assert module.COST == {"m": 64 * 1024, "t": 3, "p": 4}


def test_every_private_file_is_protected_and_listed_without_the_passphrase(tmp_path, given):
    create_keys(tmp_path / "keys", passphrase=PHRASE)
    plain = create_keys(tmp_path / "plain")
    assert b'"key":' not in b"".join(p.read_bytes() for p in (tmp_path / "keys").glob("*.key"))
    listed = describe_folder(tmp_path / "keys")
    assert len(listed) == len(plain)
    assert {key.passphrase for key in listed if key.where.endswith(".key")} == {True}
    assert not any(key.problem for key in listed)
    given(PHRASE.encode() + b"\n")
    identity = load_identity(tmp_path / "keys/trainer.key")
    assert identity.role == "trainer"
    assert identity.recipient == load_recipient(tmp_path / "keys/trainer.pub")
    signing = load_signing_key(tmp_path / "keys/sign.key")
    assert len(load_secret_key(tmp_path / "keys/pseudonym.key")) == 32
    ids = {Path(key.where).name: key.key_id for key in listed}
    assert ids["trainer.key"] == ids["trainer.pub"] == identity.key_id
    assert ids["sign.key"] == ids["sign.pub"] == signing.key_id
    shown = json.dumps([key.to_json() for key in [*listed, *describe_folder(tmp_path / "plain")]])
    for private in (identity.private, load_secret_key(tmp_path / "plain/pseudonym.key")):
        assert base64.b64encode(private).decode() not in shown


def test_a_wrong_passphrase_and_a_changed_file_say_the_same(tmp_path):
    identity = new_identity(CLASSICAL, "auditor")
    save_identity(tmp_path / "a.key", identity, passphrase=PHRASE)
    fields = json.loads((tmp_path / "a.key").read_text())
    assert load_identity(tmp_path / "a.key", passphrase=PHRASE) == identity
    sealed = bytearray(base64.b64decode(fields["sealed"]))
    sealed[-1] ^= 1
    changes = [
        {"role": "trainer"},
        {"kem": "MLKEM768_X25519"},
        {"key_id": "0" * 16},
        {"created": "2020-01-01T00:00:00+00:00"},
        {"more": 1},
        {"sealed": base64.b64encode(sealed).decode()},
        {"argon2id": {**fields["argon2id"], "t": 2}},
        {"argon2id": {**fields["argon2id"], "salt": base64.b64encode(bytes(16)).decode()}},
    ]
    told = set()
    for change in changes:
        write(tmp_path / "b.key", {**fields, **change})
        with pytest.raises(UserError) as caught:
            load_identity(tmp_path / "b.key", passphrase=PHRASE)
        told.add(caught.value.rule)
    with pytest.raises(UserError) as caught:
        load_identity(tmp_path / "a.key", passphrase="another passphrase")
    assert told == {caught.value.rule}


def test_a_file_cannot_ask_for_all_the_memory(tmp_path, monkeypatch):
    save_identity(tmp_path / "a.key", new_identity(CLASSICAL), passphrase=PHRASE)
    fields = json.loads((tmp_path / "a.key").read_text())

    def derive(**_cost):
        raise AssertionError("it was derived")

    monkeypatch.setattr(module, "Argon2id", derive)
    with pytest.raises(AssertionError, match="derived"):
        load_identity(tmp_path / "a.key", passphrase=PHRASE)
    for cost in (
        {"m": (1 << 20) + 1}, {"m": 0}, {"m": 7}, {"m": "64"}, {"m": True}, {"m": 64.0}, {"t": 11},
        {"t": 0}, {"t": -1}, {"p": 17}, {"p": 0}, {"p": 9}, {"salt": "AAAA"}, {"salt": "%"},
        {"x": 1},
    ):  # fmt: skip
        write(tmp_path / "b.key", {**fields, "argon2id": {**fields["argon2id"], **cost}})
        with pytest.raises(UserError, match=r"not a whole dpmlm\.identity/2"):
            load_identity(tmp_path / "b.key", passphrase=PHRASE)
    for lacking in ("argon2id", "format"):
        write(tmp_path / "b.key", {k: v for k, v in fields.items() if k != lacking})
        with pytest.raises(UserError, match="not a whole"):
            load_identity(tmp_path / "b.key", passphrase=PHRASE)


@pytest.mark.parametrize("phrase", ["", "short", "elevenchars"])
def test_a_short_passphrase_is_refused(tmp_path, phrase):
    with pytest.raises(UserError, match="at least 12"):
        create_keys(tmp_path / "keys", passphrase=phrase)
    assert not list(tmp_path.rglob("*.key"))


def test_passphrase_files(tmp_path, given):
    save_identity(tmp_path / "a.key", new_identity(CLASSICAL), passphrase=PHRASE)
    for content, mode, told in (
        (b"", 0o600, "one line"),
        (b"\n", 0o600, "one line"),
        (b"one\ntwo", 0o600, "one line"),
        (b"\xff\xfe", 0o600, "UTF-8"),
        (PHRASE.encode(), 0o644, "chmod 600"),
        (b"another passphrase", 0o600, "does not open it"),
    ):
        given(content, mode)
        with pytest.raises(UserError, match=told):
            load_identity(tmp_path / "a.key")
    given(PHRASE.encode() + b"\r\n").unlink()
    with pytest.raises(UserError, match="No such file"):
        load_identity(tmp_path / "a.key")
    given(PHRASE.encode() + b"\r\n")
    load_identity(tmp_path / "a.key")


def test_it_is_asked_for_on_a_terminal_alone_and_once(tmp_path, monkeypatch):
    for name in ("a.key", "b.key"):
        save_identity(tmp_path / name, new_identity(CLASSICAL), passphrase=PHRASE)
    monkeypatch.setattr("sys.stdin", io.StringIO(PHRASE + "\n"))
    with pytest.raises(UserError, match=FILE_VARIABLE):
        load_identity(tmp_path / "a.key")
    asked = []

    def typed(prompt: str) -> str:
        asked.append(prompt)
        return PHRASE

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", typed)
    first = load_identity(tmp_path / "a.key")
    load_identity(tmp_path / "b.key")
    assert load_identity(tmp_path / "a.key") == first
    assert asked == [f"Passphrase of {tmp_path / 'a.key'}: "]
    assert new_passphrase() == PHRASE
    assert len(asked) == 3
    replies = iter(("one passphrase here", "another passphrase"))
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(replies))
    with pytest.raises(UserError, match="differ"):
        new_passphrase()


def test_files_of_the_first_format_stay_readable(tmp_path):
    identity = new_identity()
    old = {
        "format": "dpmlm.identity/1",
        "kem": identity.kem,
        "key": base64.b64encode(identity.private).decode(),
    }
    path = write(tmp_path / "old.key", old)
    assert load_identity(path) == identity
    assert describe_key(path).key_id == identity.key_id
    assert old["key"] not in repr(read_key_file(path))
    write(path, {**old, "format": "dpmlm.identity/3"})
    with pytest.raises(UserError, match="not a whole"):
        load_identity(path)


def test_a_file_that_holds_another_key_than_it_says_is_refused(tmp_path):
    identity, other = new_identity(CLASSICAL), new_identity(CLASSICAL)
    save_identity(tmp_path / "a.key", identity)
    fields = json.loads((tmp_path / "a.key").read_text())
    write(tmp_path / "a.key", {**fields, "key": base64.b64encode(other.private).decode()})
    with pytest.raises(UserError, match=f"says it is key {identity.key_id}"):
        load_identity(tmp_path / "a.key")


def test_keys_of_the_environment(tmp_path, monkeypatch):
    create_keys(tmp_path / "keys")
    for name in ("trainer.key", "sign.key", "pseudonym.key", "trainer.pub"):
        variable = name.replace(".", "_").upper()
        monkeypatch.setenv(variable, (tmp_path / "keys" / name).read_text())
    identity = load_identity("env:TRAINER_KEY")
    assert identity == load_identity(tmp_path / "keys/trainer.key")
    assert load_recipient(Path("env:TRAINER_PUB")) == identity.recipient
    load_signing_key("env:SIGN_KEY")
    load_secret_key("env:PSEUDONYM_KEY")
    for name, told in (("NONE_SUCH", "no such variable"), ("SIGN_KEY", "signing-key/2 file")):
        with pytest.raises(UserError, match=told):
            load_identity(f"env:{name}")
    monkeypatch.setenv("BROKEN", "{")
    with pytest.raises(UserError, match="env:BROKEN: it is not a whole"):
        load_identity("env:BROKEN")
    with pytest.raises(UserError, match="signs or makes pseudonyms"):
        load_signing_key("kms:arn:aws:kms:eu-west-1:123456789012:key/a")


def test_a_run_file_may_name_variables(small, monkeypatch):
    text = (small / "run.yaml").read_text()
    (small / "run.yaml").write_text(text.replace("keys/trainer.key", "env:TRAINER"))
    config = load_config(small / "run.yaml", {"release.recipients": ["env:A", "keys/b.pub"]})
    assert str(config.keys.identity) == "env:TRAINER"
    assert str(config.release.recipients[0]) == "env:A"
    assert config.release.recipients[1].is_absolute()


def test_who_else_could_swap_a_private_file(tmp_path, monkeypatch):
    folder = tmp_path / "keys"
    create_keys(folder)
    (tmp_path / "link.key").symlink_to(folder / "trainer.key")
    load_identity(tmp_path / "link.key")
    (folder / "trainer.key").chmod(0o640)
    with pytest.raises(UserError, match="mode 0640"):
        load_identity(tmp_path / "link.key")
    (folder / "trainer.key").chmod(0o600)
    folder.chmod(0o777)
    with pytest.raises(UserError, match=r"mode 0777.*chmod 700"):
        load_identity(folder / "trainer.key")
    load_recipient(folder / "trainer.pub")
    folder.chmod(0o1777)
    load_identity(folder / "trainer.key")
    folder.chmod(0o700)
    owner = os.stat(folder / "trainer.key").st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(UserError, match=f"belongs to user {owner}, not {owner + 1}"):
        load_identity(folder / "trainer.key")


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path):
    create_keys(tmp_path, roles=["consumer", "approver", "trainer"])
    for name in ("consumer.key", "pseudonym.key"):
        (tmp_path / name).chmod(0o644)
    (tmp_path / "text.pub").write_text("text")
    listed = {Path(key.where).name: key for key in describe_folder(tmp_path)}
    assert "0600" in str(listed["consumer.key"].problem)
    assert "0600" in str(listed["pseudonym.key"].problem)
    assert "not a whole" in str(listed["text.pub"].problem)
    assert listed["approver.key"].kind == "signing-key"
    assert (listed["approver.key"].role, listed["approver.key"].problem) == ("approver", None)
    assert "REFUSED" in listed["consumer.key"].row()
    with pytest.raises(UserError, match="no such folder"):
        describe_folder(tmp_path / "none")
