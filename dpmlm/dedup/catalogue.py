"""What deduplication keeps in mind of every document: all but the text.

A document takes some 400 bytes here; its text and its signature are read from the shelf they
stand on, chunk by chunk, or by name.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dpmlm.dedup.signatures import signatures
from dpmlm.errors import UserError

Keep = Literal["first", "longest", "least_identifiers"]
"""Which document of a cluster survives; whatever is equal is decided by the smallest id."""


@dataclass
class Catalogue:
    """Columns over the documents of a corpus, in the order they were given."""

    ids: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    """SHA-256 of each text: equal for equal texts alone."""
    lengths: list[int] = field(default_factory=list)
    """Characters of each text."""
    identifiers: list[int] = field(default_factory=list)
    """How many identifiers scrubbing replaced in each; 0 where nothing was scrubbed yet."""

    def add(self, document: Mapping[str, Any]) -> None:
        """Append a stage document (id, text, unit, split; identifiers after scrubbing)."""
        text = document["text"]
        self.ids.append(document["id"])
        self.units.append(document["unit"])
        self.splits.append(document["split"])
        self.digests.append(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        self.lengths.append(len(text))
        self.identifiers.append(document.get("identifiers", 0))

    def to_bytes(self) -> bytes:
        """The columns as JSON, to be sealed."""
        columns = {**vars(self), "digests": [digest.hex() for digest in self.digests]}
        return json.dumps(columns).encode()

    def extend(self, data: bytes) -> None:
        """Append what `to_bytes` wrote."""
        columns = json.loads(data)
        columns["digests"] = [bytes.fromhex(digest) for digest in columns["digests"]]
        for name, column in vars(self).items():
            column += columns[name]

    def __len__(self) -> int:
        return len(self.ids)

    def order(self, keep: Keep) -> list[int]:
        """Places of the documents, the one that is kept before all others first."""
        first: dict[Keep, Sequence[int]] = {
            "first": [0] * len(self),
            "longest": [-length for length in self.lengths],
            "least_identifiers": self.identifiers,
        }
        by = first[keep]
        order = sorted(range(len(self)), key=lambda place: (by[place], self.ids[place]))
        if len(set(self.ids)) < len(self):
            raise UserError(
                "documents with an id used twice", "ids are unique", "give each document its own id"
            )
        return order


class Shelf(Protocol):
    """Where documents stand: read in chunks, or by place, as often as it is needed."""

    def catalogue(self) -> Catalogue:
        """All documents but their texts."""

    def signatures(self) -> Iterator[NDArray[np.uint32]]:
        """Signatures of all texts in their order, in chunks [n, PERMUTATIONS]."""

    def chunks(self) -> Iterator[list[dict[str, Any]]]:
        """All documents in their order."""

    def texts(self, places: Iterable[int]) -> dict[int, str]:
        """The texts at some places."""


class Held:
    """A shelf in memory."""

    def __init__(self, documents: Sequence[dict[str, Any]]) -> None:
        self._documents = documents
        self._values = signatures([document["text"] for document in documents])

    def catalogue(self) -> Catalogue:
        """All documents but their texts."""
        catalogue = Catalogue()
        for document in self._documents:
            catalogue.add(document)
        return catalogue

    def signatures(self) -> Iterator[NDArray[np.uint32]]:
        """Signatures of all texts."""
        yield self._values

    def chunks(self) -> Iterator[list[dict[str, Any]]]:
        """All documents."""
        yield list(self._documents)

    def texts(self, places: Iterable[int]) -> dict[int, str]:
        """The texts at some places."""
        return {place: self._documents[place]["text"] for place in places}
