"""The chunk format a second time, as slow and literal as its description, and a third time from
`cryptography`."""

import hashlib
import hmac

from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK = 16_384
SEALED = CHUNK + 16
HEADER = 56


def naive_schedule(key: bytes, salt: bytes, context: bytes) -> tuple[bytes, bytes, bytes]:
    info = b"c2sp.org/chunked-encryption@v1+" + b"AEAD_AES_256_GCM" + b"\x00" + salt + context
    one = hmac.new(key, info + b"\x01", hashlib.sha512).digest()
    two = hmac.new(key, one + info + b"\x02", hashlib.sha512).digest()
    okm = one + two
    return okm[:32], okm[32:44], okm[44:76]


def naive_nonce(base: bytes, number: int) -> bytes:
    return bytes(a ^ b for a, b in zip(base, number.to_bytes(12, "big"), strict=True))


def naive_encrypt(
    key: bytes, data: bytes, context: bytes, *, salt: bytes, pieces: list[bytes] | None = None
) -> bytes:
    """`pieces` overrides how the plaintext is cut, for messages that no writer may produce."""
    aead_key, base, commitment = naive_schedule(key, salt, context)
    if pieces is None:
        pieces = [data[i : i + CHUNK] for i in range(0, len(data) + 1, CHUNK)]
    out = salt + commitment
    for number, piece in enumerate(pieces):
        out += AESGCM(aead_key).encrypt(naive_nonce(base, number), piece, b"")
    return out


def naive_decrypt(key: bytes, blob: bytes, context: bytes) -> bytes:
    salt, commitment, body = blob[:24], blob[24:56], blob[56:]
    aead_key, base, expected = naive_schedule(key, salt, context)
    assert commitment == expected
    out = b""
    for number, start in enumerate(range(0, len(body), SEALED)):
        piece = body[start : start + SEALED]
        out += AESGCM(aead_key).decrypt(naive_nonce(base, number), piece, b"")
    return out


def oracle_opens(key: bytes, blob: bytes, context: bytes) -> bool:
    """Whether `cryptography` takes `blob` for a whole message."""
    decryptor = Cobblestone256Decryptor(key, context)
    try:
        decryptor.update(blob)
        decryptor.finalize()
    except (InvalidTag, ValueError):
        return False
    return True
