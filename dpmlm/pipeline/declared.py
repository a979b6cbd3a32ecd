"""Text that is declared public, and the refusal of private text under that name.

What such text decides is charged to nobody: a vocabulary, scales, which weights are kept, what a
control learns by heart. Documents of the private corpus among it would be released uncharged.
"""

import filecmp
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from dpmlm.config import RunConfig
from dpmlm.corpus import Document, read_corpus
from dpmlm.errors import UserError
from dpmlm.pipeline.data import read_public

SHARED = 0.01
"""Largest share of a public text, in characters, that may stand in documents of the corpus too:
a leaflet that lies in many files is no mistake, a folder with a part of the corpus is one."""


class Declared(Protocol):
    """A section that names public text."""

    @property
    def corpus(self) -> Path: ...
    @property
    def text(self) -> str: ...


def deciding(config: RunConfig) -> dict[str, Declared]:
    """Each section of a run file that names public text which decides how weights are trained."""
    return _named({
        "masking.weights": config.masking.weights,
        "training.best": config.training.best,
        "training.scale": config.training.scale,
    })  # fmt: skip


def declared_public(config: RunConfig) -> dict[str, Declared]:
    """Each section of a run file that names public text."""
    return deciding(config) | _named({
        "audit.control": config.audit.control,
        "model.forgetting": config.model.forgetting,
        "tokens.train": config.tokens.train,
    })  # fmt: skip


def _named(sections: Mapping[str, Declared | None]) -> dict[str, Declared]:
    return {name: section for name, section in sections.items() if section is not None}


def refuse_private_text(config: RunConfig) -> None:
    """Raise UserError where text that a run file declares public is of its corpus.

    Reads all of both, if there is anything declared and anything promised. Nothing of the
    comparison is kept.
    """
    if not config.private:
        return
    corpus, public = config.corpus, declared_public(config)
    for name, section in public.items():
        if _same_file(section.corpus, corpus.path):  # read as another kind, or by another field
            raise _refused(name, section)
    rows = read_corpus(corpus.path, text=corpus.text, id=corpus.id, person=corpus.person)
    texts = (row.text for row in rows if isinstance(row, Document))
    refuse_shared(public, texts)


def refuse_shared(public: Mapping[str, Declared], private: Iterable[str]) -> None:
    """Raise UserError where more than `SHARED` of a public text are documents of `private`.

    Documents are the same if their words are, whatever the case and the spaces between them.
    """
    lengths = {name: _lengths(section) for name, section in public.items()}
    every = {key for of in lengths.values() for key in of}
    if not every:
        return
    shared = {key for text in private if (key := _key(text)) in every}
    for name, of in lengths.items():
        if sum(of[key] for key in shared & of.keys()) > SHARED * sum(of.values()):
            raise _refused(name, public[name])


def _refused(name: str, section: Declared) -> UserError:
    return UserError(
        f"{name}.corpus {section.corpus.name}",
        "it holds documents of the private corpus, which may decide nothing uncharged",
        "name public text, or take those documents out of it",
    )


def _same_file(public: Path, corpus: Path) -> bool:
    """Whether a file of the one has the bytes of a file of the other; empty files apart."""
    sizes: dict[int, list[Path]] = {}
    for file in _files(corpus):
        sizes.setdefault(file.stat().st_size, []).append(file)
    return any(
        filecmp.cmp(file, other, shallow=False)
        for file in _files(public)
        if (size := file.stat().st_size)
        for other in sizes.get(size, [])
    )


def _files(path: Path) -> list[Path]:
    return [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]


def _lengths(section: Declared) -> dict[bytes, int]:
    """Characters of each document of a public text, by its words; equal ones count once."""
    documents = read_public(section.corpus, section.text)
    return {_key(document.text): len(document.text) for document in documents}


def _key(text: str) -> bytes:
    words = " ".join(text.casefold().split())
    return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16).digest()
