"""Choices that a secret key makes: the same for the same words, and for nobody without the key.

HMAC-SHA-256 (RFC 2104) in counter mode over domain, entity and words, so that a person and a place
of one spelling are chosen for apart.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")
_DOMAIN = b"dpmlm/scrub/surrogate/1"


class Keyed:
    """A stream of choices for one thing that was found."""

    def __init__(self, key: bytes, *parts: str) -> None:
        self._key = key
        spelt = (part.encode("utf-8", "surrogatepass") for part in parts)
        self._message = b"\0".join((_DOMAIN, *spelt))
        self._block = 0
        self._bytes = b""

    def below(self, count: int) -> int:
        """One of 0..count-1, equally likely up to 2^-40; `count` is at most 2^24."""
        if len(self._bytes) < 8:
            message = self._message + b"\0" + self._block.to_bytes(4, "big")
            self._bytes += hmac.new(self._key, message, hashlib.sha256).digest()
            self._block += 1
        taken, self._bytes = self._bytes[:8], self._bytes[8:]
        return int.from_bytes(taken, "big") % count

    def one_of(self, items: Sequence[Item]) -> Item:
        """One of `items`."""
        return items[self.below(len(items))]

    def other(self, items: Sequence[Item], than: Item) -> Item:
        """One of `items` that is not `than`."""
        return self.one_of([item for item in items if item != than])
