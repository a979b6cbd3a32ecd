"""Sources whose documents no later run on a corpus takes in: `dpmlm runs quarantine`.

The lines stand in the file of the tombstones and share its chain, its note in the ledger and its
check by every workspace. A source is known by two keyed hashes, of its name and of its bytes: a
renamed or copied file is found by its bytes, and a file that has the name and other bytes is
refused until somebody says which of the two is meant. A file that was changed *and* renamed is
another one, and is read.

Who is left out depends on these lines and the files, not on other documents, so that the claim is
about the corpus that remains. Why a line was written is said in it: on `private` grounds it is a
choice that no claim covers, and stands in the ledger as one.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmlm.corpus import corpus_files
from dpmlm.errors import UserError, visible

if TYPE_CHECKING:
    from dpmlm.pipeline.tombstones import Tombstones
    from dpmlm.privacy import Ledger

Rows = tuple[int, int]
"""First and last row of a file, both in it, from 1."""


@dataclass(frozen=True)
class LeftOut:
    """What of a corpus as it lies there is in quarantine."""

    rows: Mapping[str, Sequence[Rows | None]]
    """Source to its rows; None for all of them."""

    def holds(self, source: str, row: int) -> bool:
        """Whether this row of this source is kept out."""
        return any(part is None or part[0] <= row <= part[1] for part in self.rows.get(source, ()))


def left_out(stones: "Tombstones", path: Path) -> LeftOut:
    """Hold every file of a corpus against the lines in force; reads none where there are none.

    Raises UserError for a file that has the name of a quarantined one and other bytes.
    """
    if not stones.quarantines:
        return LeftOut({})
    found: dict[str, list[Rows | None]] = {}
    for file, source in corpus_files(path):
        name, data = name_of(stones, source), bytes_of(stones, file)
        lines = stones.quarantines.values()
        meant = [rows_of(line) for line in lines if line["file"] == data]
        named = [line["number"] for line in lines if line["source"] == name]
        if named and not meant:
            raise UserError(
                f"corpus file {visible(source)}",
                f"line {named[0]} of {stones.path} keeps a file of this name out, and it holds "
                "other bytes now",
                "if it was mended, `dpmlm runs quarantine --lift`; if not, quarantine it again as "
                "it is now",
            )
        if meant:
            found[source] = meant
    return LeftOut(found)


def refuse_undeclared(ledger: "Ledger", stones: "Tombstones") -> None:
    """Raise UserError where a line on private grounds is not in the ledger: a kill came between."""
    if declared(ledger) < stones.private_lines:
        raise UserError(
            f"tombstone file {stones.path}",
            "a quarantine on private grounds is not in the ledger yet: it was interrupted",
            "repeat the `dpmlm runs quarantine` that was begun",
        )


def holds_since(
    stones: "Tombstones", path: Path, documents: Iterable[Mapping[str, Any]], after: int
) -> bool:
    """Whether a line after `after` keeps any of these stage documents out, by name or by bytes."""
    lines = [line for line in stones.quarantines.values() if line["number"] > after]
    if not lines:
        return False
    files = corpus_files(path) if path.exists() else []
    now = {source: bytes_of(stones, file) for file, source in files}
    known: dict[str, LeftOut] = {}
    for document in documents:
        source = document.get("source")
        if source is None:
            continue  # a planted canary, which comes from no file
        if source not in known:
            hashes = {name_of(stones, source), now.get(source)}
            meant = [rows_of(one) for one in lines if {one["source"], one["file"]} & hashes]
            known[source] = LeftOut({source: meant})
        if known[source].holds(source, document["row"]):
            return True
    return False


def declared(ledger: "Ledger") -> int:
    """Choices that are among no runs: what was left out on private grounds."""
    return sum(one["label"] == "private" and not one["candidates"] for one in ledger.choices())


def rows_of(line: Mapping[str, Any]) -> Rows | None:
    """Of a line; None for all of them."""
    return None if line["rows"] is None else (line["rows"][0], line["rows"][1])


def name_of(stones: "Tombstones", source: str) -> str:
    """A source's name as lines hold it."""
    return stones.keyed("source", source.encode("utf-8", "surrogateescape"))


def bytes_of(stones: "Tombstones", file: Path) -> str:
    """A source's bytes as lines hold them."""
    with file.open("rb") as stream:
        return stones.keyed("bytes", hashlib.file_digest(stream, "sha256").digest())
