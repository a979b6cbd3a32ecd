"""What scrubbing decided about one document, from the log that it left: places, never text."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SealedFolder, load_identity
from dpmlm.corpus import read_shards
from dpmlm.errors import UserError
from dpmlm.pipeline.outputs import no_such_document

_LOG = {"scrub": "decisions-", "scrubbed": "decisions"}
"""How the sealed log is named in a run's stage, and in what `dpmlm scrub` writes."""


@dataclass(frozen=True)
class DecisionLog:
    """The log of one document. Private like what it is about: for who holds the key."""

    id: str
    kept: bool
    """Whether it stays; false for one of which scrubbing left nothing."""
    spans: list[dict[str, Any]]
    """What was replaced, in order: the fields of `scrub.Decision`, places in the text before."""

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    def text(self) -> str:
        """For a person."""
        rows = [f"{self.id}: {len(self.spans)} stretches were replaced"]
        if not self.kept:
            rows[0] += ", and nothing else was there: it does not stay"
        rows += [
            f"  {span['start']:>8} to {span['end']:<8} {span['entity']:<22} {span['operator']:<12}"
            f" {span['score']:.2f}  {span['recognizer']}"
            for span in self.spans
        ]
        return "\n".join(rows)


def decisions_about(path: Path, name: str, *, identity: Path) -> DecisionLog:
    """What the log of the scrubbed folder at `path` holds of the document `name`.

    Raises UserError if there is no such folder, or no such document in it.
    """
    folder = SealedFolder.open(path, [load_identity(identity)])
    if folder.role not in _LOG or folder.manifest is None:
        raise UserError(
            f"{path}, a folder of {folder.role}",
            "decisions stand in a finished folder of scrubbed text",
            "name WORKSPACE/scrub, or what dpmlm scrub wrote",
        )
    spans = next((one["spans"] for one in _log(folder) if one["id"] == name), None)
    if spans is None:
        raise no_such_document(folder, name)
    kept = any(document["id"] == name for document in read_shards(folder))
    return DecisionLog(name, kept, spans)


def _log(folder: SealedFolder) -> Iterator[dict[str, Any]]:
    for name in folder.names(_LOG[folder.role]):
        yield from folder.read_json(name)
