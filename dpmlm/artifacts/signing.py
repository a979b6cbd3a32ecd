"""Ed25519 keys: who signed a manifest, and whom a reader trusts."""

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from dpmlm.artifacts.identities import short_id

SIGNING_KEY_BYTES = 32


@dataclass(frozen=True)
class VerifyKey:
    """The public half of a signing key."""

    public: bytes
    """Ed25519 public key, 32 bytes."""

    @property
    def key_id(self) -> str:
        """First 16 hex digits of the SHA-256 of the public key."""
        return short_id(self.public)

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` is this key's signature of `data`."""
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(self.public).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 private key."""

    private: bytes = field(repr=False)
    """Ed25519 seed, 32 bytes."""

    @property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        return VerifyKey(self._key().public_key().public_bytes_raw())

    @property
    def key_id(self) -> str:
        """First 16 hex digits of the SHA-256 of the public key."""
        return self.verify_key.key_id

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature of `data`."""
        return self._key().sign(data)

    def _key(self) -> ed25519.Ed25519PrivateKey:
        return ed25519.Ed25519PrivateKey.from_private_bytes(self.private)


def new_signing_key() -> SigningKey:
    """Draw a signing key from the operating system."""
    return SigningKey(ed25519.Ed25519PrivateKey.generate().private_bytes_raw())
