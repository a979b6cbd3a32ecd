"""Key files: one key each, one line of JSON; private ones readable by their owner alone."""

import base64
import binascii
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from dpmlm.artifacts.atomic import atomic_write
from dpmlm.artifacts.identities import (
    PRIVATE_BYTES,
    PUBLIC_BYTES,
    Identity,
    Recipient,
    new_identity,
)
from dpmlm.artifacts.signing import SIGNING_KEY_BYTES, SigningKey, VerifyKey, new_signing_key
from dpmlm.canonical import canonical_json
from dpmlm.errors import UserError

SECRET_KEY_BYTES = 32
ROLES = ("trainer", "auditor", "consumer")
_IDENTITY = "dpmlm.identity/1"
_RECIPIENT = "dpmlm.recipient/1"
_SIGNING = "dpmlm.signing-key/1"
_VERIFY = "dpmlm.verify-key/1"
_SECRET = "dpmlm.secret-key/1"
_MAX_BYTES = 16_384


def new_secret_key() -> bytes:
    """32 bytes from the operating system, for keyed hashes such as pseudonyms."""
    return secrets.token_bytes(SECRET_KEY_BYTES)


def save_identity(path: Path, identity: Identity) -> None:
    """Write a private identity, mode 0600; refuses to overwrite."""
    _save(path, {"format": _IDENTITY, "kem": identity.kem, "key": _b64(identity.private)})


def save_recipient(path: Path, recipient: Recipient) -> None:
    """Write a recipient's public key; refuses to overwrite."""
    _save(path, {"format": _RECIPIENT, "kem": recipient.kem, "key": _b64(recipient.public)})


def save_signing_key(path: Path, key: SigningKey) -> None:
    """Write a private signing key, mode 0600; refuses to overwrite."""
    _save(path, {"format": _SIGNING, "key": _b64(key.private)})


def save_verify_key(path: Path, key: VerifyKey) -> None:
    """Write the public half of a signing key; refuses to overwrite."""
    _save(path, {"format": _VERIFY, "key": _b64(key.public)})


def save_secret_key(path: Path, key: bytes) -> None:
    """Write a 32-byte secret, mode 0600; refuses to overwrite."""
    _save(path, {"format": _SECRET, "key": _b64(key)})


def load_identity(path: Path) -> Identity:
    """Read an identity file; UserError if it is missing, no identity, or wider than mode 0600."""
    kem, key = _load(path, _IDENTITY, PRIVATE_BYTES)
    return Identity(kem, key)


def load_recipient(path: Path) -> Recipient:
    """Read a recipient's public key file."""
    kem, key = _load(path, _RECIPIENT, PUBLIC_BYTES)
    recipient = Recipient(kem, key)
    try:
        recipient.wrap(bytes(32), info=b"")
    except ValueError:
        raise _unusable(path, _RECIPIENT) from None
    return recipient


def load_signing_key(path: Path) -> SigningKey:
    """Read a signing key file; UserError if it is wider than mode 0600."""
    return SigningKey(_load(path, _SIGNING, {"": SIGNING_KEY_BYTES})[1])


def load_verify_key(path: Path) -> VerifyKey:
    """Read the public half of a signing key."""
    return VerifyKey(_load(path, _VERIFY, {"": SIGNING_KEY_BYTES})[1])


def load_secret_key(path: Path) -> bytes:
    """Read a 32-byte secret; UserError if the file is wider than mode 0600."""
    return _load(path, _SECRET, {"": SECRET_KEY_BYTES})[1]


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


def create_keys(folder: Path) -> list[Path]:
    """Draw the keys of a first run and write them under `folder`; returns what was written.

    Identities and public keys of trainer, auditor and consumer, a signing key with its public
    half (also in `trusted/`), and the secret of the scrub stage's pseudonyms. Refuses to replace
    any existing file, and then writes nothing.
    """
    folder = Path(folder)
    identities = {role: new_identity() for role in ROLES}
    signing = new_signing_key()
    trusted = folder / "trusted" / "sign.pub"
    private = [folder / f"{name}.key" for name in (*ROLES, "sign", "pseudonym")]
    public = [folder / f"{name}.pub" for name in (*ROLES, "sign")] + [trusted]
    for path in private + public:
        _refuse_existing(path)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    trusted.parent.mkdir(exist_ok=True)
    for role, identity in identities.items():
        save_identity(folder / f"{role}.key", identity)
        save_recipient(folder / f"{role}.pub", identity.recipient)
    save_signing_key(folder / "sign.key", signing)
    save_verify_key(folder / "sign.pub", signing.verify_key)
    save_secret_key(folder / "pseudonym.key", new_secret_key())
    save_verify_key(trusted, signing.verify_key)
    return private + public


def _save(path: Path, content: dict[str, str]) -> None:
    path = Path(path)
    _refuse_existing(path)
    mode = 0o600 if content["format"] in (_IDENTITY, _SIGNING, _SECRET) else 0o644
    with atomic_write(path, mode=mode) as file:
        file.write(canonical_json(content) + b"\n")


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UserError(
            str(path), "a key file is never overwritten", "name another folder, or move it away"
        )


def _load(path: Path, kind: str, sizes: dict[str, int]) -> tuple[str, bytes]:
    """Key encapsulation (or "") and key bytes of a file of `kind`."""
    path = Path(path)
    content = _read(path, private=kind in (_IDENTITY, _SIGNING, _SECRET))
    try:
        fields = json.loads(content)
        found = str(fields["format"])
        key = base64.b64decode(fields["key"], validate=True)
        kem = str(fields.get("kem", ""))
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        binascii.Error,
    ):
        raise _unusable(path, kind) from None
    if found != kind:
        raise UserError(
            str(path), f"it is a {found} file, not a {kind} file", "name the other key file"
        )
    if sizes.get(kem) != len(key):
        raise _unusable(path, kind)
    return kem, key


def _read(path: Path, *, private: bool) -> bytes:
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if private and mode & ~0o600:
                raise UserError(
                    f"{path} has mode {mode:04o}",
                    "a private key is readable by its owner alone (0600)",
                    f"run `chmod 600 {path}`",
                )
            return file.read(_MAX_BYTES)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            str(path),
            f"no key can be read there ({reason})",
            "check the path; `dpmlm keys new` draws keys",
        ) from error


def _unusable(path: Path, kind: str) -> UserError:
    return UserError(str(path), f"it is not a whole {kind} file", "restore it, or draw new keys")


def _b64(data: Any) -> str:
    return base64.b64encode(data).decode()


__all__ = [
    "Identity",
    "Recipient",
    "SigningKey",
    "VerifyKey",
    "create_keys",
    "load_identity",
    "load_recipient",
    "load_secret_key",
    "load_signing_key",
    "load_trusted_keys",
    "load_verify_key",
    "new_identity",
    "new_secret_key",
    "new_signing_key",
    "save_identity",
    "save_recipient",
    "save_secret_key",
    "save_signing_key",
    "save_verify_key",
]
