"""What the verbs that work on files of one's own write, and what they read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SealedFolder, atomic_write, load_identity, load_recipient
from dpmlm.corpus import Document, Dropped, read_corpus, read_shards, write_shards
from dpmlm.errors import UserError

TRAINER = Path("keys/trainer.pub")
"""Whom output is sealed to where nobody is named, relative to the current folder."""
WRITTEN = ("scrubbed", "deduplicated")
"""Roles of the sealed folders that `dpmlm scrub` and `dpmlm dedup` write."""


@dataclass(frozen=True)
class Output:
    """Where a stage's text goes: sealed to public keys, or explicitly in clear."""

    path: Path
    to: Sequence[Path]
    plaintext: bool

    @property
    def keys(self) -> Sequence[Path]:
        """Who may open it: those asked for, else the trainer whose keys lie in this folder."""
        if self.to or self.plaintext:
            return self.to
        return [TRAINER] if TRAINER.is_file() else []

    def check(self) -> None:
        """Refuse before any work is done."""
        if bool(self.keys) == self.plaintext:
            raise UserError(
                f"output {self.path}",
                "text at rest is sealed unless you ask for clear",
                f"make {TRAINER} with dpmlm keys new, give --to PUBLIC_KEY, or --plaintext",
            )
        if self.path.exists():
            raise UserError(f"output {self.path}", "it is there already", "name a new one")
        for key in self.keys:
            load_recipient(key)

    def write(
        self,
        role: str,
        documents: Iterable[Mapping[str, Any]],
        *,
        removed: Iterable[Mapping[str, Any]] = (),
        **beside: Any,
    ) -> None:
        """The documents, those that were removed, and what else belongs to them (sealed output
        alone keeps that)."""
        if self.plaintext:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path, mode=0o600) as file:
                for document in documents:
                    file.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")
            return
        recipients = [load_recipient(key) for key in self.keys]
        folder = SealedFolder.create(self.path, recipients, role=role)
        write_shards(folder, documents)
        write_shards(folder, removed, prefix="removed")
        for name, value in beside.items():
            folder.write_json(name, value)
        folder.finish({"stage": role})


@dataclass(frozen=True)
class Done:
    """What a single stage did; the counts are private and shown to whoever ran it."""

    output: Path
    documents: int
    counts: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return {"output": str(self.output), "documents": self.documents, "counts": self.counts}

    def text(self) -> str:
        rows = [f"wrote {self.output}: {self.documents} documents"]
        rows += [f"  {name:<24}{count:>8}" for name, count in sorted(self.counts.items())]
        return "\n".join(rows)


def read_documents(
    source: Path, text: str, person: str | None = None, *, identity: Path | None = None
) -> tuple[list[Document], list[Dropped]]:
    """All documents of a corpus, by file and row, and its rows without text.

    A sealed folder that `dpmlm scrub` or `dpmlm dedup` wrote is a corpus too: `identity` opens it,
    and its documents keep their ids. Raises UserError for another sealed folder, and as
    `read_corpus` does.
    """
    if SealedFolder.is_at(source):
        return _read_sealed(source, text, person, identity), []
    if identity is not None:
        raise UserError(
            f"--identity {identity} for {source}",
            "a private key opens a sealed folder, and this is none",
            "drop --identity",
        )
    documents: list[Document] = []
    dropped: list[Dropped] = []
    for item in read_corpus(source, text=text, person=person):
        if isinstance(item, Dropped):
            dropped.append(item)
        else:
            documents.append(item)
    return _named_by_row(documents), dropped


def _named_by_row(documents: Sequence[Document]) -> list[Document]:
    """With file and row for an id: what they had is a hash of their text as it was.

    Rows have as many digits as it takes for ids to be in the order of rows.
    """
    digits = len(str(max((document.row for document in documents), default=0)))
    return [replace(one, id=f"{one.source}:{one.row:0{digits}}") for one in documents]


def _read_sealed(
    source: Path, text: str, person: str | None, identity: Path | None
) -> list[Document]:
    if identity is None:
        raise UserError(
            f"{source}, a sealed folder", "a private key opens it", "give --identity KEY"
        )
    if text != "text" or person is not None:
        raise UserError(
            f"{source}, a sealed folder, with --text or --person",
            "its documents have a text and an id and no other fields",
            "drop the option",
        )
    folder = SealedFolder.open(source, [load_identity(identity)])
    if folder.role not in WRITTEN:
        raise UserError(
            f"{source}, a folder of {folder.role}",
            "of sealed folders dpmlm scrub and dpmlm dedup read what they wrote",
            "name such a folder; a run does both for its own corpus",
        )
    if folder.manifest is None:
        raise UserError(f"{source}", "it was not written to its end", "write it again")
    documents = [
        Document(one["id"], one["text"], None, str(source), row)
        for row, one in enumerate(read_shards(folder), start=1)
    ]
    if not documents:
        raise UserError(f"{source}: no documents", "a corpus holds at least one", "name another")
    return documents


def no_such_document(folder: SealedFolder, name: str) -> UserError:
    """For an id that is not in a folder: says what ids look like there, and shows none."""
    if folder.role in WRITTEN:
        first = next(read_shards(folder), {"id": ":1"})["id"]
        digits = len(first.rpartition(":")[2])
        form = f"ids are FILE:ROW, digits in ROW: {digits}, as in notes.jsonl:{17:0{digits}}"
    else:
        form = "ids are those of the corpus: its id field, or 32 hexadecimal digits without one"
    rule = f"{folder.path} knows no document of that id; {form}"
    return UserError(f"document {name!r}", rule, "check --explain")
