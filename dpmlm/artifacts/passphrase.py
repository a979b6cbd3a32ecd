"""Key files that a passphrase protects: Argon2id (RFC 9106) makes the key that seals them.

The passphrase comes from the file that DPMLM_PASSPHRASE_FILE names, or is asked for on a terminal;
never from an argument, which others on the machine can read.
"""

import base64
import getpass
import os
import secrets
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from dpmlm.artifacts.chunks import KEY_BYTES, decrypt_bytes, encrypt_bytes
from dpmlm.artifacts.providers import read_private
from dpmlm.canonical import canonical_json, digest
from dpmlm.errors import IntegrityError, UserError

FILE_VARIABLE = "DPMLM_PASSPHRASE_FILE"
MIN_CHARACTERS = 12
COST = {"m": 65_536, "t": 3, "p": 4}
"""Memory in KiB, passes and lanes of what is written: RFC 9106's second recommendation, 64 MiB."""
_MOST = {"m": 1 << 20, "t": 10, "p": 16}
_SALT_BYTES = 16
_opened: dict[str, bytes] = {}
"""Keys that were opened in this process, by digest of what was opened: Argon2id is slow."""
_last = ""
"""The passphrase that opened the last file: files of one folder often share it."""


def protect(fields: Mapping[str, Any], key: bytes, passphrase: str) -> dict[str, Any]:
    """`fields` of a key file with `key` sealed under `passphrase`; the fields are bound to it.

    Raises UserError for a passphrase of fewer than 12 characters.
    """
    if len(_spelled(passphrase)) < MIN_CHARACTERS:
        raise UserError(
            f"a passphrase of {len(_spelled(passphrase))} characters",
            f"a new one has at least {MIN_CHARACTERS}: whoever copies the file can guess offline",
            "choose a longer one; several random words are good",
        )
    salt = secrets.token_bytes(_SALT_BYTES)
    header = {**fields, "argon2id": {**COST, "salt": base64.b64encode(salt).decode()}}
    derived = _derive(_spelled(passphrase), salt, COST)
    sealed = encrypt_bytes(derived, key, context=canonical_json(header))
    return {**header, "sealed": base64.b64encode(sealed).decode()}


def reveal(fields: Mapping[str, Any], *, name: str, passphrase: str | None = None) -> bytes:
    """The key that `protect` sealed; asks for the passphrase unless it is given.

    Raises ValueError if the fields are not those of `protect`, and UserError, the same one, for
    another passphrase and for a file that was changed: the two cannot be told apart.
    """
    header = {key: value for key, value in fields.items() if key != "sealed"}
    cost, salt = _cost(header["argon2id"])
    sealed = base64.b64decode(fields["sealed"], validate=True)
    known = digest(canonical_json(dict(fields)))
    if passphrase is None and known in _opened:
        return _opened[known]

    def attempt(phrase: str) -> bytes | None:
        try:
            derived = _derive(_spelled(phrase), salt, cost)
            return decrypt_bytes(derived, sealed, context=canonical_json(header))
        except IntegrityError:
            return None

    if passphrase is not None:
        return attempt(passphrase) or _refuse(name)
    return _remember(known, name, attempt)


def new_passphrase() -> str:
    """The passphrase for new key files: from DPMLM_PASSPHRASE_FILE, or typed twice."""
    given = _from_file()
    if given is not None:
        return given
    first = _typed("New passphrase: ", "new key files")
    if _typed("The same again: ", "new key files") != first:
        raise UserError("the passphrase", "the two that were typed differ", "run it again")
    return first


def _remember(known: str, name: str, attempt: Any) -> bytes:
    global _last
    given = _from_file()
    if given is None and _last and (key := attempt(_last)):
        _opened[known] = key
        return _opened[known]
    phrase = _typed(f"Passphrase of {name}: ", name) if given is None else given
    _opened[known] = attempt(phrase) or _refuse(name)
    _last = phrase
    return _opened[known]


def _refuse(name: str) -> bytes:
    raise UserError(
        name,
        "the passphrase does not open it, or the file was changed",
        f"check the passphrase ({FILE_VARIABLE}), or restore the file",
    )


def _from_file() -> str | None:
    path = os.environ.get(FILE_VARIABLE)
    if path is None:
        return None
    try:
        text = read_private(Path(path)).decode()
    except UnicodeDecodeError:
        raise UserError(path, "a passphrase is UTF-8 text", "write it anew") from None
    phrase = text.removesuffix("\n").removesuffix("\r")
    if not phrase or "\n" in phrase:
        raise UserError(path, "it holds one line, the passphrase", "write it anew")
    return phrase


def _typed(prompt: str, name: str) -> str:
    if not sys.stdin.isatty():
        raise UserError(
            name,
            "a passphrase protects it, and there is no terminal to ask on",
            f"name a file of mode 0600 that holds it in {FILE_VARIABLE}",
        )
    return getpass.getpass(prompt)


def _spelled(passphrase: str) -> str:
    """One spelling, whatever keyboard it was typed on."""
    return unicodedata.normalize("NFC", passphrase)


def _cost(fields: Mapping[str, Any]) -> tuple[dict[str, int], bytes]:
    """Checked before anything is derived: a file must not ask for all the memory there is."""
    if set(fields) != {*_MOST, "salt"}:
        raise ValueError("unknown fields")
    cost = {name: fields[name] for name in _MOST}
    for name, most in _MOST.items():
        if type(cost[name]) is not int or not 1 <= cost[name] <= most:
            raise ValueError(f"{name} is out of range")
    salt = base64.b64decode(fields["salt"], validate=True)
    if len(salt) != _SALT_BYTES or cost["m"] < 8 * cost["p"]:
        raise ValueError("salt or memory is out of range")
    return cost, salt


def _derive(passphrase: str, salt: bytes, cost: Mapping[str, int]) -> bytes:
    return Argon2id(
        salt=salt,
        length=KEY_BYTES,
        iterations=cost["t"],
        lanes=cost["p"],
        memory_cost=cost["m"],
    ).derive(passphrase.encode())
