"""Signed envelopes: strangers, changed bytes, other spellings."""

import base64
import json

import pytest

from dpmlm.artifacts import (
    IntegrityError,
    SigningKey,
    VerifyKey,
    canonical_json,
    new_signing_key,
    open_envelope,
    sign_envelope,
)

PAYLOAD = {"files": {"a": "sha256:00"}, "n": 3}
KIND = "application/vnd.dpmlm.test+json"


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return new_signing_key()


@pytest.fixture(scope="module")
def trusted(key: SigningKey) -> dict[str, VerifyKey]:
    return {key.key_id: key.verify_key}


def test_round_trip_and_the_signed_bytes(key: SigningKey, trusted: dict[str, VerifyKey]) -> None:
    envelope = sign_envelope(PAYLOAD, KIND, [key])
    assert open_envelope(envelope, trusted) == PAYLOAD
    assert open_envelope(envelope, trusted, payload_type=KIND) == PAYLOAD
    assert json.loads(json.dumps(envelope)) == envelope
    # What DSSE says is signed, written out by hand.
    body = canonical_json(PAYLOAD)
    signed = f"DSSEv1 {len(KIND)} {KIND} {len(body)} ".encode() + body
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    assert envelope["signatures"][0]["keyid"] == key.key_id
    assert key.verify_key.verify(signature, signed)


def test_stranger_is_refused(key: SigningKey, trusted: dict[str, VerifyKey]) -> None:
    stranger = new_signing_key()
    for keys in ([stranger], [key, stranger]):
        with pytest.raises(IntegrityError, match=stranger.key_id):
            open_envelope(sign_envelope(PAYLOAD, KIND, keys), trusted)
    with pytest.raises(IntegrityError, match="no key is trusted"):
        open_envelope(sign_envelope(PAYLOAD, KIND, [key]), {})


def test_stranger_under_a_trusted_name_is_refused(
    key: SigningKey, trusted: dict[str, VerifyKey]
) -> None:
    forged = sign_envelope(PAYLOAD, KIND, [new_signing_key()])
    forged["signatures"][0]["keyid"] = key.key_id
    with pytest.raises(IntegrityError, match="does not match"):
        open_envelope(forged, trusted)


def test_all_signatures_must_hold(key: SigningKey, trusted: dict[str, VerifyKey]) -> None:
    second = new_signing_key()
    both = {**trusted, second.key_id: second.verify_key}
    envelope = sign_envelope(PAYLOAD, KIND, [key, second])
    assert open_envelope(envelope, both) == PAYLOAD
    envelope["signatures"][1]["sig"] = envelope["signatures"][0]["sig"]
    with pytest.raises(IntegrityError, match="does not match"):
        open_envelope(envelope, both)


def test_other_type_is_refused(key: SigningKey, trusted: dict[str, VerifyKey]) -> None:
    envelope = sign_envelope(PAYLOAD, KIND, [key])
    with pytest.raises(IntegrityError, match="type other is expected"):
        open_envelope(envelope, trusted, payload_type="other")
    with pytest.raises(IntegrityError, match="does not match"):
        open_envelope({**envelope, "payloadType": "other"}, trusted)


def test_every_byte_counts(key: SigningKey, trusted: dict[str, VerifyKey]) -> None:
    """Base64 padding bits too: they change the text, not the signature."""
    text = canonical_json(sign_envelope(PAYLOAD, KIND, [key])).decode()
    refused = 0
    for offset in range(len(text)):
        for flip in (1, 2, 0x20):
            changed = text[:offset] + chr(ord(text[offset]) ^ flip) + text[offset + 1 :]
            try:
                envelope = json.loads(changed)
            except ValueError:
                continue
            with pytest.raises(IntegrityError):
                open_envelope(envelope, trusted)
            refused += 1
    assert refused > 500


def test_other_spellings_of_the_same_bytes_are_refused(
    key: SigningKey, trusted: dict[str, VerifyKey]
) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    envelope = sign_envelope(PAYLOAD, KIND, [key])
    signature = envelope["signatures"][0]["sig"]
    last = alphabet[alphabet.index(signature[-3]) + 1]
    for other in (signature[:-3] + last + "==", signature[:9] + "\n" + signature[9:]):
        assert base64.b64decode(other) == base64.b64decode(signature)
        respelled = {**envelope, "signatures": [{"keyid": key.key_id, "sig": other}]}
        with pytest.raises(IntegrityError, match="not a whole signed envelope"):
            open_envelope(respelled, trusted)


@pytest.mark.parametrize("broken", [{}, {"payload": "", "payloadType": "x", "signatures": []}])
def test_no_envelope(broken: dict, trusted: dict[str, VerifyKey]) -> None:
    with pytest.raises(IntegrityError, match="not a whole signed envelope"):
        open_envelope(broken, trusted)


def test_extra_fields_and_payloads_that_are_no_object(
    key: SigningKey, trusted: dict[str, VerifyKey]
) -> None:
    envelope = sign_envelope(PAYLOAD, KIND, [key])
    with pytest.raises(IntegrityError, match="not a whole"):
        open_envelope({**envelope, "note": 1}, trusted)
    with pytest.raises(IntegrityError, match="not a JSON object"):
        open_envelope(sign_envelope([1], KIND, [key]), trusted)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        sign_envelope(PAYLOAD, KIND, [])
