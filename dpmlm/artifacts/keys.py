"""Key files: one key each, one line of JSON; private ones readable by their owner alone.

    private   {"format", "role", "created", "key_id", "key"}, identities also "kem"; under a
              passphrase "argon2id" and "sealed" stand in the place of "key"
    public    {"format", "role", "key"}, recipients also "kem"

Files of format 1, as earlier versions wrote them, have format, kem and key alone.

What `create_keys` draws lies in one file, `.drawn` (mode 0600), until every key has its own: after
a kill the same call goes on with the same keys.
"""

import base64
import binascii
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpmlm.artifacts.atomic import atomic_write, sync_folder
from dpmlm.artifacts.identities import (
    HYBRID,
    KMS,
    PRIVATE_BYTES,
    PUBLIC_BYTES,
    Identity,
    Recipient,
    new_identity,
)
from dpmlm.artifacts.kms import is_arn
from dpmlm.artifacts.passphrase import protect, reveal
from dpmlm.artifacts.providers import kms_arn, read_key, read_private
from dpmlm.artifacts.signing import SIGNING_KEY_BYTES, SigningKey, VerifyKey, new_signing_key
from dpmlm.canonical import canonical_json
from dpmlm.errors import UserError

SECRET_KEY_BYTES = 32
ROLES = ("trainer", "auditor", "consumer")
"""Whose keys `create_keys` draws unless told otherwise."""
IDENTITY = "dpmlm.identity"
RECIPIENT = "dpmlm.recipient"
SIGNING = "dpmlm.signing-key"
VERIFY = "dpmlm.verify-key"
SECRET = "dpmlm.secret-key"
_VERSIONS = {IDENTITY: 2, SIGNING: 2, SECRET: 2, RECIPIENT: 1, VERIFY: 1}
_PRIVATE = {IDENTITY, SIGNING, SECRET}
_DRAWN = ".drawn"
_NAME = re.compile(r"(trusted/(auditor/)?)?[a-z-]+\.(key|pub)")
_SIZES = {
    IDENTITY: PRIVATE_BYTES,
    RECIPIENT: PUBLIC_BYTES,
    SIGNING: {"": SIGNING_KEY_BYTES},
    VERIFY: {"": SIGNING_KEY_BYTES},
    SECRET: {"": SECRET_KEY_BYTES},
}


def new_secret_key() -> bytes:
    """32 bytes from the operating system, for keyed hashes such as pseudonyms."""
    return secrets.token_bytes(SECRET_KEY_BYTES)


def save_identity(path: Path, identity: Identity, *, passphrase: str | None = None) -> None:
    """Write a private identity, mode 0600; refuses to overwrite."""
    _save(path, _fields(identity, identity.role, passphrase))


def save_recipient(path: Path, recipient: Recipient) -> None:
    """Write a recipient's public key; refuses to overwrite."""
    _save(path, _fields(recipient, recipient.role))


def save_signing_key(
    path: Path, key: SigningKey, *, role: str = "", passphrase: str | None = None
) -> None:
    """Write a private signing key, mode 0600; refuses to overwrite."""
    _save(path, _fields(key, role, passphrase))


def save_verify_key(path: Path, key: VerifyKey, *, role: str = "") -> None:
    """Write the public half of a signing key; refuses to overwrite."""
    _save(path, _fields(key, role))


def save_secret_key(path: Path, key: bytes, *, passphrase: str | None = None) -> None:
    """Write a 32-byte secret, mode 0600; refuses to overwrite."""
    _save(path, _fields(key, "", passphrase))


def load_identity(where: Path | str, *, passphrase: str | None = None) -> Identity:
    """The identity of a file, of `env:NAME`, or a key that stays in KMS, `kms:ARN`.

    Raises UserError if it is missing, no identity, wider than mode 0600, or another passphrase's.
    """
    if arn := kms_arn(where):
        return Identity(KMS, arn.encode())
    found = _load(where, IDENTITY, passphrase)
    identity = Identity(found.kem, found.key, found.role)
    _check_key_id(found, identity.key_id)
    return identity


def load_recipient(where: Path | str) -> Recipient:
    """Read a recipient's public key: a file, `env:NAME`, or a KMS key, `kms:ARN`."""
    if arn := kms_arn(where):
        return Recipient(KMS, arn.encode())
    found = _load(where, RECIPIENT)
    recipient = Recipient(found.kem, found.key, found.role)
    try:
        if found.kem != KMS:
            recipient.wrap(bytes(32), info=b"")
    except ValueError:
        raise _unusable(where, RECIPIENT) from None
    return recipient


def load_signing_key(where: Path | str, *, passphrase: str | None = None) -> SigningKey:
    """Read a signing key, of a file or `env:NAME`; UserError if it is wider than mode 0600."""
    found = _load(where, SIGNING, passphrase)
    key = SigningKey(found.key)
    _check_key_id(found, key.key_id)
    return key


def load_verify_key(where: Path | str) -> VerifyKey:
    """Read the public half of a signing key."""
    return VerifyKey(_load(where, VERIFY).key)


def load_secret_key(where: Path | str, *, passphrase: str | None = None) -> bytes:
    """Read a 32-byte secret; UserError if the file is wider than mode 0600."""
    return _load(where, SECRET, passphrase).key


def load_trusted_keys(folder: Path) -> dict[str, VerifyKey]:
    """Every `*.pub` verify key of a folder, by key id; UserError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            str(folder), "trusted keys are a folder of .pub files", "name the folder that has them"
        )
    keys = [load_verify_key(path) for path in sorted(folder.glob("*.pub"))]
    if not keys:
        raise UserError(
            str(folder), "it holds no .pub file", "put the signer's public key (sign.pub) there"
        )
    return {key.key_id: key for key in keys}


def create_keys(
    folder: Path,
    *,
    roles: Iterable[str] = ROLES,
    kem: str = HYBRID,
    passphrase: str | None = None,
) -> list[Path]:
    """Draw the keys of some roles and write them under `folder`; returns what was written.

    trainer: an identity, a signing key (sign.key, its public half also in `trusted/`) and the
    secret of pseudonyms; auditor: an identity and a signing key (its public half also in
    `trusted/auditor/`); consumer: an identity; approver: a signing key, as an approver opens
    nothing. `passphrase` protects the private files. Refuses
    to replace any existing file, and then writes nothing. The same call after a kill writes what
    was drawn before it.
    """
    folder = Path(folder)
    drawn = [pair for role in dict.fromkeys(roles) for pair in _drawn(role, kem)]
    names = [name for name, _, _ in drawn]
    if not _asked_for(names, passphrase, _write_drawn(folder)):
        for name in names:
            _refuse_existing(folder / name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = {name: _fields(key, role, passphrase) for name, key, role in drawn}
        with atomic_write(folder / _DRAWN, mode=0o600) as file:
            file.write(canonical_json(files))
        _write_drawn(folder)
    return sorted((folder / name for name in names), key=lambda path: path.suffix)


def _write_drawn(folder: Path) -> dict[str, dict[str, Any]]:
    """Give each key that was drawn its file; returns what was drawn, nothing where nothing was."""
    drawn = folder / _DRAWN
    if not drawn.exists():
        return {}
    try:
        files: dict[str, dict[str, Any]] = json.loads(read_private(drawn))
        if not all(_NAME.fullmatch(name) for name in files):
            raise ValueError("no names of key files")
    except (ValueError, TypeError):
        raise UserError(
            str(drawn), "it is not what `dpmlm keys new` leaves", "look at it, and move it away"
        ) from None
    for name, fields in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != _line(fields):
            _save(path, fields)
    drawn.unlink()
    sync_folder(folder)
    return files


def _drawn(role: str, kem: str) -> list[tuple[str, Any, str]]:
    """File name, key and role of each key of a role."""
    found: list[tuple[str, Any, str]] = []
    if role != "approver":
        identity = new_identity(kem, role)
        found += [(f"{role}.key", identity, role), (f"{role}.pub", identity.recipient, role)]
    name = {"trainer": "sign", "auditor": "auditor-sign", "approver": "approver"}.get(role)
    if name:
        signing = new_signing_key()
        found += [(f"{name}.key", signing, role), (f"{name}.pub", signing.verify_key, role)]
    if role == "auditor":
        found += [("trusted/auditor/auditor-sign.pub", signing.verify_key, role)]
    if role == "trainer":
        found += [("pseudonym.key", new_secret_key(), role)]
        found += [("trusted/sign.pub", signing.verify_key, role)]
    return found


def _asked_for(
    names: Iterable[str], passphrase: str | None, drawn: Mapping[str, Mapping[str, Any]]
) -> bool:
    """Whether what was drawn before is what a call asks for; UserError for another passphrase."""
    sealed = [name for name, fields in drawn.items() if "sealed" in fields]
    if set(drawn) != set(names) or bool(sealed) != (passphrase is not None):
        return False
    for name in sealed[:1]:
        reveal(drawn[name], name=name, passphrase=passphrase)
    return True


def _fields(key: Any, role: str, passphrase: str | None = None) -> dict[str, Any]:
    """What stands in the file of a key of any kind."""
    match key:
        case Identity():
            fields = {"kem": key.kem, "role": role, "key_id": key.key_id}
            return _private(IDENTITY, fields, key.private, passphrase)
        case Recipient():
            fields = {"kem": key.kem, "role": role, "key": _b64(key.public)}
            return {"format": _format(RECIPIENT), **fields}
        case SigningKey():
            fields = {"role": role, "key_id": key.key_id}
            return _private(SIGNING, fields, key.private, passphrase)
        case VerifyKey():
            return {"format": _format(VERIFY), "role": role, "key": _b64(key.public)}
        case _:
            return _private(SECRET, {"role": ""}, key, passphrase)


def _private(
    kind: str, fields: Mapping[str, str], key: bytes, passphrase: str | None
) -> dict[str, Any]:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    whole = {"format": _format(kind), "created": created, **fields}
    if passphrase is None:
        return {**whole, "key": _b64(key)}
    return protect(whole, key, passphrase)


def _save(path: Path, fields: Mapping[str, Any]) -> None:
    path = Path(path)
    _refuse_existing(path)
    private = fields["format"].rpartition("/")[0] in _PRIVATE
    with atomic_write(path, mode=0o600 if private else 0o644) as file:
        file.write(_line(fields))


def _line(fields: Mapping[str, Any]) -> bytes:
    return canonical_json(fields) + b"\n"


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UserError(
            str(path), "a key file is never overwritten", "name another folder, or move it away"
        )


@dataclass(frozen=True)
class KeyFile:
    """What a key file says, its private part apart."""

    where: str
    """The file or reference that was read."""
    kind: str
    """`dpmlm.identity`, `dpmlm.recipient`, `dpmlm.signing-key` and so on."""
    fields: Mapping[str, Any] = field(repr=False)
    """Every field, the private key among them."""

    @property
    def role(self) -> str:
        """What it is for; "" where it does not say."""
        return str(self.fields.get("role", ""))

    @property
    def kem(self) -> str:
        """Key encapsulation of identities and recipients, else ""."""
        return str(self.fields.get("kem", ""))

    @property
    def protected(self) -> bool:
        """Whether a passphrase is needed."""
        return "sealed" in self.fields


def read_key_file(where: Path | str, *, private: bool = True) -> KeyFile:
    """Read a key file of any kind, without its passphrase; UserError if it is none.

    `private` asks for the mode of a private file, whatever it turns out to hold.
    """
    content = read_key(where, private=private)
    try:
        fields = json.loads(content)
        kind, _, version = str(fields["format"]).rpartition("/")
        if kind not in _VERSIONS or not 1 <= int(version) <= _VERSIONS[kind]:
            raise ValueError("another format")
        return KeyFile(str(where), kind, fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _unusable(where, "dpmlm key") from None


@dataclass(frozen=True)
class _Loaded:
    where: Path | str
    kem: str
    key: bytes = field(repr=False)
    role: str
    key_id: str | None


def _load(where: Path | str, kind: str, passphrase: str | None = None) -> _Loaded:
    """The key of a file of `kind`."""
    try:
        file = read_key_file(where, private=kind in _PRIVATE)
    except UserError as error:
        if "not a whole" in error.rule:
            raise _unusable(where, kind) from None
        raise
    if file.kind != kind:
        raise UserError(
            str(where),
            f"it is a {file.fields['format']} file, not a {_format(kind)} file",
            "name the other key file",
        )
    try:
        if file.protected:
            key = reveal(file.fields, name=str(where), passphrase=passphrase)
        else:
            key = base64.b64decode(file.fields["key"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise _unusable(where, kind) from None
    if not _right_size(kind, file.kem, key):
        raise _unusable(where, kind)
    return _Loaded(where, file.kem, key, file.role, file.fields.get("key_id"))


def _right_size(kind: str, kem: str, key: bytes) -> bool:
    if kind == RECIPIENT and kem == KMS:
        return is_arn(key.decode(errors="replace"))
    return _SIZES[kind].get(kem) == len(key)


def _check_key_id(found: _Loaded, key_id: str) -> None:
    """The name stands in the file so that it can be listed without a passphrase."""
    if found.key_id not in (None, key_id):
        raise UserError(
            str(found.where), f"it says it is key {found.key_id}, and holds {key_id}", "restore it"
        )


def _unusable(where: Path | str, kind: str) -> UserError:
    kind = _format(kind) if kind in _VERSIONS else kind
    return UserError(str(where), f"it is not a whole {kind} file", "restore it, or draw new keys")


def _format(kind: str) -> str:
    return f"{kind}/{_VERSIONS[kind]}"


def _b64(data: Any) -> str:
    return base64.b64encode(data).decode()
