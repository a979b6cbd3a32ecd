"""What deduplication reports. All of it is private: kept sealed, for the auditor."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal["exact", "near"]


@dataclass(frozen=True)
class Removal:
    """Why one document was removed."""

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
    """The document that is kept for the whole cluster, the one with the smallest id."""


@dataclass(frozen=True)
class CrossSplitPair:
    """A training document and a held-out one that say the same: held-out figures flatter."""

    train: str
    """Id of the training document; of several equal texts the one with the smallest id."""
    validation: str
    """Id of the held-out document."""
    similarity: float
    """Exact Jaccard similarity of their shingles, threshold..1."""
    reason: Reason
    """exact or near, as in Removal."""


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
