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
from itertools import chain
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
    copies = _Copies(catalogue, catalogue.order(rules.keep))
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
    for place, document in enumerate(chain.from_iterable(shelf.chunks())):
        if place not in decisions.removals:
            yield document


def removed(shelf: Shelf, decisions: Decisions) -> Iterator[tuple[dict[str, Any], Removal]]:
    """What goes, whole, each with its certificate; in the order of the input."""
    for place, document in enumerate(chain.from_iterable(shelf.chunks())):
        if place in decisions.removals:
            yield document, decisions.removals[place]


class _Copies:
    """Distinct texts, numbered as `Catalogue.order` has their documents."""

    def __init__(self, catalogue: Catalogue, order: np.ndarray) -> None:
        texts = catalogue.texts(order)
        self.catalogue = catalogue
        _, first = np.unique(texts[order], return_index=True)
        self.first = order[first]
        """Place of the preferred document with each text."""
        self.further: dict[int, list[int]] = defaultdict(list)
        """Places of the other documents with a text, in order; nothing where there is none."""
        for place in np.delete(order, first).tolist():
            self.further[int(texts[place])].append(place)
        held_out = np.frombuffer(bytes(catalogue.held_out), dtype=bool)
        self.in_training = np.zeros(len(self.first), dtype=bool)
        self.in_training[texts[~held_out]] = True
        self.held_out = np.zeros(len(self.first), dtype=bool)
        self.held_out[texts[held_out]] = True

    def places(self, text: int) -> list[int]:
        """Of all documents with a text, the preferred one first."""
        return [int(self.first[text]), *self.further.get(text, ())]

    def numbers(self) -> np.ndarray:
        """Of each place the number of its text, -1 where another document stands for it [N]."""
        numbers = np.full(len(self.catalogue), -1, dtype=np.int64)
        numbers[self.first] = np.arange(len(self.first))
        return numbers

    def id(self, text: int) -> str:
        """Of the preferred document with a text."""
        return self.catalogue.ids[self.first[text]]

    def side(self, text: int, *, held_out: bool) -> list[str]:
        """Ids of the documents with a text on one side of the split, in order."""
        catalogue = self.catalogue
        return sorted(
            catalogue.ids[place]
            for place in self.places(text)
            if catalogue.held_out[place] == held_out
        )

    def exact(self, places: Iterable[int], duplicate_of: str, survivor: str) -> dict[int, Removal]:
        """Certificates of documents that repeat a text to the letter."""
        ids = self.catalogue.ids
        return {p: Removal(ids[p], duplicate_of, 1.0, "exact", survivor) for p in places}


def _near(
    shelf: Shelf, copies: _Copies, rules: DedupConfig
) -> tuple[Clusters, list[CrossSplitPair]]:
    """Clusters of near-duplicates, and near pairs across the split."""
    threshold = rules.near.threshold if rules.near else REPORT_THRESHOLD
    buckets = Buckets.of(shelf.signatures, copies.numbers(), threshold)
    places = {int(copies.first[text]): text for text in buckets.likely().tolist()}
    texts = {places[place]: text for place, text in shelf.texts(places).items()}
    proofs = Proofs(texts, threshold)
    pairs = [
        CrossSplitPair(copies.side(trained, held_out=False)[0], each, similarity, "near")
        for held, trained, similarity in across_split(
            buckets, proofs, train=copies.in_training, held_out=copies.held_out
        )
        for each in copies.side(held, held_out=True)
    ]
    return near_clusters(buckets, proofs) if rules.near else Clusters(), pairs


def _exact_across(copies: _Copies) -> list[CrossSplitPair]:
    """Every held-out document whose very text is in training too."""
    return [
        CrossSplitPair(copies.side(text, held_out=False)[0], held_out, 1.0, "exact")
        for text in np.flatnonzero(copies.in_training & copies.held_out).tolist()
        for held_out in copies.side(text, held_out=True)
    ]


def _one_a_cluster(copies: _Copies, clusters: Clusters) -> dict[int, Removal]:
    """Quality: the first document of every cluster stays, with all of its fields."""
    links = clusters.links()
    removals: dict[int, Removal] = {}
    for text, further in copies.further.items():
        survivor = copies.id(links[text].root if text in links else text)
        removals |= copies.exact(further, copies.id(text), survivor)
    for text, link in links.items():
        removals[int(copies.first[text])] = Removal(
            copies.id(text), copies.id(link.parent), link.similarity, "near", copies.id(link.root)
        )
    return removals


def _once_a_person(copies: _Copies) -> dict[int, Removal]:
    """Stable, unit person: of a person's equal texts the smallest id stays."""
    catalogue = copies.catalogue
    removals: dict[int, Removal] = {}
    for text in copies.further:
        persons: dict[str, list[int]] = defaultdict(list)
        for place in copies.places(text):
            persons[catalogue.units[place]].append(place)
        for own in persons.values():
            first = catalogue.ids[own[0]]
            removals |= copies.exact(own[1:], first, first)
    return removals


def _set_of_texts(copies: _Copies, key: bytes) -> tuple[list[Renamed], dict[int, Removal]]:
    """Stable, unit document: texts instead of records, in the order of their new ids."""
    renamed: list[Renamed] = []
    removals: dict[int, Removal] = {}
    for text, place in enumerate(copies.first.tolist()):
        digest = bytes(copies.catalogue.digests[32 * place : 32 * place + 32])
        name = hmac.digest(key, b"dpmlm/dedup/text\0" + digest, "sha256").hex()[:32]
        unit = unit_of(Document(name, "", None, "", 0), "document", key)
        split = "train" if copies.in_training[text] else "validation"
        renamed.append(Renamed(name, unit, split, place))
        removals |= copies.exact(copies.further.get(text, ()), name, name)
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
