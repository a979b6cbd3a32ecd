"""Rows of a file, format by format: .jsonl, .csv, .parquet, .txt.

Every reader streams and says where a row stands. Text is UTF-8 and nothing else: a byte that is
not raises, since a replacement character silently changes what a model is trained on.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmlm.errors import UserError

_BOM = b"\xef\xbb\xbf"
_FIELD_LIMIT = 2**31 - 1  # csv's own 128 KiB refuses long documents; C long is 32 bits somewhere
_PARQUET_ROWS = 512


@dataclass(frozen=True)
class Row:
    """One row of a file before its fields are mapped."""

    number: int
    """Line (jsonl) or record (csv without its header, parquet), from 1."""
    place: str
    """File and line as an error message names them."""
    fields: Mapping[str, Any]
    """Field name to value."""


RowReader = Callable[[Path, Sequence[str]], Iterator[Row]]


def jsonl_rows(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """One JSON object a line; blank lines hold no row. Lines end at LF alone."""
    for number, line in _lines(path):
        if not line.strip():
            continue
        place = f"{path} line {number}"
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{place}, column {error.colno}: {error.msg}",
                "every line is one JSON object",
                "mend or remove the line",
            ) from None
        except (ValueError, RecursionError):
            raise UserError(
                f"{place}: a number too long or a value nested too deep",
                "every line is one JSON object",
                "mend or remove the line",
            ) from None
        if not isinstance(fields, dict):
            raise UserError(
                f"{place}: JSON, but not an object",
                "every line is one JSON object",
                "mend or remove the line",
            )
        yield Row(number, place, fields)


def csv_rows(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """Comma-separated records under a header; quoted fields may hold commas, quotes, newlines."""
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_LIMIT))
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    header: list[str] | None = None
    number = 0
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{path} line {line}: {error}",
                "records are comma-separated, quotes are closed and doubled inside a field",
                "mend the record that starts on this line",
            ) from None
        if record is None:
            return
        if not record:
            continue
        if header is None:
            header = record
            _check_header(path, line, header, wanted)
            continue
        number += 1
        place = f"{path} line {line} (row {number})"
        if len(record) != len(header):
            raise UserError(
                f"{place}: {len(record)} fields under a header of {len(header)}",
                "every record has the header's fields",
                "mend the record, or quote fields that hold commas",
            )
        yield Row(number, place, dict(zip(header, record)))


def parquet_rows(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """Records of a Parquet file, a few hundred in memory at a time, wanted columns alone."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            missing = [name for name in wanted if name not in columns]
            if missing:
                raise _no_column(str(path), missing[0])
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=list(wanted)):
                for index in range(batch.num_rows):
                    number += 1
                    place = f"{path} row {number}"
                    yield Row(number, place, _cells(batch, index, wanted, place))
    except arrow.ArrowException as error:
        raise UserError(
            f"{path}: not a readable Parquet file ({type(error).__name__})",
            "a .parquet file is whole and in Parquet format",
            "write the file again",
        ) from None


def txt_rows(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """The whole file is one document.

    One line a document is what .jsonl is for: were a note of many lines cut into many documents,
    the promise made to its person would shrink to a promise about one line.
    """
    if len(wanted) > 1:
        raise UserError(
            f"{path}: id or person field asked of a .txt file",
            "a .txt file is one document and has no fields",
            "name neither, or convert the corpus to .jsonl",
        )
    lines = [line for _, line in _lines(path)]
    yield Row(1, f"{path} line 1", {name: "".join(lines) for name in wanted})


READERS: dict[str, RowReader] = {
    ".jsonl": jsonl_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
    ".txt": txt_rows,
}
"""Suffix, in lower case, to reader."""


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, line ends kept, a leading byte-order mark removed."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            data = line.removeprefix(_BOM) if number == 1 else line
            try:
                yield number, data.decode()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path} line {number}, byte {error.start + 1}: not UTF-8",
                    "corpus files are UTF-8",
                    "convert the file, for example with iconv -t UTF-8",
                ) from None


def _check_header(path: Path, line: int, header: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in header:
            raise _no_column(f"{path} line {line}", name)
        if header.count(name) > 1:
            raise UserError(
                f"{path} line {line}: two columns {name!r}",
                "a column that is read has a name of its own",
                "rename one of them in the header",
            )


def _no_column(place: str, name: str) -> UserError:
    """Known columns are not listed: without a header the first row is private text."""
    return UserError(
        f"{place}: no column {name!r}",
        "the corpus section names columns of the file, and a .csv file starts with its header",
        "name the right column, or add the header",
    )


def _cells(batch: Any, index: int, wanted: Sequence[str], place: str) -> dict[str, Any]:
    cells = {}
    for name in wanted:
        try:
            cells[name] = batch.column(name)[index].as_py()
        except UnicodeDecodeError:
            raise UserError(
                f"{place}: column {name!r} is not UTF-8",
                "text columns are UTF-8",
                "write the file again from valid text",
            ) from None
    return cells
