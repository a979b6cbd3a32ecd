"""What the verbs that work on files of one's own write, and what they read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SealedFolder, atomic_write, load_recipient
from dpmlm.corpus import Document, Dropped, read_corpus, write_shards
from dpmlm.errors import UserError

TRAINER = Path("keys/trainer.pub")
"""Whom output is sealed to where nobody is named, relative to the current folder."""


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


def names_of(documents: Sequence[Document]) -> list[str]:
    """Names of documents in the output, file and row: their ids are hashes of texts as they were.

    Rows have as many digits as it takes for names to be in the order of rows.
    """
    digits = len(str(max((document.row for document in documents), default=0)))
    return [f"{document.source}:{document.row:0{digits}}" for document in documents]


def read_documents(
    source: Path, text: str, person: str | None = None
) -> tuple[list[Document], list[Dropped]]:
    """All documents of a corpus, and its rows without text."""
    documents: list[Document] = []
    dropped: list[Dropped] = []
    for item in read_corpus(source, text=text, person=person):
        if isinstance(item, Dropped):
            dropped.append(item)
        else:
            documents.append(item)
    return documents, dropped
