"""One canary, and a group of them: secrets without their coins, which `labels.py` has."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from audits.planting.identifiers import IDENTIFIERS

Arm = Literal["exempt", "pipeline"]
"""exempt: inserted as rows after scrubbing and deduplication; pipeline: as documents before."""


@dataclass(frozen=True)
class Canary:
    """One secret, what precedes it in its row, and the space it was drawn from."""

    id: str
    """Stable name, c00000 and on; says nothing of the secret or the coin, which is found by it."""
    prefix: tuple[int, ...]
    """Token ids before the secret; no other canary of the set has the same."""
    secret: tuple[int, ...]
    """Token ids of the secret, uniform in the product of `alphabets`."""
    alphabets: tuple[tuple[int, ...], ...]
    """For each position of the secret the sorted token ids it was drawn from; empty where it was
    drawn as a text."""
    copies: int
    """How many units hold the canary when it is included; 1 or more."""
    text: tuple[str, str] | None = None
    """What stands before the secret, and the secret, where they are inserted as a text; their
    tokens are `prefix` and `secret`. None for rows of tokens that no text need produce."""

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

    def to_json(self) -> dict[str, Any]:
        """The canary with its secret."""
        return {
            "id": self.id,
            "prefix": list(self.prefix),
            "secret": list(self.secret),
            "alphabets": [list(alphabet) for alphabet in self.alphabets],
            "copies": self.copies,
            "text": None if self.text is None else list(self.text),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Canary":
        """Rebuild one. Raises KeyError, TypeError or ValueError on a malformed entry."""
        text = entry["text"]
        if text is not None:
            before, secret = text
            text = str(before), str(secret)
        if type(entry["copies"]) is not int or "included" in entry:
            raise TypeError("copies is a whole number, and coins are elsewhere")
        return cls(
            id=str(entry["id"]),
            prefix=tuple(int(token) for token in entry["prefix"]),
            secret=tuple(int(token) for token in entry["secret"]),
            alphabets=tuple(tuple(int(token) for token in row) for row in entry["alphabets"]),
            copies=entry["copies"],
            text=text,
        )


@dataclass(frozen=True)
class CanaryGroup:
    """Canaries of one family, one number of copies and one arm: what may be looked at together."""

    family: str
    """How the canaries were made."""
    arm: Arm
    """Where they are inserted."""
    copies: int
    """Units an included canary occupies."""
    canaries: tuple[Canary, ...]
    """Included and held-out ones."""

    @property
    def name(self) -> str:
        """`family/copies/arm`; no two exploratory groups of a set have the same."""
        return f"{self.family}/{self.copies}/{self.arm}"

    @property
    def exact(self) -> bool:
        """Whether the secrets are a product of token alphabets, so that ranks can be counted."""
        return self.family not in IDENTIFIERS

    @property
    def space_bits(self) -> float:
        """log2 |R| of the smallest space in the group; 0 if it is empty."""
        if not self.exact:
            return IDENTIFIERS[self.family].space_bits
        return min((canary.space_bits for canary in self.canaries), default=0.0)

    def public(self) -> dict[str, Any]:
        """What may be published before training: no secret, no coin."""
        return {
            "family": self.family,
            "arm": self.arm,
            "canaries": len(self.canaries),
            "copies": self.copies,
            "space_bits": self.space_bits,
            "exact_space": self.exact,
            "inclusion_probability": 0.5,
        }

    def to_json(self) -> dict[str, Any]:
        """The whole group; holds every secret."""
        return {
            "family": self.family,
            "arm": self.arm,
            "copies": self.copies,
            "canaries": [canary.to_json() for canary in self.canaries],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "CanaryGroup":
        """Rebuild a group. Raises KeyError, TypeError or ValueError on a malformed one."""
        if value["arm"] not in ("exempt", "pipeline"):
            raise ValueError("an arm is exempt or pipeline")
        return cls(
            family=str(value["family"]),
            arm=value["arm"],
            copies=int(value["copies"]),
            canaries=tuple(Canary.from_json(entry) for entry in value["canaries"]),
        )
