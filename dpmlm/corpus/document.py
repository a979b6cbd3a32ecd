"""A document, where it came from, and what became of a row that is not one."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Document:
    """One text of the corpus. Private, every field of it."""

    id: str
    """Unique in the corpus; a hash of the record alone where the corpus names none."""
    text: str
    """The text as it stands in the file; holds at least one character that is not blank."""
    person: str | None
    """Whom the document belongs to; None if the corpus does not say."""
    source: str
    """File it was read from: its name, or its path below the corpus folder."""
    row: int
    """Line (jsonl) or record (csv, parquet) in that file, from 1."""


@dataclass(frozen=True)
class Dropped:
    """A row that was read and not used. It is counted and kept, sealed; never just skipped."""

    document: Document
    """The row; its text breaks the rule that `reason` names."""
    reason: str
    """A word: "empty" for a text that is missing or blank."""

    def as_dict(self) -> dict[str, Any]:
        """The row and its reason as one flat dict, to be written into a sealed shard."""
        return {**asdict(self.document), "reason": self.reason}
