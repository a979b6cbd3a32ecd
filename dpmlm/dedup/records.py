"""What deduplication decides and reports. All of it is private: kept sealed, for the auditor."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal["exact", "near"]


@dataclass(frozen=True)
class Removal:
    """Why one document was removed: the certificate that stays with it."""

    id: str
    """The removed document."""
    duplicate_of: str
    """The document it was compared with and found to repeat. In a chain of near-duplicates that
    one may be removed too; following the chain ends at `survivor`."""
    similarity: float
    """Exact Jaccard similarity of the two texts' shingles, threshold..1; 1 for equal texts."""
    reason: Reason
    """exact: the same text, character by character; near: a verified near-duplicate."""
    survivor: str
    """The document that is kept for the whole cluster, as `dedup.keep` chooses it."""


@dataclass(frozen=True)
class CrossSplitPair:
    """A held-out document and a training document that say the same: held-out figures flatter.

    Each held-out document is reported once, however many training documents it repeats.
    """

    train: str
    """Id of a training document; of equal texts the one with the smallest id."""
    validation: str
    """Id of the held-out document."""
    similarity: float
    """Exact Jaccard similarity of their shingles, threshold..1."""
    reason: Reason
    """exact or near, as in Removal."""


@dataclass(frozen=True)
class Renamed:
    """A text of a set of texts: its id, unit and split in the set, and where it stands."""

    id: str
    unit: str
    split: str
    place: int


@dataclass(frozen=True)
class Decisions:
    """What is to become of every document, by its place in the corpus."""

    removals: dict[int, Removal]
    """Certificates of the documents that go."""
    renamed: list[Renamed] | None
    """Stable mode, unit document: all that stays, in the order of the new ids. Else None: what
    is not removed stays as it is."""
    cross_split: list[CrossSplitPair]
    """In the order of held-out ids."""

    @property
    def removed_by_reason(self) -> dict[str, int]:
        """Number of removed documents by reason."""
        return dict(Counter(removal.reason for removal in self.removals.values()))


@dataclass(frozen=True)
class DedupResult:
    """What is kept, what is not, and what the split has on both sides."""

    kept: list[dict[str, Any]]
    """Documents that remain; in the input's order, or by id where they are a set of texts."""
    removed: list[tuple[dict[str, Any], Removal]]
    """Removed documents, whole, with the evidence; in the order of ids."""
    cross_split: list[CrossSplitPair]
    """Verified pairs across the split as the input had them, in the order of held-out ids."""

    @property
    def removed_by_reason(self) -> dict[str, int]:
        """Number of removed documents by reason."""
        return dict(Counter(removal.reason for _, removal in self.removed))
