"""`SecretStream`: the random numbers that privacy rests on, from a block cipher.

Sampling coins and noise come from AES-256 in counter mode, keyed by the operating system. The
stream is cut into sub-streams by a label and a step, so that the numbers of one use do not depend
on the order of the others.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

BLOCK = 1 << 15
"""Numbers a time: key stream and results of a block stay in the second-level cache."""

_ZEROS = bytes(8 * BLOCK)
_EXPONENT_OF_ONE = np.uint64(0x3FF0000000000000)
_BITS_DROPPED = np.uint64(12)
_HALF_STEP_BELOW_ONE = 1.0 - 2.0**-53


class Words:
    """The random 64-bit words of one (label, step), in order."""

    def __init__(self, key: bytes, start: int = 0) -> None:
        """`start`: words that are passed over, an even number as a cipher block holds two."""
        counter = (start // 2).to_bytes(16, "big")
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
        self._buffer = bytearray(8 * BLOCK + 16)

    def next(self, count: int) -> NDArray[np.uint64]:
        """uint64 [count], count at most `BLOCK`, in a buffer that the next call overwrites."""
        self._encryptor.update_into(_ZEROS[: 8 * count], self._buffer)
        return np.frombuffer(self._buffer, dtype="<u8", count=count)


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

    @classmethod
    def reproducible(cls, seed: int) -> "SecretStream":
        """The same stream for the same `seed`, to repeat a run. **Nothing drawn from it protects.**

        Whoever knows or guesses the seed can take the noise away again.
        """
        return cls(hashlib.sha256(b"dpmlm.privacy.stream/reproducible/1\0%d" % seed).digest())

    def __repr__(self) -> str:
        return "SecretStream(secret)"

    def __reduce__(self) -> str:
        raise TypeError("a SecretStream is not pickled: its key is secret and its use is counted")

    def uniforms(self, n: int, label: str, step: int) -> NDArray[np.float64]:
        """float64 [n]: (k + 1/2) / 2^52 for k of 52 random bits, so never 0 and never 1."""
        out = np.empty(n, dtype=np.float64)
        for start, chunk in _chunks(self._sub_key(label, step), 0, n):
            out[start : start + len(chunk)] = chunk
        return out

    def normals(
        self, n: int, label: str, step: int, *, std: float = 1.0, threads: int = 1
    ) -> NDArray[np.float32]:
        """float32 [n]: centred normals of standard deviation `std`, rounded once from float64.

        By the inverse distribution function of 52-bit uniforms: the tail ends at 8.2 standard
        deviations, which changes the distribution by less than 2^-51 in total variation a number.
        They are the same whatever the number of `threads` that share the work.
        """
        from scipy.special import ndtri

        out = np.empty(n, dtype=np.float32)
        key = self._sub_key(label, step)

        def fill(begin: int, end: int) -> None:
            for start, chunk in _chunks(key, begin, end):
                ndtri(chunk, out=chunk)
                np.multiply(chunk, std, out=chunk)
                out[start : start + len(chunk)] = chunk

        parts = max(1, min(threads, n // (4 * BLOCK)))
        if parts == 1:
            fill(0, n)
            return out
        size = BLOCK * -(-n // (BLOCK * parts))
        cuts = [*range(0, n, size), n]
        with ThreadPoolExecutor(len(cuts) - 1) as pool:
            list(pool.map(lambda cut: fill(*cut), pairwise(cuts)))
        return out

    def words(self, label: str, step: int) -> Words:
        """The bits themselves, for whoever makes other numbers of them."""
        return Words(self._sub_key(label, step))

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


def _chunks(key: bytes, begin: int, end: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(place, uniforms in (0, 1)) of numbers `begin`, a multiple of two, to `end`, in a buffer that
    the next chunk overwrites."""
    source = Words(key, begin)
    for start in range(begin, end, BLOCK):
        words = source.next(min(BLOCK, end - start))
        # 52 random bits under the exponent of 1.0 are a float64 in [1, 2); the subtraction is
        # exact.
        np.right_shift(words, _BITS_DROPPED, out=words)
        np.bitwise_or(words, _EXPONENT_OF_ONE, out=words)
        uniforms = words.view("<f8")
        np.subtract(uniforms, _HALF_STEP_BELOW_ONE, out=uniforms)
        yield start, uniforms
