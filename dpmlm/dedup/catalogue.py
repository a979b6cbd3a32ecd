"""What deduplication keeps in mind of every document: all but the text.

Texts and signatures are read from the shelf they stand on, chunk by chunk, or by place.
"""

import hashlib
import json
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dpmlm.dedup.signatures import signatures
from dpmlm.errors import UserError

Keep = Literal["first", "longest", "least_identifiers"]
"""Which document of a cluster survives; whatever is equal is decided by the smallest id."""


class Catalogue:
    """Columns over the documents of a corpus, in the order they were given."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.units: list[str] = []
        self.held_out = bytearray()
        """1 for a document of the validation split."""
        self.digests = bytearray()
        """SHA-256 of each text, 32 bytes each: equal for equal texts alone."""
        self.lengths = array("q")
        """Characters of each text."""
        self.identifiers = array("q")
        """How many identifiers scrubbing replaced in each; 0 where nothing was scrubbed yet."""

    def add(self, document: Mapping[str, Any]) -> None:
        """Append a stage document (id, text, unit, split; identifiers after scrubbing)."""
        text = document["text"]
        self.ids.append(document["id"])
        self.units.append(sys.intern(document["unit"]))
        self.held_out.append(document["split"] == "validation")
        self.digests += hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        self.lengths.append(len(text))
        self.identifiers.append(document.get("identifiers", 0))

    def to_bytes(self) -> bytes:
        """The columns as JSON, to be sealed."""
        raw = {"held_out": self.held_out.hex(), "digests": self.digests.hex()}
        numbers = {"lengths": list(self.lengths), "identifiers": list(self.identifiers)}
        return json.dumps({"ids": self.ids, "units": self.units, **raw, **numbers}).encode()

    def extend(self, data: bytes) -> None:
        """Append what `to_bytes` wrote."""
        columns = json.loads(data)
        self.ids += columns["ids"]
        self.units += map(sys.intern, columns["units"])
        self.held_out += bytes.fromhex(columns["held_out"])
        self.digests += bytes.fromhex(columns["digests"])
        self.lengths.extend(columns["lengths"])
        self.identifiers.extend(columns["identifiers"])

    def __len__(self) -> int:
        return len(self.ids)

    def order(self, keep: Keep) -> NDArray[np.int64]:
        """Places of the documents, the one that is kept before all others first.

        Raises UserError if an id is there twice.
        """
        order = np.array(sorted(range(len(self)), key=self.ids.__getitem__), dtype=np.int64)
        if any(self.ids[a] == self.ids[b] for a, b in pairwise(order)):
            raise UserError(
                "documents with an id used twice", "ids are unique", "give each document its own id"
            )
        if keep == "first":
            return order
        first = -np.array(self.lengths) if keep == "longest" else np.array(self.identifiers)
        return order[np.argsort(first[order], kind="stable")]

    def texts(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of each document the number of its text: different texts counted as `order` has them."""
        digests = np.frombuffer(bytes(self.digests), dtype="V32")[order]
        _, first, which = np.unique(digests, return_index=True, return_inverse=True)
        rank = np.empty(len(first), dtype=np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        texts = np.empty(len(self), dtype=np.int64)
        texts[order] = rank[which]
        return texts


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
