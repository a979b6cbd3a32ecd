"""`SecretStream`: the random numbers that privacy rests on, from a block cipher.

Sampling coins and noise come from AES-256 in counter mode, keyed by the operating system. The
stream is cut into sub-streams by a label and a step, so that the numbers of one use do not depend
on the order of the others.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterator

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

_CHUNK = 1 << 15  # numbers a time: key stream and results of a chunk stay in the second-level cache
_ZEROS = bytes(8 * _CHUNK)
_EXPONENT_OF_ONE = np.uint64(0x3FF0000000000000)
_BITS_DROPPED = np.uint64(12)
_HALF_STEP_BELOW_ONE = 1.0 - 2.0**-53


class SecretStream:
    """Uniform and normal numbers, each (label, step) to be used once.

    The same numbers drawn for two uses would cancel in a difference of releases, so a label's
    steps must go up: a repeated or earlier step of a label raises ValueError. A run that is
    resumed makes a new stream (`from_os`), since a step drawn again needs new coins and new
    noise. The key never appears in `repr`.
    """

    def __init__(self, key: bytes) -> None:
        """`key`: 32 secret bytes; ValueError otherwise."""
        if len(key) != 32:
            raise ValueError(f"a stream key has 32 bytes, not {len(key)}")
        self._key = bytes(key)
        self._last: dict[str, int] = {}

    @classmethod
    def from_os(cls) -> "SecretStream":
        """A stream under a fresh key from the operating system's generator."""
        return cls(secrets.token_bytes(32))

    def __repr__(self) -> str:
        return "SecretStream(secret)"

    def __reduce__(self) -> str:
        raise TypeError("a SecretStream is not pickled: its key is secret and its use is counted")

    def uniforms(self, n: int, label: str, step: int) -> NDArray[np.float64]:
        """float64 [n]: (k + 1/2) / 2^52 for k of 52 random bits, so never 0 and never 1."""
        out = np.empty(n, dtype=np.float64)
        for start, chunk in self._chunks(n, label, step):
            out[start : start + len(chunk)] = chunk
        return out

    def normals(self, n: int, label: str, step: int, *, std: float = 1.0) -> NDArray[np.float32]:
        """float32 [n]: centred normals of standard deviation `std`, rounded once from float64.

        By the inverse distribution function of 52-bit uniforms: the tail ends at 8.2 standard
        deviations, which changes the distribution by less than 2^-51 in total variation a number.
        """
        from scipy.special import ndtri

        out = np.empty(n, dtype=np.float32)
        for start, chunk in self._chunks(n, label, step):
            ndtri(chunk, out=chunk)
            np.multiply(chunk, std, out=chunk)
            out[start : start + len(chunk)] = chunk
        return out

    def _chunks(self, n: int, label: str, step: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Uniforms in (0, 1), in a buffer that the next chunk overwrites."""
        encryptor = Cipher(
            algorithms.AES(self._sub_key(label, step)), modes.CTR(bytes(16))
        ).encryptor()
        buffer = bytearray(8 * _CHUNK + 16)
        for start in range(0, n, _CHUNK):
            count = min(_CHUNK, n - start)
            encryptor.update_into(_ZEROS[: 8 * count], buffer)
            words = np.frombuffer(buffer, dtype="<u8", count=count)
            # 52 random bits under the exponent of 1.0 are a float64 in [1, 2); the subtraction
            # is exact.
            np.right_shift(words, _BITS_DROPPED, out=words)
            np.bitwise_or(words, _EXPONENT_OF_ONE, out=words)
            uniforms = words.view("<f8")
            np.subtract(uniforms, _HALF_STEP_BELOW_ONE, out=uniforms)
            yield start, uniforms

    def _sub_key(self, label: str, step: int) -> bytes:
        if step < 0:
            raise ValueError(f"a step is at least 0, not {step}")
        if step <= self._last.get(label, -1):
            raise ValueError(
                f"stream {label!r} was already drawn at step {self._last[label]}: "
                "each step's numbers are used once"
            )
        self._last[label] = step
        name = b"dpmlm.privacy.stream/1\0" + step.to_bytes(8, "big") + label.encode()
        return hmac.new(self._key, name, hashlib.sha256).digest()
