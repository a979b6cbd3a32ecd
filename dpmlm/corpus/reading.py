"""The way into the system: documents from files or from rows in memory."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dpmlm.corpus.document import Document, Dropped
from dpmlm.corpus.fields import FieldMap, Ids
from dpmlm.corpus.formats import READERS
from dpmlm.errors import UserError


def read_corpus(
    path: Path | str, *, text: str = "text", id: str | None = None, person: str | None = None
) -> Iterator[Document | Dropped]:
    """Read a .jsonl, .csv, .parquet or .txt file, or a folder of those, as a stream.

    A folder is read with its sub-folders in the order of relative paths; names that start with a
    dot are passed over, any other entry must be a file of a known format or a sub-folder. A .txt
    file is one document.

    Without an id field a document's id is a hash of its person, its text and its number among
    equal records: adding or removing one row changes no other's id, masks, unit or split.

    Raises UserError at once for a path that cannot be a corpus, and while reading for invalid
    JSON, invalid UTF-8, a missing field, a value of the wrong kind, an id used twice, each with
    file and line, and at the end for a corpus without a single text.
    """
    path = Path(path)
    files = corpus_files(path)
    return _read_files(path, files, FieldMap(text, id, person))


def read_documents(
    rows: Iterable[Mapping[str, Any]],
    *,
    text: str = "text",
    id: str | None = None,
    person: str | None = None,
) -> Iterator[Document | Dropped]:
    """The same for dicts or for the rows of a Hugging Face Dataset; source is "documents".

    Raises UserError as `read_corpus` does, with the number of the row, from 1.
    """
    fields, ids, texts = FieldMap(text, id, person), Ids(), 0
    for number, row in enumerate(rows, start=1):
        place = f"documents, row {number}"
        if not isinstance(row, Mapping):
            raise UserError(
                f"{place}: a {type(row).__name__}",
                "documents are dicts, such as {'text': ...}",
                "wrap each text in a dict",
            )
        found = fields.document(row, ids, source="documents", row=number, place=place)
        texts += isinstance(found, Document)
        yield found
    if not texts:
        raise _no_text("documents")


def _read_files(
    path: Path, files: list[tuple[Path, str]], fields: FieldMap
) -> Iterator[Document | Dropped]:
    ids, texts = Ids(), 0
    for file, source in files:
        try:
            for row in READERS[file.suffix.lower()](file, fields.names):
                found = fields.document(
                    row.fields, ids, source=source, row=row.number, place=row.place
                )
                texts += isinstance(found, Document)
                yield found
        except OSError as error:
            raise _unreadable(file, error) from None
    if not texts:
        raise _no_text(str(path))


def corpus_files(path: Path) -> list[tuple[Path, str]]:
    """Files with the name each has as a source: the bare name, or the path below the folder.

    Raises UserError for a path that cannot be a corpus.
    """
    if path.is_file():
        files = [(path, path.name)]
    elif path.is_dir():
        below = ((file, file.relative_to(path).as_posix()) for file in _below(path))
        files = sorted(below, key=lambda item: item[1])
    else:
        raise UserError(f"{path}: no such file or folder", "the corpus exists", "check the path")
    for file, _ in files:
        if file.suffix.lower() not in READERS:
            raise UserError(
                f"{file}: format {file.suffix or 'without suffix'}",
                f"a corpus holds {', '.join(sorted(READERS))} files and no others",
                "convert the file, or move it out of the corpus folder",
            )
    if not files:
        raise _no_text(str(path))
    return files


def _below(folder: Path) -> Iterator[Path]:
    """Files in a folder and its sub-folders, hidden ones left out; whatever else is refused."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _below(entry)
        elif entry.is_file():
            yield entry
        else:
            raise UserError(
                f"{entry}: neither a file nor a folder of its own",
                "links to folders, links to nothing and devices are not read, nor passed over",
                "put the file there, or remove the entry from the corpus folder",
            )


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path}: {error.strerror or type(error).__name__}",
        "corpus files can be read",
        "check the file and its permissions",
    )


def _no_text(given: str) -> UserError:
    return UserError(
        f"{given}: an empty corpus",
        "a corpus holds at least one document with text",
        "check the path and the text field",
    )
