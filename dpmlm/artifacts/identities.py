"""Who can open a sealed file: an `Identity` holds the private key, a `Recipient` the public one.

Keys are HPKE keys (RFC 9180): the hybrid of ML-KEM-768 and X25519, so that a copy taken today
stays closed when elliptic curves fall, or X25519 alone where that is required. One sealed file
never mixes the two: its weakest recipient decides how strong it is. A key of AWS KMS may stand
beside either: it wraps with AES-256, and never leaves the service (`kms`).
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from dpmlm.artifacts import kms

HYBRID = "MLKEM768_X25519"
CLASSICAL = "X25519"
KMS = "AWS_KMS"
_SEED_BYTES = 64
_POINT_BYTES = 32
_LATTICE_PUBLIC_BYTES = 1184
PRIVATE_BYTES = {HYBRID: _SEED_BYTES + _POINT_BYTES, CLASSICAL: _POINT_BYTES}
PUBLIC_BYTES = {HYBRID: _LATTICE_PUBLIC_BYTES + _POINT_BYTES, CLASSICAL: _POINT_BYTES}
WRAPPED_BYTES = {HYBRID: 1168, CLASSICAL: 80}
_SUITES = {
    HYBRID: hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    CLASSICAL: hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
}


def short_id(public: bytes) -> str:
    """First 16 hex digits of the SHA-256 of a public key."""
    return hashlib.sha256(public).hexdigest()[:16]


@dataclass(frozen=True)
class Recipient:
    """A public key that input keys are wrapped for."""

    kem: str
    """`MLKEM768_X25519`, `X25519` or `AWS_KMS`."""
    public: bytes = field(repr=False)
    """The public key: ML-KEM part then curve point (1,216 bytes), the point alone (32), or the ARN
    of a KMS key."""
    role: str = field(default="", compare=False)
    """What its key file says that it is for; "" where that says nothing."""

    @property
    def key_id(self) -> str:
        """Short hexadecimal name of the key."""
        return short_id(self.public)

    def wrap(self, key: bytes, *, info: bytes, label: str = "") -> bytes:
        """Encrypt a 32-byte key to this recipient; `info` must be given to unwrap it.

        `label` is what KMS logs, and what a key policy there can ask for. Raises ValueError if the
        public bytes are no key, UserError if KMS refuses.
        """
        if self.kem == KMS:
            return kms.wrap(self.public.decode(), key, info=info, label=label)
        return _SUITES[self.kem].encrypt(key, self._public_key(), info)

    def _public_key(self) -> Any:
        if self.kem == CLASSICAL:
            return x25519.X25519PublicKey.from_public_bytes(self.public)
        lattice = mlkem.MLKEM768PublicKey.from_public_bytes(self.public[:_LATTICE_PUBLIC_BYTES])
        point = x25519.X25519PublicKey.from_public_bytes(self.public[_LATTICE_PUBLIC_BYTES:])
        return hpke.MLKEM768X25519PublicKey(lattice, point)


@dataclass(frozen=True)
class Identity:
    """A private key that opens what was sealed to its `recipient`."""

    kem: str
    """`MLKEM768_X25519`, `X25519` or `AWS_KMS`."""
    private: bytes = field(repr=False)
    """ML-KEM seed then curve scalar (96 bytes), the scalar alone (32), or the ARN of a KMS key."""
    role: str = field(default="", compare=False)
    """What its key file says that it is for; "" where that says nothing."""

    @property
    def recipient(self) -> Recipient:
        """The public half."""
        if self.kem == KMS:
            return Recipient(self.kem, self.private, self.role)
        point = self._curve().public_key().public_bytes_raw()
        if self.kem == CLASSICAL:
            return Recipient(self.kem, point, self.role)
        lattice = self._lattice().public_key().public_bytes_raw()
        return Recipient(self.kem, lattice + point, self.role)

    @property
    def key_id(self) -> str:
        """Short hexadecimal name of the key pair."""
        return self.recipient.key_id

    def unwrap(self, wrapped: bytes, *, info: bytes, label: str = "") -> bytes | None:
        """The wrapped key, or None if it was not wrapped for this identity, `info` and `label`."""
        if self.kem == KMS:
            return kms.unwrap(self.private.decode(), wrapped, info=info, label=label)
        private: Any = self._curve()
        if self.kem == HYBRID:
            private = hpke.MLKEM768X25519PrivateKey(self._lattice(), private)
        try:
            return _SUITES[self.kem].decrypt(wrapped, private, info)
        except InvalidTag:
            return None

    def _curve(self) -> x25519.X25519PrivateKey:
        return x25519.X25519PrivateKey.from_private_bytes(self.private[-_POINT_BYTES:])

    def _lattice(self) -> mlkem.MLKEM768PrivateKey:
        return mlkem.MLKEM768PrivateKey.from_seed_bytes(self.private[:_SEED_BYTES])


def new_identity(kem: str = HYBRID, role: str = "") -> Identity:
    """Draw a key pair from the operating system."""
    if kem not in _SUITES:
        raise ValueError(f"unknown key encapsulation {kem!r}; known: {', '.join(_SUITES)}")
    scalar = x25519.X25519PrivateKey.generate().private_bytes_raw()
    if kem == CLASSICAL:
        return Identity(kem, scalar, role)
    seed = mlkem.MLKEM768PrivateKey.generate().private_bytes_raw()
    return Identity(kem, seed + scalar, role)
