"""Canaries: secrets drawn at random, half of them inserted by fair coins, committed beforehand.

The commitment is a hash over a nonce and the whole set. It is written into the run before
training, the set itself stays sealed until the scores are there. Whoever audits later checks that
neither a secret nor a coin was changed after the model was seen.
"""

import hashlib
import math
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpmlm.artifacts import IntegrityError, SealedFolder, UserError, digest

SCHEMA = "dpmlm.canaries/1"
SMALLEST_SPACE_BITS = 30
_FILE = "canaries"


@dataclass(frozen=True)
class Canary:
    """One secret, what precedes it in its row, and the space it was drawn from."""

    id: str
    """Stable name, c00000 and on; says nothing of the secret or the coin."""
    prefix: tuple[int, ...]
    """Token ids before the secret; no other canary of the set has the same."""
    secret: tuple[int, ...]
    """Token ids of the secret, uniform in the product of `alphabets`."""
    alphabets: tuple[tuple[int, ...], ...]
    """For each position of the secret the sorted token ids it was drawn from."""
    included: bool
    """The fair coin: whether the canary is inserted into training."""
    copies: int
    """How many units hold the canary when it is included; 1 or more."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The row without special tokens: prefix, then secret."""
        return self.prefix + self.secret

    @property
    def secret_span(self) -> tuple[int, int]:
        """Start and end (excluded) of the secret in `tokens`."""
        return len(self.prefix), len(self.prefix) + len(self.secret)

    @property
    def space_bits(self) -> float:
        """log2 |R|, R the product of the alphabets."""
        return math.log2(math.prod(len(alphabet) for alphabet in self.alphabets))


@dataclass(frozen=True)
class CanarySet:
    """Every canary of one run, in order, with the nonce that hides and binds them."""

    family: str
    """How the canaries were made; canaries of two families are never pooled."""
    nonce: str
    """64 hex digits; without it the commitment says nothing about the secrets."""
    canaries: tuple[Canary, ...]
    """Included and held-out ones; which is which is in `included`."""

    @property
    def commitment(self) -> str:
        """`sha256:...` over nonce, family and all canaries in canonical JSON."""
        return digest(self._content())

    @property
    def copies(self) -> int:
        """Units an included canary occupies; one number for the whole set, 1 if it is empty."""
        return self.canaries[0].copies if self.canaries else 1

    @property
    def space_bits(self) -> float:
        """log2 |R| of the smallest space in the set; 0 if it is empty."""
        return min((canary.space_bits for canary in self.canaries), default=0.0)

    def included(self) -> tuple[Canary, ...]:
        """The canaries that go into training, in order."""
        return tuple(canary for canary in self.canaries if canary.included)

    def public(self) -> dict[str, Any]:
        """What may be published before training: counts and the commitment, no secret, no coin."""
        return {
            "schema": SCHEMA,
            "family": self.family,
            "commitment": self.commitment,
            "canaries": len(self.canaries),
            "copies": self.copies,
            "length": len(self.canaries[0].secret) if self.canaries else 0,
            "space_bits": self.space_bits,
            "inclusion_probability": 0.5,
        }

    def to_json(self) -> dict[str, Any]:
        """The whole set with its commitment; holds every secret."""
        return {**self._content(), "commitment": self.commitment}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "CanarySet":
        """Rebuild a set. Raises IntegrityError when it does not open its own commitment."""
        if value.get("schema") != SCHEMA:
            raise UserError(
                f"a canary file of schema {value.get('schema')!r}",
                f"this version reads {SCHEMA}",
                "pass the canary file that the run wrote",
            )
        try:
            canaries = tuple(_canary(entry) for entry in value["canaries"])
            family, nonce = str(value["family"]), str(value["nonce"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                "a canary file with a missing or malformed field",
                "every canary has id, prefix, secret, alphabets, included and copies",
                "pass the canary file that the run wrote",
            ) from error
        result = cls(family=family, nonce=nonce, canaries=canaries)
        if result.commitment != value.get("commitment"):
            raise IntegrityError(
                f"a canary file committed to as {value.get('commitment')}",
                "its content hashes to another value: a canary or coin was changed",
                "use the file that was committed before training",
            )
        _check_set(result)
        return result

    def write(self, folder: SealedFolder) -> None:
        """Seal the set into `folder`."""
        folder.write_json(_FILE, self.to_json())

    @classmethod
    def read(cls, folder: SealedFolder) -> "CanarySet":
        """Read a set that `write` sealed. Raises IntegrityError as `from_json` does."""
        return cls.from_json(folder.read_json(_FILE))

    def _content(self) -> dict[str, Any]:
        rows = [
            {
                "id": canary.id,
                "prefix": list(canary.prefix),
                "secret": list(canary.secret),
                "alphabets": [list(alphabet) for alphabet in canary.alphabets],
                "included": canary.included,
                "copies": canary.copies,
            }
            for canary in self.canaries
        ]
        return {"schema": SCHEMA, "family": self.family, "nonce": self.nonce, "canaries": rows}


def plan_canaries(
    *,
    count: int,
    token_ids: Sequence[int],
    prefix_ids: Sequence[int],
    length: int = 6,
    alphabet: int = 64,
    prefix_length: int = 6,
    copies: int = 1,
    secret: bytes | None = None,
) -> CanarySet:
    """Draw `count` canaries of the family `rare_tokens`, with their coins, before training.

    A run without canaries has count 0.
    Every position of a secret has its own random subset of `alphabet` of the candidate
    `token_ids`, and the secret is uniform in their product (64^6 = 2^36 by default). Prefixes are
    `prefix_length` distinct random ones of `prefix_ids`, no two alike. All randomness comes from
    `secret` (32 bytes of the operating system by default): equal bytes give an equal set. Raises
    UserError when the space is below 2^30 or the candidates do not suffice.
    """
    tokens, prefixes = sorted(set(token_ids)), sorted(set(prefix_ids))
    _check_request(count, tokens, prefixes, length, alphabet, prefix_length, copies)
    draw = _SecretRandom(secret if secret is not None else os.urandom(32))
    nonce = draw.getrandbits(256).to_bytes(32, "big").hex()
    seen: set[tuple[int, ...]] = set()
    canaries = []
    for number in range(count):
        prefix = tuple(draw.sample(prefixes, prefix_length))
        while prefix in seen:
            prefix = tuple(draw.sample(prefixes, prefix_length))
        seen.add(prefix)
        alphabets = tuple(tuple(sorted(draw.sample(tokens, alphabet))) for _ in range(length))
        canaries.append(
            Canary(
                id=f"c{number:05d}",
                prefix=prefix,
                secret=tuple(draw.choice(choices) for choices in alphabets),
                alphabets=alphabets,
                included=bool(draw.getrandbits(1)),
                copies=copies,
            )
        )
    return CanarySet(family="rare_tokens", nonce=nonce, canaries=tuple(canaries))


class _SecretRandom(random.Random):
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


def _canary(entry: Mapping[str, Any]) -> Canary:
    return Canary(
        id=str(entry["id"]),
        prefix=tuple(int(token) for token in entry["prefix"]),
        secret=tuple(int(token) for token in entry["secret"]),
        alphabets=tuple(tuple(int(token) for token in row) for row in entry["alphabets"]),
        included=bool(entry["included"]),
        copies=int(entry["copies"]),
    )


def _check_set(canaries: CanarySet) -> None:
    """Structure that scoring relies on; a committed set may still be malformed."""
    rows = canaries.canaries
    sound = len({canary.id for canary in rows}) == len(rows)
    for canary in rows:
        sound = sound and (
            len(canary.secret) == len(canary.alphabets) == len(rows[0].secret)
            and len(canary.alphabets[0]) == len(rows[0].alphabets[0])
            and canary.copies == rows[0].copies >= 1
            and all(len(set(row)) == len(row) for row in canary.alphabets)
            and all(token in row for token, row in zip(canary.secret, canary.alphabets))
        )
    if not sound:
        raise UserError(
            "a malformed canary set",
            "ids differ, lengths and copies agree, and each secret lies in its alphabets",
            "draw the set with plan_canaries",
        )


def _check_request(
    count: int,
    tokens: Sequence[int],
    prefixes: Sequence[int],
    length: int,
    alphabet: int,
    prefix_length: int,
    copies: int,
) -> None:
    if count < 0 or copies < 1 or prefix_length < 1 or length < 1:
        raise UserError(
            f"count {count}, copies {copies}, length {length}, prefix_length {prefix_length}",
            "count is at least 0, the others at least 1",
            "set them in the audit section of the run",
        )
    if alphabet < 2 or len(tokens) < alphabet:
        raise UserError(
            f"{len(tokens)} candidate tokens for alphabets of {alphabet}",
            "an alphabet has at least 2 tokens, all of them candidates",
            "pass more token_ids, for example the unused tokens of the vocabulary",
        )
    if length * math.log2(alphabet) < SMALLEST_SPACE_BITS:
        raise UserError(
            f"a space of {alphabet}^{length}",
            f"secrets come from at least 2^{SMALLEST_SPACE_BITS}, or exposure meets its ceiling",
            "lengthen the secret or widen the alphabets",
        )
    if len(prefixes) < prefix_length or math.perm(len(prefixes), prefix_length) < 4 * count:
        raise UserError(
            f"{len(prefixes)} prefix tokens for {count} prefixes of {prefix_length}",
            "prefixes must differ, with room to draw them by chance",
            "pass more prefix_ids or a longer prefix_length",
        )
