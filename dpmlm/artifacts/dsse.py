"""Signed envelopes (DSSE v1, through securesystemslib): a JSON payload and who vouches for it.

The signature covers the payload's type and bytes. A reader accepts an envelope only in the one
spelling that its writer gave it, with every signature by a key it trusts: one changed byte
anywhere, base64 padding bits included, is refused.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from dpmlm.artifacts.signing import SigningKey, VerifyKey
from dpmlm.canonical import canonical_json, read_json
from dpmlm.errors import IntegrityError

_FIELDS = {"payload", "payloadType", "signatures"}


def sign_envelope(
    payload: Mapping[str, Any], payload_type: str, keys: Sequence[SigningKey]
) -> dict[str, Any]:
    """Sign `payload` (canonical JSON) with every key; returns the envelope as JSON values."""
    if not keys:
        raise ValueError("an envelope needs at least one signing key")
    envelope = Envelope(canonical_json(payload), payload_type, {})
    for key in keys:
        private = ed25519.Ed25519PrivateKey.from_private_bytes(key.private)
        envelope.sign(CryptoSigner(private, _public(key.verify_key)))
    signed: dict[str, Any] = envelope.to_dict()
    return signed


def open_envelope(
    envelope: Mapping[str, Any],
    trusted: Mapping[str, VerifyKey],
    *,
    payload_type: str | None = None,
) -> dict[str, Any]:
    """The payload of an envelope whose every signer is in `trusted` (by key id).

    `payload_type`, if given, is the type it must have. Raises IntegrityError for an unknown
    signer, a signature that does not match, another type, or anything that is no envelope.
    """
    parsed = _parse(envelope)
    strangers = sorted(key_id for key_id in parsed.signatures if key_id not in trusted)
    if strangers:
        raise IntegrityError(
            f"envelope signed by key {', '.join(strangers)}",
            f"only {', '.join(sorted(trusted))} is trusted" if trusted else "no key is trusted",
            "get the original, or add the signer's .pub file to the trusted keys if you know them",
        )
    keys: list[Key] = [_public(trusted[key_id]) for key_id in parsed.signatures]
    try:
        parsed.verify(keys, threshold=len(keys))
    except VerificationError:
        raise _refused(
            f"envelope signed by key {', '.join(parsed.signatures)}",
            "a signature does not match the payload",
        ) from None
    if payload_type is not None and parsed.payload_type != payload_type:
        raise _refused(
            f"envelope of type {parsed.payload_type}", f"type {payload_type} is expected"
        )
    return _payload(parsed.payload)


def _parse(envelope: Mapping[str, Any]) -> Envelope:
    try:
        own: dict[str, Any] = json.loads(json.dumps(envelope))
        given = json.loads(json.dumps(envelope))
        parsed = Envelope.from_dict(own)
        if set(given) != _FIELDS or parsed.to_dict() != given:
            raise ValueError("another spelling")
        if not parsed.signatures:
            raise ValueError("no signature")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, FormatError):
        raise _refused("envelope", "it is not a whole signed envelope") from None
    return parsed


def _payload(data: bytes) -> dict[str, Any]:
    try:
        payload = read_json(data)
        if not isinstance(payload, dict):
            raise ValueError("not an object")
    except ValueError:
        raise _refused("envelope payload", "it is not a JSON object") from None
    if canonical_json(payload) != data:
        raise _refused("envelope payload", "it is not in the one spelling of what is signed")
    return payload


def _public(key: VerifyKey) -> SSlibKey:
    public = ed25519.Ed25519PublicKey.from_public_bytes(key.public)
    return SSlibKey.from_crypto(public, keyid=key.key_id)


def _refused(given: str, rule: str) -> IntegrityError:
    return IntegrityError(given, rule, "get the original from its signer")
