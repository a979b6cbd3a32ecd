"""The dedup stage: sketches of every shard, one decision over all, what stays and what goes.

A sketch is what pairing needs of a shard: `catalogue-N` (all but the text) and `signatures-N`
(MinHash values, 512 bytes a document), sealed like all else. Sketches are made shard by shard, by
one process or by many, and go when the stage is done; what is decided does not depend on how the
documents lie in shards.
"""

import functools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmlm.artifacts import SealedFolder
from dpmlm.config import DedupConfig, claim_fields
from dpmlm.corpus import Unit, count_shards, read_shard, shard_name, write_shards
from dpmlm.dedup import Catalogue, Decisions, Shelf, decide, kept, removed
from dpmlm.dedup.passages import Repeated, cut, find_passages
from dpmlm.dedup.signatures import PERMUTATIONS, signatures
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.planted import planted_ids, plants
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.secrets import key_check
from dpmlm.pipeline.stages import BEGUN, SHARD_DONE, ShardWork, do_shard

_CATALOGUE, _SIGNATURES = "catalogue", "signatures"
_CHARACTERS = 1 << 18


def dedup_settings(run: Run) -> dict[str, Any]:
    """What beside the text decides the stage."""
    return claim_fields(run.config.dedup) | {"names": key_check(run.secrets.unit_key)}


def sketch_shard(source: SealedFolder, folder: SealedFolder, number: int) -> None:
    """Sketch one shard of `source`."""
    documents = read_shard(source, number)
    catalogue = Catalogue()
    for document in documents:
        catalogue.add(document)
    folder.write_bytes(shard_name(_CATALOGUE, number), catalogue.to_bytes())
    values = signatures([document["text"] for document in documents])
    folder.write_bytes(shard_name(_SIGNATURES, number), values.astype("<u4").tobytes())


class SealedShelf:
    """The documents of a finished stage, with the sketches of all its shards (`dedup.Shelf`)."""

    def __init__(self, source: SealedFolder, folder: SealedFolder) -> None:
        self._source, self._folder = source, folder
        self._shards = count_shards(source)
        self._catalogue = Catalogue()
        self._starts: list[int] = []
        """Place of the first document of each shard."""
        for number in range(self._shards):
            self._starts.append(len(self._catalogue))
            self._catalogue.extend(folder.read_bytes(shard_name(_CATALOGUE, number)))

    def catalogue(self) -> Catalogue:
        """All documents but their texts."""
        return self._catalogue

    def signatures(self) -> Iterator[NDArray[np.uint32]]:
        """Signatures of a shard at a time."""
        for number in range(self._shards):
            data = self._folder.read_bytes(shard_name(_SIGNATURES, number))
            yield np.frombuffer(data, dtype="<u4").reshape(-1, PERMUTATIONS)

    def chunks(self) -> Iterator[list[dict[str, Any]]]:
        """A shard at a time."""
        for number in range(self._shards):
            yield read_shard(self._source, number)

    def texts(self, places: Iterable[int]) -> dict[int, str]:
        """One pass over the shards that hold them."""
        wanted = np.sort(np.fromiter(places, dtype=np.int64))
        shard_of = np.searchsorted(self._starts, wanted, side="right") - 1
        texts: dict[int, str] = {}
        for number in np.unique(shard_of).tolist():
            documents = read_shard(self._source, number)
            start = self._starts[number]
            for place in wanted[shard_of == number].tolist():
                texts[place] = documents[place - start]["text"]
        return texts


@contextmanager
def sketching(run: Run) -> Iterator[ShardWork]:
    """What one of several workers does for the stage: sketch a shard."""
    source = run.source("dedup")
    yield lambda folder, number, report: sketch_shard(source, folder, number)


def build_dedup(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    """Fill the stage's folder; returns its counts for the manifest."""
    source = run.source("dedup")
    shards = count_shards(source)
    with sketching(run) as sketch:
        for number in range(shards):
            do_shard(folder, number, sketch, report, key=folder.read_json(BEGUN)["key"])
            report(number + 1, shards)
    outcome = settle(
        SealedShelf(source, folder),
        run.config.dedup,
        unit=run.config.privacy.owner,
        key=run.secrets.unit_key,
    )
    planted = planted_ids(run, "dedup")
    per_shard = run.config.corpus.per_shard
    count = write_shards(folder, outcome.staying(), per_shard=per_shard)
    write_shards(folder, outcome.going(), per_shard=per_shard, prefix="removed")
    for name, value in outcome.beside().items():
        folder.write_json(name, value)
    for prefix in (SHARD_DONE, _SIGNATURES, _CATALOGUE):  # in this order, if it is killed here
        for name in folder.names(f"{prefix}-"):
            folder.remove(name)
    counts = {"documents": count, **outcome.counts()}
    if plants(run.config):
        apart = outcome.planted(planted)
        counts["documents"] -= apart["documents"]
        left = Counter(counts["removed"]) - Counter(apart["removed"])
        counts |= {"removed": dict(left), "canaries": apart}
    return {"counts": counts}


@dataclass(frozen=True)
class Outcome:
    """What deduplication came to, and a way to what it is about."""

    shelf: Shelf
    decisions: Decisions
    repeated: Repeated | None
    """None where nobody asked for passages."""
    cut: bool

    def staying(self) -> Iterator[dict[str, Any]]:
        """What stays, without the passages that another document keeps."""
        for document, text in self._cut():
            if text.strip():
                yield document | {"text": text}

    @functools.cached_property
    def emptied(self) -> list[dict[str, Any]]:
        """Documents of which nothing but such passages was there; whole, as they were."""
        if not self.cut:
            return []
        return [document for document, text in self._cut() if not text.strip()]

    def going(self) -> Iterator[dict[str, Any]]:
        """Removed documents, whole, each with its certificate."""
        for document, removal in removed(self.shelf, self.decisions):
            yield {"document": document, "removal": asdict(removal)}

    def beside(self) -> dict[str, Any]:
        """What is kept beside the documents, by the name of its file."""
        found = self.repeated.passages if self.repeated else []
        return {
            "cross_split": [asdict(pair) for pair in self.decisions.cross_split],
            "passages": [asdict(passage) for passage in found],
            "cuts": self._certificates(),
            "renamed": self._renamed(),
            "emptied": self.emptied,
        }

    def _certificates(self) -> dict[str, Any]:
        """What was cut from each document, where it stood, and who keeps it."""
        found = self.repeated.elsewhere if self.repeated and self.cut else {}
        return {name: [asdict(one) for one in cuts] for name, cuts in found.items()}

    def _renamed(self) -> dict[str, str]:
        """In a set of texts: the id that a document had, and that of its text."""
        if self.decisions.renamed is None:
            return {}
        ids = self.shelf.catalogue().ids
        return {ids[one.place]: one.id for one in self.decisions.renamed}

    def counts(self) -> dict[str, Any]:
        """How much of what; private."""
        counts: dict[str, Any] = {
            "removed": self.decisions.removed_by_reason,
            "cross_split_pairs": len(self.decisions.cross_split),
        }
        if self.repeated is not None:
            counts["passages"] = len(self.repeated.passages)
            counts["cut_documents"] = len(self.repeated.elsewhere) if self.cut else 0
            counts["emptied"] = len(self.emptied)
        return counts

    def planted(self, ids: Collection[str]) -> dict[str, Any]:
        """What became of planted canaries: how many stay, and what was removed; private."""
        catalogue = self.shelf.catalogue().ids
        there = {place for place, name in enumerate(catalogue) if name in ids}
        removed = Counter(
            removal.reason for place, removal in self.decisions.removals.items() if place in there
        )
        emptied = sum(document["id"] in ids for document in self.emptied)
        staying = len(there) - removed.total() - emptied
        return {"documents": staying, "removed": dict(removed), "emptied": emptied}

    def _cut(self) -> Iterator[tuple[dict[str, Any], str]]:
        elsewhere = self.repeated.elsewhere if self.repeated and self.cut else {}
        for document in kept(self.shelf, self.decisions):
            yield document, cut(document["text"], elsewhere.get(document["id"], ()))


def settle(shelf: Shelf, rules: DedupConfig, *, unit: Unit, key: bytes) -> Outcome:
    """Decide over a shelf, and look for passages in what stays if the rules ask for it."""
    decisions = decide(shelf, rules, unit=unit, key=key)
    if rules.passages is None:
        return Outcome(shelf, decisions, None, cut=False)
    repeated = find_passages(lambda: _in_chunks(kept(shelf, decisions)), rules.passages)
    return Outcome(shelf, decisions, repeated, rules.passages.cut)


def _in_chunks(documents: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """So many documents at once that their characters fit into a few megabytes."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document["text"])
        if size > _CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
