"""Why deduplication kept or removed one document, from the certificates it left."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SealedFolder, load_identity
from dpmlm.corpus import read_shards
from dpmlm.errors import UserError
from dpmlm.pipeline.outputs import no_such_document

_ROLES = ("dedup", "deduplicated")
"""Of a run's stage, and of what `dpmlm dedup` writes."""


@dataclass(frozen=True)
class Explanation:
    """What became of one document. Ids and figures of private text: for who holds the key."""

    id: str
    stays_as: str
    """Its id in what was written: another one in a set of texts."""
    kept: bool
    """Whether it stays; false too for one that held nothing but passages of others."""
    chain: list[dict[str, Any]]
    """Certificates from it to the document that stays for it; empty for one that stays."""
    stands_for: list[dict[str, Any]]
    """Certificates of the documents that it stays for."""
    across_split: list[dict[str, Any]]
    """Held-out and training documents that it repeats, or that repeat it."""
    passages: list[dict[str, Any]]
    """Repeated passages that it keeps for others."""
    cuts: list[dict[str, Any]]
    """Stretches that were cut from it, and who keeps them."""

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    def text(self) -> str:
        """For a person."""
        if self.chain:
            rows = [f"{self.id} was removed; {self.chain[0]['survivor']} stays in its place"]
            rows += [f"  {_certificate(one)}" for one in self.chain]
        elif self.kept:
            rows = [f"{self.id} stays" + f", as {self.stays_as}" * (self.stays_as != self.id)]
        else:
            rows = [f"{self.id} held nothing but passages that other documents keep"]
        if self.stands_for:
            rows.append(f"  it stays for {len(self.stands_for)} removed documents:")
            rows += [f"    {_certificate(one)}" for one in self.stands_for]
        for pair in self.across_split:
            rows.append(
                f"  across the split: {pair['validation']} (held out) and {pair['train']} "
                f"(training), similarity {pair['similarity']:.3f}"
            )
        for one in self.passages:
            rows.append(
                f"  characters {one['start']} to {one['end']}: {one['words']} words "
                f"that stand in {one['documents']} documents"
            )
        for one in self.cuts:
            rows.append(
                f"  characters {one['start']} to {one['end']} were cut: "
                f"{', '.join(one['kept_in'])} keeps them"
            )
        return "\n".join(rows)


def explain(path: Path, name: str, *, identity: Path) -> Explanation:
    """What the dedup artifact at `path` says of the document `name`.

    Raises UserError if there is no such artifact, or no such document in it.
    """
    folder = SealedFolder.open(path, [load_identity(identity)])
    if folder.role not in _ROLES or folder.manifest is None:
        raise UserError(
            f"{path}, a folder of {folder.role}",
            "certificates stand in a finished dedup folder",
            "name WORKSPACE/dedup, or what dpmlm dedup wrote",
        )
    removals = {one["id"]: one for one in _removals(folder)}
    stays_as = folder.read_json("renamed").get(name, name)
    stands_for = [one for one in removals.values() if one["survivor"] == stays_as]
    kept = any(document["id"] == stays_as for document in read_shards(folder))
    emptied = any(document["id"] == name for document in folder.read_json("emptied"))
    if not (kept or emptied or name in removals):
        raise no_such_document(folder, name)
    chain, at = [], name
    while at in removals:
        chain.append(removals[at])
        at = removals[at]["duplicate_of"]
    pairs = folder.read_json("cross_split")
    across = [one for one in pairs if name in (one["train"], one["validation"])]
    passages = [one for one in folder.read_json("passages") if one["id"] == stays_as]
    cuts = folder.read_json("cuts").get(stays_as, [])
    return Explanation(name, stays_as, kept, chain, stands_for, across, passages, cuts)


def _removals(folder: SealedFolder) -> Iterator[dict[str, Any]]:
    yield from (one["removal"] for one in read_shards(folder, "removed"))


def _certificate(removal: dict[str, Any]) -> str:
    how = "says the same as" if removal["reason"] == "exact" else "is nearly the same as"
    return (
        f"{removal['id']} {how} {removal['duplicate_of']}, similarity {removal['similarity']:.3f}"
    )
