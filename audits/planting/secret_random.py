"""Draws for canaries: unbiased `sample`, `choice` and `randrange` over the stream of a secret."""

import hashlib
import random
from collections.abc import Callable
from typing import Any


class SecretRandom(random.Random):
    """`random.Random` over the SHAKE-256 stream of a secret.

    Only `getrandbits` is supplied: sample, choice and randrange then draw through it without
    bias. `random()` is refused, so that no draw can fall back on the Mersenne twister.
    """

    _BLOCK = 1 << 16

    def __init__(self, secret: bytes) -> None:
        self._key, self._block, self._buffer, self._at = secret, 0, b"", 0
        super().__init__(0)

    def seed(self, *_: Any, **__: Any) -> None:
        """The stream is fixed by the secret."""

    def getrandbits(self, k: int) -> int:
        """The next k bits of the stream (whole bytes are consumed)."""
        count = (k + 7) // 8
        if self._at + count > len(self._buffer):
            label = b"dpmlm canaries" + self._block.to_bytes(8, "big")
            fresh = hashlib.shake_256(self._key + label).digest(self._BLOCK)
            self._buffer = self._buffer[self._at :] + fresh
            self._block, self._at = self._block + 1, 0
        value = int.from_bytes(self._buffer[self._at : self._at + count], "big")
        self._at += count
        return value >> (8 * count - k)

    def random(self) -> float:
        raise NotImplementedError("the stream yields integers")

    def coin(self) -> bool:
        """True half of the time."""
        return bool(self.getrandbits(1))


def distinct(draw: Callable[[], tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
    """`draw` without the values that it gave before."""
    seen: set[tuple[Any, ...]] = set()

    def fresh() -> tuple[Any, ...]:
        value = draw()
        while value in seen:
            value = draw()
        seen.add(value)
        return value

    return fresh
