"""Which documents go, which stay, and on which corpus the privacy claim then stands.

**Stable**: one record decides over no other. Unit document: the corpus becomes a *set of texts*.
A text's id and unit are keyed hashes of the text, nothing of a surviving record remains, and so
one record more or less is at most one training unit more or less. A text is held out only if no
copy of it falls in training. Unit person: equal texts within one person are kept once; across
persons they stay, since removing one person must not move texts to others.

**Quality** (near-duplicates are removed, or repeated passages cut): exact and near-duplicates go
over the whole corpus. One record decides whether others survive, which a claim on the source
corpus does not withstand (Debenedetti et al. 2023, arXiv 2309.05610): the claim is about the
deduplicated corpus.

Whatever the mode, nothing depends on the order of the input: texts are numbered in the order in
which `dedup.keep` prefers their documents, ids decide what is equal, and of a cluster the first
survives.
"""

import hmac
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpmlm.config import DedupConfig
from dpmlm.corpus import Document, Unit, unit_of
from dpmlm.dedup.bands import Buckets
from dpmlm.dedup.catalogue import Catalogue, Held, Shelf
from dpmlm.dedup.clusters import Clusters
from dpmlm.dedup.pairs import Proofs, across_split, near_clusters
from dpmlm.dedup.records import CrossSplitPair, Decisions, DedupResult, Removal, Renamed
from dpmlm.errors import UserError

REPORT_THRESHOLD = 0.8
"""Similarity from which pairs across the split are reported where nothing near is removed."""

_TEXTS_HELD = 200_000  # of a set of texts, while it is written in the order of its ids


def deduplicate(
    documents: Sequence[dict[str, Any]], rules: DedupConfig, *, unit: Unit, key: bytes
) -> DedupResult:
    """`decide` for documents in memory, and what becomes of each; passages are not looked at."""
    shelf = Held(documents)
    decisions = decide(shelf, rules, unit=unit, key=key)
    removed = [(documents[place], why) for place, why in decisions.removals.items()]
    return DedupResult(
        list(kept(shelf, decisions)),
        sorted(removed, key=lambda item: item[1].id),
        decisions.cross_split,
    )


def decide(shelf: Shelf, rules: DedupConfig, *, unit: Unit, key: bytes) -> Decisions:
    """What is said twice; see the head of this file for the two modes.

    The documents are stage documents (id, text, unit, split, source, row) with unique ids. `key`
    names the texts of the stable form for unit document. Raises UserError for an unknown unit or
    an id used twice.
    """
    if unit not in ("document", "person"):
        raise UserError(f"unit {unit!r}", "a unit is document or person", "choose one of the two")
    catalogue = shelf.catalogue()
    copies = _Copies.of(catalogue, catalogue.order(rules.keep))
    clusters, cross_split = _near(shelf, copies, rules)
    cross_split += _exact_across(copies)
    renamed = None
    if rules.mode == "quality":
        removals = _one_a_cluster(copies, clusters)
    elif unit == "document":
        renamed, removals = _set_of_texts(copies, key)
    else:
        removals = _once_a_person(copies)
    cross_split.sort(key=lambda pair: pair.validation)
    return Decisions(dict(sorted(removals.items())), renamed, cross_split)


def kept(shelf: Shelf, decisions: Decisions) -> Iterator[dict[str, Any]]:
    """What stays, read from the shelf again."""
    if decisions.renamed is not None:
        yield from _as_a_set(shelf, decisions.renamed)
        return
    place = 0
    for chunk in shelf.chunks():
        for document in chunk:
            if place not in decisions.removals:
                yield document
            place += 1


def removed(shelf: Shelf, decisions: Decisions) -> Iterator[tuple[dict[str, Any], Removal]]:
    """What goes, whole, each with its certificate; in the order of the input."""
    place = 0
    for chunk in shelf.chunks():
        for document in chunk:
            if place in decisions.removals:
                yield document, decisions.removals[place]
            place += 1


@dataclass(frozen=True)
class _Copies:
    """Distinct texts, numbered as `Catalogue.order` has their documents."""

    catalogue: Catalogue
    members: list[list[int]]
    """Places of the documents that carry each text, the preferred one first."""

    @classmethod
    def of(cls, catalogue: Catalogue, order: list[int]) -> "_Copies":
        groups: dict[bytes, list[int]] = {}
        for place in order:
            groups.setdefault(catalogue.digests[place], []).append(place)
        return cls(catalogue, list(groups.values()))

    def numbers(self) -> np.ndarray:
        """Of each place the number of its text, -1 where another document stands for it [N]."""
        numbers = np.full(len(self.catalogue), -1, dtype=np.int64)
        numbers[[group[0] for group in self.members]] = np.arange(len(self.members))
        return numbers

    def id(self, text: int) -> str:
        """Of the first document with a text."""
        return self.catalogue.ids[self.members[text][0]]

    def exact(self, places: Iterable[int], duplicate_of: str, survivor: str) -> dict[int, Removal]:
        """Certificates of documents that repeat a text to the letter."""
        ids = self.catalogue.ids
        return {p: Removal(ids[p], duplicate_of, 1.0, "exact", survivor) for p in places}

    def side(self, text: int, split: str) -> list[str]:
        """Ids of the documents with a text on one side of the split, in order."""
        ids, splits = self.catalogue.ids, self.catalogue.splits
        return sorted(ids[place] for place in self.members[text] if splits[place] == split)

    def on(self, split: str) -> np.ndarray:
        """Whether each text stands on a side of the split."""
        splits = self.catalogue.splits
        return np.array([any(splits[p] == split for p in group) for group in self.members], bool)


def _near(
    shelf: Shelf, copies: _Copies, rules: DedupConfig
) -> tuple[Clusters, list[CrossSplitPair]]:
    """Clusters of near-duplicates, and near pairs across the split."""
    threshold = rules.near.threshold if rules.near else REPORT_THRESHOLD
    buckets = Buckets.of(shelf.signatures, copies.numbers(), threshold)
    places = {copies.members[text][0]: text for text in buckets.numbers.tolist()}
    texts = {places[place]: text for place, text in shelf.texts(places).items()}
    proofs = Proofs(texts, threshold)
    pairs = [
        CrossSplitPair(copies.side(trained, "train")[0], each, similarity, "near")
        for held, trained, similarity in across_split(
            buckets, proofs, train=copies.on("train"), held_out=copies.on("validation")
        )
        for each in copies.side(held, "validation")
    ]
    return near_clusters(buckets, proofs) if rules.near else Clusters(), pairs


def _exact_across(copies: _Copies) -> list[CrossSplitPair]:
    """Every held-out document whose very text is in training too."""
    return [
        CrossSplitPair(copies.side(text, "train")[0], held_out, 1.0, "exact")
        for text in np.flatnonzero(copies.on("train") & copies.on("validation")).tolist()
        for held_out in copies.side(text, "validation")
    ]


def _one_a_cluster(copies: _Copies, clusters: Clusters) -> dict[int, Removal]:
    """Quality: the first document of every cluster stays, with all of its fields."""
    links = clusters.links()
    removals: dict[int, Removal] = {}
    for text, group in enumerate(copies.members):
        link = links.get(text)
        survivor = copies.id(text if link is None else link.root)
        removals |= copies.exact(group[1:], copies.id(text), survivor)
        if link is not None:
            removals[group[0]] = Removal(
                copies.id(text), copies.id(link.parent), link.similarity, "near", survivor
            )
    return removals


def _once_a_person(copies: _Copies) -> dict[int, Removal]:
    """Stable, unit person: of a person's equal texts the smallest id stays."""
    catalogue = copies.catalogue
    removals: dict[int, Removal] = {}
    for group in copies.members:
        persons: dict[str, list[int]] = defaultdict(list)
        for place in group:
            persons[catalogue.units[place]].append(place)
        for own in persons.values():
            first = catalogue.ids[own[0]]
            removals |= copies.exact(own[1:], first, first)
    return removals


def _set_of_texts(copies: _Copies, key: bytes) -> tuple[list[Renamed], dict[int, Removal]]:
    """Stable, unit document: texts instead of records, in the order of their new ids."""
    catalogue, renamed = copies.catalogue, []
    removals: dict[int, Removal] = {}
    for group, trained in zip(copies.members, copies.on("train")):
        text = catalogue.digests[group[0]]
        name = hmac.digest(key, b"dpmlm/dedup/text\0" + text, "sha256").hex()[:32]
        unit = unit_of(Document(name, "", None, "", 0), "document", key)
        renamed.append(Renamed(name, unit, "train" if trained else "validation", group[0]))
        removals |= copies.exact(group[1:], name, name)
    return sorted(renamed, key=lambda each: each.id), removals


def _as_a_set(shelf: Shelf, decisions: list[Renamed]) -> Iterator[dict[str, Any]]:
    """The texts of a set in the order of their ids, so many at once that memory holds them."""
    for first in range(0, len(decisions), _TEXTS_HELD):
        some = decisions[first : first + _TEXTS_HELD]
        texts = shelf.texts(each.place for each in some)
        for each in some:
            yield {
                "id": each.id,
                "text": texts[each.place],
                "unit": each.unit,
                "split": each.split,
                "source": "",
                "row": 0,
            }
