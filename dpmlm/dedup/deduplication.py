"""Which documents go, which stay, and on which corpus the privacy claim then stands.

**Stable** (threshold None): one record decides over no other. Unit document: the corpus becomes
a *set of texts*. A text's id and unit are keyed hashes of the text, nothing of a surviving record
remains, and so one record more or less is at most one training unit more or less. A text is
held out only if no copy of it falls in training. Unit person: equal texts within one person are
kept once; across persons they stay, since removing one person must not move texts to others.

**Quality** (a threshold): exact and near-duplicates are removed over the whole corpus. One record
decides whether others survive, which a claim on the source corpus does not withstand
(Debenedetti et al. 2023, arXiv 2309.05610): the claim is about the deduplicated corpus.

Whatever the mode, nothing depends on the order of the input: of a cluster the document with the
smallest id survives.
"""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dpmlm.corpus import Document, Unit, unit_of
from dpmlm.dedup.candidates import Progress, verified_pairs
from dpmlm.dedup.clusters import Clusters
from dpmlm.dedup.records import CrossSplitPair, DedupResult, Removal
from dpmlm.errors import UserError

REPORT_THRESHOLD = 0.8
"""Similarity from which pairs across the split are reported where nothing near is removed."""

Documents = Sequence[dict[str, Any]]
_Removed = list[tuple[dict[str, Any], Removal]]


Mode = Literal["stable", "quality"]


def mode_of(threshold: float | None) -> Mode:
    """Whether one record decides over others in `deduplicate` with this threshold."""
    return "stable" if threshold is None else "quality"


def scope_of(threshold: float | None) -> Literal["source corpus", "deduplicated corpus"]:
    """Which corpus the privacy claim is about after `deduplicate` with this threshold."""
    return "source corpus" if mode_of(threshold) == "stable" else "deduplicated corpus"


def deduplicate(
    documents: Documents,
    *,
    threshold: float | None,
    unit: Unit,
    key: bytes,
    progress: Progress | None = None,
) -> DedupResult:
    """Remove what is said twice; see the head of this file for the two modes.

    `documents` are stage documents (id, text, unit, split, source, row) with unique ids.
    `threshold` is the Jaccard similarity of word 5-shingles in [0.5, 1] from which two texts are
    near-duplicates; None removes equal texts alone, in the stable form. `key` names the texts of
    the stable form for unit document. `progress` is called with texts done and texts in all.
    Raises UserError for a threshold out of range, an unknown unit or an id used twice.
    """
    _check(documents, threshold, unit)
    copies = _Copies.of(documents)
    clusters = Clusters(len(copies.texts))
    cross_split = _exact_across(copies)
    keep_near = threshold is not None

    def wanted(left: int, right: int) -> bool:
        joins = keep_near and not clusters.connected(left, right)
        return joins or copies.across(left, right)

    level = REPORT_THRESHOLD if threshold is None else threshold
    for left, right, similarity in verified_pairs(copies.texts, level, wanted, progress):
        if keep_near:
            clusters.join(left, right, similarity)
        cross_split += _near_across(copies, left, right, similarity)

    if keep_near:
        kept, removed = _one_a_cluster(documents, copies, clusters)
    elif unit == "document":
        kept, removed = _set_of_texts(copies, key)
    else:
        kept, removed = _once_a_person(documents, copies)
    return DedupResult(
        kept,
        sorted(removed, key=lambda item: item[1].id),
        sorted(cross_split, key=lambda pair: (pair.validation, -pair.similarity, pair.train)),
    )


@dataclass(frozen=True)
class _Copies:
    """Distinct texts and the documents that carry each, in the order of smallest ids."""

    texts: list[str]
    members: list[list[dict[str, Any]]]  # of each text, in the order of ids
    splits: list[frozenset[str]]  # of each text, where its documents fall

    @classmethod
    def of(cls, documents: Documents) -> "_Copies":
        groups: dict[str, list[dict[str, Any]]] = {}
        for document in sorted(documents, key=lambda document: document["id"]):
            groups.setdefault(document["text"], []).append(document)
        members = list(groups.values())
        splits = [frozenset(document["split"] for document in group) for group in members]
        return cls(list(groups), members, splits)

    def across(self, left: int, right: int) -> bool:
        """Whether a pair of documents with these texts falls on both sides of the split."""
        return len(self.splits[left] | self.splits[right]) > 1

    def side(self, text: int, split: str) -> list[dict[str, Any]]:
        return [document for document in self.members[text] if document["split"] == split]


def _check(documents: Documents, threshold: float | None, unit: str) -> None:
    if threshold is not None and not 0.5 <= threshold <= 1:
        raise UserError(
            f"dedup.near.threshold {threshold}",
            "the similarity is in [0.5, 1]",
            "choose one in the range, or null to remove equal texts alone",
        )
    if unit not in ("document", "person"):
        raise UserError(f"unit {unit!r}", "a unit is document or person", "choose one of the two")
    if len({document["id"] for document in documents}) != len(documents):
        raise UserError(
            "documents with an id used twice", "ids are unique", "give each document its own id"
        )


def _one_a_cluster(
    documents: Documents, copies: _Copies, clusters: Clusters
) -> tuple[list[dict[str, Any]], _Removed]:
    """Near mode: the smallest id of every cluster stays, with all of its fields."""
    links, removed = clusters.links(), []
    for number, group in enumerate(copies.members):
        link = links.get(number)
        survivor = group[0]["id"] if link is None else copies.members[link.root][0]["id"]
        removed += _removals(group[1:], group[0]["id"], survivor)
        if link is not None:
            parent = copies.members[link.parent][0]["id"]
            first = group[0]
            removed.append((first, Removal(first["id"], parent, link.similarity, "near", survivor)))
    return _without(documents, removed), removed


def _once_a_person(documents: Documents, copies: _Copies) -> tuple[list[dict[str, Any]], _Removed]:
    """Stable mode, unit person: of a person's equal texts the smallest id stays."""
    removed: _Removed = []
    for group in copies.members:
        persons: dict[str, list[dict[str, Any]]] = {}
        for document in group:
            persons.setdefault(document["unit"], []).append(document)
        for own in persons.values():
            removed += _removals(own[1:], own[0]["id"], own[0]["id"])
    return _without(documents, removed), removed


def _set_of_texts(copies: _Copies, key: bytes) -> tuple[list[dict[str, Any]], _Removed]:
    """Stable mode, unit document: texts instead of records, in the order of their new ids."""
    kept, removed = [], []
    for text, group, splits in zip(copies.texts, copies.members, copies.splits):
        name = hmac.digest(key, b"dpmlm/dedup/text\0" + text.encode(), "sha256").hex()[:32]
        unit = unit_of(Document(name, text, None, "", 0), "document", key)
        split = "train" if "train" in splits else "validation"
        kept.append(
            {"id": name, "text": text, "unit": unit, "split": split, "source": "", "row": 0}
        )
        removed += _removals(group[1:], name, name)
    return sorted(kept, key=lambda document: document["id"]), removed


def _removals(documents: Iterable[dict[str, Any]], duplicate_of: str, survivor: str) -> _Removed:
    return [
        (document, Removal(document["id"], duplicate_of, 1.0, "exact", survivor))
        for document in documents
    ]


def _without(documents: Documents, removed: _Removed) -> list[dict[str, Any]]:
    gone = {removal.id for _, removal in removed}
    return [document for document in documents if document["id"] not in gone]


def _exact_across(copies: _Copies) -> list[CrossSplitPair]:
    """Every held-out document whose very text is in training too."""
    return [
        CrossSplitPair(copies.side(number, "train")[0]["id"], held_out["id"], 1.0, "exact")
        for number, splits in enumerate(copies.splits)
        if len(splits) > 1
        for held_out in copies.side(number, "validation")
    ]


def _near_across(copies: _Copies, left: int, right: int, similarity: float) -> list[CrossSplitPair]:
    """Held-out documents of either text against the first training document of the other."""
    return [
        CrossSplitPair(copies.side(train, "train")[0]["id"], held_out["id"], similarity, "near")
        for train, other in ((left, right), (right, left))
        if "train" in copies.splits[train]
        for held_out in copies.side(other, "validation")
    ]
