"""Reading a signed file of a bundle: one DSSE envelope, in the one spelling its signer gave it."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmlm.artifacts import canonical_json
from dpmlm.artifacts.signing import VerifyKey
from dpmlm.canonical import read_json
from dpmlm.errors import IntegrityError
from dpmlm.release.inventory import GET_ORIGINAL, PAYLOAD_TYPE

MAX_MANIFEST_BYTES = 256 << 20


def peek(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Envelope and payload of a signed file, for whoever checks it elsewhere: no signature is.

    Raises ValueError where it has another form.
    """
    try:
        envelope = read_json(data)
        payload = read_json(base64.b64decode(envelope["payload"], validate=True))
    except (KeyError, TypeError):
        raise ValueError("it is no envelope") from None
    if not isinstance(payload, dict):
        raise ValueError("its payload is no object")
    return envelope, payload


def open_signed(
    path: Path, trusted: Mapping[str, VerifyKey], *, most: int = MAX_MANIFEST_BYTES
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The payload of a file of at most `most` bytes, and the key ids of all who signed it.

    Raises IntegrityError (where, what, next step) unless every signer is in `trusted`.
    """
    from dpmlm.artifacts import open_envelope

    if path.is_symlink() or not path.is_file():
        raise IntegrityError("whole file", "it is no plain file", GET_ORIGINAL)
    if path.stat().st_size > most:
        raise IntegrityError("whole file", "it is too large to be what it is named", GET_ORIGINAL)
    data = path.read_bytes()
    try:
        envelope = read_json(data)
        spelled_so = canonical_json(envelope) == data
    except ValueError:
        raise IntegrityError("whole file", "it is not JSON", GET_ORIGINAL) from None
    if not spelled_so or not isinstance(envelope, dict):
        raise IntegrityError("whole file", "it is not spelled as it was signed", GET_ORIGINAL)
    payload = open_envelope(envelope, trusted, payload_type=PAYLOAD_TYPE)
    return payload, tuple(entry["keyid"] for entry in envelope["signatures"])
