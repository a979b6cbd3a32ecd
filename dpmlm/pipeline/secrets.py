"""Keys that a run derives from its one secret file, each for one purpose."""

import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def key_check(key: bytes) -> str:
    """Tells one secret key from another, and nothing else about it."""
    return hmac.digest(key, b"dpmlm/check", "sha256").hex()[:32]


@dataclass(frozen=True)
class RunSecrets:
    """Derived keys; the same file and seed give the same units, splits and masks anywhere.

    Noise and sampling are not here: their keys come from the operating system, anew for every
    attempt, and are never stored.
    """

    unit_key: bytes
    """Turns persons and documents into unit ids, and decides which units are held out."""
    mask_seed: bytes
    """Windows, masks and which document of a person is drawn."""
    pseudonym_key: bytes
    """Behind the pseudonyms that scrubbing writes."""
    corpus_key: bytes
    """Keyed digest of source files, to notice that they changed."""
    tombstone_key: bytes
    """Behind the tombstones of persons whose documents are kept out."""
    held_out_key: bytes
    """Keyed digest of the held-out documents, in the plan."""

    @classmethod
    def derive(cls, secret: bytes, seed: int) -> "RunSecrets":
        def key(purpose: str) -> bytes:
            info = f"dpmlm/{purpose}".encode()
            return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)

        return cls(
            unit_key=key("unit"),
            mask_seed=key(f"mask/{seed}"),
            pseudonym_key=key("pseudonym"),
            corpus_key=key("corpus"),
            tombstone_key=key("tombstone"),
            held_out_key=key("held-out"),
        )
