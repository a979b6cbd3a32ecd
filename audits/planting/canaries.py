"""Canaries: secrets drawn at random, half of them inserted by fair coins, committed beforehand.

The commitment is a hash over a nonce and the whole set. It is written into the run before
training, the set itself stays sealed until the scores are there. Whoever audits later checks that
neither a secret nor a coin was changed after the model was seen.

A set has one gating group, the only one that tests of the claim use, and any number of exploratory
groups of other families, copies and arms (`families.py` draws them). No two groups are pooled.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from audits.planting.identifiers import IDENTIFIERS
from audits.planting.secret_random import SecretRandom, distinct
from dpmlm.artifacts import IntegrityError, SealedFolder, UserError, digest

SCHEMA = "dpmlm.canaries/2"
SMALLEST_SPACE_BITS = 30
GATING_FAMILY = "rare_tokens"
Arm = Literal["exempt", "pipeline"]
"""exempt: inserted as rows after scrubbing and deduplication; pipeline: as documents before."""
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
    """For each position of the secret the sorted token ids it was drawn from; empty where it was
    drawn as a text."""
    included: bool
    """The fair coin: whether the canary is inserted into training."""
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
            "included": self.included,
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
        if type(entry["included"]) is not bool or type(entry["copies"]) is not int:
            raise TypeError("included is true or false, copies a whole number")
        return cls(
            id=str(entry["id"]),
            prefix=tuple(int(token) for token in entry["prefix"]),
            secret=tuple(int(token) for token in entry["secret"]),
            alphabets=tuple(tuple(int(token) for token in row) for row in entry["alphabets"]),
            included=entry["included"],
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

    def included(self) -> tuple[Canary, ...]:
        """The canaries that go into training, in order."""
        return tuple(canary for canary in self.canaries if canary.included)

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


@dataclass(frozen=True)
class CanarySet:
    """Every canary of one run, in order, with the nonce that hides and binds them."""

    family: str
    """How the gating canaries were made; canaries of two families are never pooled."""
    nonce: str
    """64 hex digits; without it the commitment says nothing about the secrets."""
    canaries: tuple[Canary, ...]
    """The gating group, included and held-out ones; which is which is in `included`."""
    groups: tuple[CanaryGroup, ...] = ()
    """Exploratory groups: no test of the claim looks at them."""
    vocabulary: str | None = None
    """`vocabulary_digest` of the tokenizer that the set was drawn for; None if none was named."""

    @property
    def gating(self) -> CanaryGroup:
        """The gating canaries as a group."""
        return CanaryGroup(self.family, "exempt", self.copies, self.canaries)

    @property
    def every_group(self) -> tuple[CanaryGroup, ...]:
        """The gating group, then the exploratory ones."""
        return self.gating, *self.groups

    @property
    def commitment(self) -> str:
        """`sha256:...` over nonce, vocabulary, families and all canaries in canonical JSON."""
        return digest(self._content())

    @property
    def copies(self) -> int:
        """Units an included gating canary occupies, 1 if there is none."""
        return self.canaries[0].copies if self.canaries else 1

    @property
    def space_bits(self) -> float:
        """log2 |R| of the smallest space of a gating canary; 0 if there is none."""
        return min((canary.space_bits for canary in self.canaries), default=0.0)

    def included(self) -> tuple[Canary, ...]:
        """The gating canaries that go into training, in order."""
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
            "groups": [group.public() for group in self.groups],
            "vocabulary": self.vocabulary,
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
            vocabulary = value["vocabulary"]
            result = cls(
                family=str(value["family"]),
                nonce=str(value["nonce"]),
                canaries=tuple(Canary.from_json(entry) for entry in value["canaries"]),
                groups=tuple(CanaryGroup.from_json(entry) for entry in value["groups"]),
                vocabulary=None if vocabulary is None else str(vocabulary),
            )
            opened = result.commitment
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(
                "a canary file with a missing or malformed field",
                "every canary has id, prefix, secret, alphabets, included, copies and text",
                "pass the canary file that the run wrote",
            ) from error
        if opened != value.get("commitment"):
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
        return {
            "schema": SCHEMA,
            "family": self.family,
            "nonce": self.nonce,
            "canaries": [canary.to_json() for canary in self.canaries],
            "groups": [group.to_json() for group in self.groups],
            "vocabulary": self.vocabulary,
        }


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
    draw = SecretRandom(secret if secret is not None else os.urandom(32))
    nonce = draw.getrandbits(256).to_bytes(32, "big").hex()
    prefix = distinct(lambda: tuple(draw.sample(prefixes, prefix_length)))
    canaries = tuple(
        product_canary(draw, f"c{number:05d}", prefix(), tokens, length, alphabet, copies)
        for number in range(count)
    )
    return CanarySet(family=GATING_FAMILY, nonce=nonce, canaries=canaries)


def product_canary(
    draw: SecretRandom,
    name: str,
    prefix: tuple[int, ...],
    tokens: Sequence[int],
    length: int,
    alphabet: int,
    copies: int,
) -> Canary:
    """A canary with a secret uniform in a product of fresh alphabets of `tokens`, and its coin."""
    alphabets = tuple(tuple(sorted(draw.sample(tokens, alphabet))) for _ in range(length))
    return Canary(
        id=name,
        prefix=prefix,
        secret=tuple(draw.choice(choices) for choices in alphabets),
        alphabets=alphabets,
        included=draw.coin(),
        copies=copies,
    )


def _check_set(canaries: CanarySet) -> None:
    """Structure that scoring relies on; a committed set may still be malformed."""
    groups = canaries.groups
    names = [canary.id for group in canaries.every_group for canary in group.canaries]
    sound = (
        len(set(names)) == len(names)
        and len({group.name for group in groups}) == len(groups)
        and all(_sound(group) for group in canaries.every_group)
        and all(group.canaries for group in groups)
    )
    if not sound:
        raise UserError(
            "a malformed canary set",
            "ids and groups differ, lengths and copies agree, each secret lies in its alphabets, a "
            f"space of 2^{SMALLEST_SPACE_BITS} or more, or was drawn as a text",
            "draw the set with plan_canaries, or with `dpmlm audit canaries plan`",
        )


def _sound(group: CanaryGroup) -> bool:
    rows = group.canaries
    if any(canary.copies != group.copies or canary.copies < 1 for canary in rows):
        return False
    if any(token < 0 for canary in rows for token in canary.tokens):
        return False
    if not group.exact:
        return all(canary.text and canary.secret and not canary.alphabets for canary in rows)
    if rows and group.space_bits < SMALLEST_SPACE_BITS:
        return False
    return all(
        len(canary.secret) == len(canary.alphabets) == len(rows[0].secret) > 0
        and {len(row) for row in canary.alphabets} == {len(rows[0].alphabets[0])}
        and all(len(set(row)) == len(row) for row in canary.alphabets)
        and all(token in row for token, row in zip(canary.secret, canary.alphabets))
        for canary in rows
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
