"""Canaries: secrets drawn at random, half of them inserted by fair coins, committed beforehand.

Secrets and coins are two files (`labels.py` has the coins), each hidden by a nonce of its own. The
commitment is one hash over the digests of both. It is written into the run before training; the
coins stay sealed until the scores are there. Whoever audits later checks that neither a secret nor
a coin was changed after the model was seen.

A set has one gating group, the only one that tests of the claim use, and any number of exploratory
groups of other families, copies and arms (`families.py` draws them). No two groups are pooled.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from audits.planting.canary import Canary, CanaryGroup
from audits.planting.labels import Labels
from audits.planting.secret_random import SecretRandom, distinct
from dpmlm.artifacts import IntegrityError, SealedFolder, UserError, digest

SCHEMA = "dpmlm.canaries/3"
PUBLIC_SCHEMA = "dpmlm.commitment/1"
SMALLEST_SPACE_BITS = 30
GATING_FAMILY = "rare_tokens"
_FILE = "canaries"


@dataclass(frozen=True)
class CanarySet:
    """Every secret of one run, in order, and once they are opened the labels, by id."""

    family: str
    """How the gating canaries were made; canaries of two families are never pooled."""
    nonce: str
    """64 hex digits; without it the commitment says nothing about the secrets."""
    labels_digest: str
    """`Labels.digest` of the coins that were drawn with the secrets."""
    canaries: tuple[Canary, ...]
    """The gating group, included and held-out ones; which is which is in the labels."""
    groups: tuple[CanaryGroup, ...] = ()
    """Exploratory groups: no test of the claim looks at them."""
    vocabulary: str | None = None
    """`vocabulary_digest` of the tokenizer that the set was drawn for; None if none was named."""
    labels: Labels | None = None
    """The coins; None while they are sealed."""

    def __post_init__(self) -> None:
        if self.labels is not None:
            self._join(self.labels)

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
        """`sha256:...` over the digest of the secrets and that of the labels.

        The first is over nonce, vocabulary, families and all canaries in canonical JSON.
        """
        parts = {"secrets": digest(self._content()), "labels": self.labels_digest}
        return digest({"schema": SCHEMA, **parts})

    @property
    def copies(self) -> int:
        """Units an included gating canary occupies, 1 if there is none."""
        return self.canaries[0].copies if self.canaries else 1

    @property
    def space_bits(self) -> float:
        """log2 |R| of the smallest space of a gating canary; 0 if there is none."""
        return min((canary.space_bits for canary in self.canaries), default=0.0)

    @property
    def opened(self) -> Labels:
        """The labels. Raises UserError while they are sealed."""
        if self.labels is None:
            raise UserError(
                "canaries without their labels",
                "whoever inserts or judges them must know which are included",
                "join the labels that were drawn with them (CanarySet.with_labels)",
            )
        return self.labels

    def with_labels(self, labels: Labels) -> "CanarySet":
        """The set with its labels, joined by id.

        Raises IntegrityError for labels that lack a canary, have another, or are not those that
        the commitment binds.
        """
        return replace(self, labels=labels)

    def without_labels(self) -> "CanarySet":
        """The secrets alone: what may be scored."""
        return replace(self, labels=None)

    def included(self) -> tuple[Canary, ...]:
        """The gating canaries that go into training, in order. Raises UserError without labels."""
        return self.opened.included(self.canaries)

    def public(self) -> dict[str, Any]:
        """What may be published before training: counts and the commitment, no secret, no coin."""
        return {
            "schema": PUBLIC_SCHEMA,
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
        """The secrets with their commitment; no coin is in it."""
        return {
            **self._content(),
            "labels_digest": self.labels_digest,
            "commitment": self.commitment,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "CanarySet":
        """Rebuild the secrets. Raises IntegrityError when they do not open their commitment."""
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
                labels_digest=str(value["labels_digest"]),
                canaries=tuple(Canary.from_json(entry) for entry in value["canaries"]),
                groups=tuple(CanaryGroup.from_json(entry) for entry in value["groups"]),
                vocabulary=None if vocabulary is None else str(vocabulary),
            )
            opened = result.commitment
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(
                "a canary file with a missing or malformed field",
                "every canary has id, prefix, secret, alphabets, copies and text",
                "pass the canary file that the run wrote",
            ) from error
        if opened != value.get("commitment"):
            raise IntegrityError(
                f"a canary file committed to as {value.get('commitment')}",
                "its content hashes to another value: a canary was changed",
                "use the file that was committed before training",
            )
        _check_set(result)
        return result

    def write(self, folder: SealedFolder) -> None:
        """Seal secrets and labels into `folder`, a file each."""
        folder.write_json(_FILE, self.to_json())
        self.opened.write(folder)

    @classmethod
    def read(cls, folder: SealedFolder) -> "CanarySet":
        """Read the secrets that `write` sealed, and leave the labels closed (`Labels.read`).

        Raises IntegrityError as `from_json` does.
        """
        return cls.from_json(folder.read_json(_FILE))

    def _join(self, labels: Labels) -> None:
        own = {canary.id for group in self.every_group for canary in group.canaries}
        missing, surplus = len(own - set(labels.coins)), len(set(labels.coins) - own)
        if missing or surplus:
            raise IntegrityError(
                f"labels that lack {missing} of the canaries and have {surplus} of no canary",
                "each canary has one label, joined by id",
                "pass the labels that were drawn with these canaries",
            )
        if labels.digest != self.labels_digest:
            raise IntegrityError(
                f"labels of digest {labels.digest}",
                f"the canaries were committed to with {self.labels_digest}: a label was changed",
                "pass the labels that were drawn with these canaries",
            )

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
    groups: Sequence[CanaryGroup] = (),
    vocabulary: str | None = None,
    coins: Mapping[str, bool] | None = None,
    secret: bytes | None = None,
) -> CanarySet:
    """Draw `count` canaries of the family `rare_tokens`, with their coins, before training.

    A run without canaries has count 0.
    Every position of a secret has its own random subset of `alphabet` of the candidate
    `token_ids`, and the secret is uniform in their product (64^6 = 2^36 by default). Prefixes are
    `prefix_length` distinct random ones of `prefix_ids`, no two alike. `groups` were drawn
    before, and `coins` are those of their canaries that were tossed already. All other randomness
    comes from `secret` (32 bytes of the operating system by default): equal bytes give an equal
    set. Raises UserError when the space is below 2^30 or the candidates do not suffice.
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
    ids = [canary.id for rows in (canaries, *(g.canaries for g in groups)) for canary in rows]
    drawn = Labels.draw(ids, draw)
    labels = replace(drawn, coins={**drawn.coins, **(coins or {})})
    return CanarySet(
        family=GATING_FAMILY,
        nonce=nonce,
        labels_digest=labels.digest,
        canaries=canaries,
        groups=tuple(groups),
        vocabulary=vocabulary,
        labels=labels,
    )


def product_canary(
    draw: SecretRandom,
    name: str,
    prefix: tuple[int, ...],
    tokens: Sequence[int],
    length: int,
    alphabet: int,
    copies: int,
) -> Canary:
    """A canary with a secret uniform in a product of fresh alphabets of `tokens`."""
    alphabets = tuple(tuple(sorted(draw.sample(tokens, alphabet))) for _ in range(length))
    return Canary(
        id=name,
        prefix=prefix,
        secret=tuple(draw.choice(choices) for choices in alphabets),
        alphabets=alphabets,
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
