"""Labels: which of the planned canaries are inserted, apart from their secrets.

Scores need the secrets and must not know the coins; the coins are of use only once scores are
written. So they are a file of their own, with a nonce of its own, and are joined by id. The
commitment of the set (`canaries.py`) binds both.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from audits.planting.secret_random import SecretRandom
from dpmlm.artifacts import SealedFolder, UserError, digest

SCHEMA = "dpmlm.labels/1"
_FILE = "labels"


class Named(Protocol):
    """What is joined by its id."""

    @property
    def id(self) -> str: ...


OneNamed = TypeVar("OneNamed", bound=Named)


@dataclass(frozen=True)
class Labels:
    """The fair coin of every canary of a set, by id."""

    nonce: str
    """64 hex digits; without it the digest says nothing about the coins."""
    coins: Mapping[str, bool] = field(repr=False)
    """Whether the canary of that id is inserted into training."""

    @classmethod
    def draw(cls, ids: Iterable[str], draw: SecretRandom) -> "Labels":
        """A nonce, and a fair coin for each id in order."""
        nonce = draw.getrandbits(256).to_bytes(32, "big").hex()
        return cls(nonce, {name: draw.coin() for name in ids})

    @property
    def digest(self) -> str:
        """`sha256:...` over nonce and coins in canonical JSON."""
        return digest(self.to_json())

    def of(self, canaries: Sequence[Named]) -> tuple[bool, ...]:
        """The coins of these canaries, in their order. Raises KeyError for one that has none."""
        return tuple(self.coins[canary.id] for canary in canaries)

    def included(self, canaries: Sequence[OneNamed]) -> tuple[OneNamed, ...]:
        """Those of these canaries that go into training, in order."""
        return tuple(canary for canary in canaries if self.coins[canary.id])

    def to_json(self) -> dict[str, Any]:
        """Nonce and coins; secret until scores are written."""
        return {"schema": SCHEMA, "nonce": self.nonce, "included": dict(self.coins)}

    @classmethod
    def from_json(cls, value: Any) -> "Labels":
        """Rebuild labels. Raises UserError for anything else."""
        coins = value.get("included") if isinstance(value, dict) else None
        sound = (
            isinstance(coins, dict)
            and value.get("schema") == SCHEMA
            and re.fullmatch("[0-9a-f]{64}", str(value.get("nonce"))) is not None
            and all(type(coin) is bool for coin in coins.values())
        )
        if not sound or not isinstance(coins, dict):
            raise UserError(
                "a file that is no labels",
                f"labels are a JSON object of schema {SCHEMA}: a nonce, and true or false by id",
                "pass the labels that were drawn with the canaries",
            )
        return cls(value["nonce"], coins)

    def write(self, folder: SealedFolder) -> None:
        """Seal the labels into `folder`, as a file of their own."""
        folder.write_json(_FILE, self.to_json())

    @classmethod
    def read(cls, folder: SealedFolder) -> "Labels":
        """Read what `write` sealed. Raises UserError as `from_json` does."""
        return cls.from_json(folder.read_json(_FILE))
