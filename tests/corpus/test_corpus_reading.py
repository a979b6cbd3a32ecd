"""Readers: what each format yields, and that each kind of broken input is refused by name."""

import csv
import hashlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpmlm.corpus import Document, Dropped, read_corpus, read_documents, stage_document
from dpmlm.errors import UserError

ROWS = [
    {"key": "a", "body": "First note.", "who": "Ann"},
    {"key": "b", "body": 'Second,\nwith "quotes", commas\r\nand lines.', "who": "Bob"},
    {"key": "c", "body": "Naïve 日本語 \u2028 text", "who": None},
]
WANTED = [
    ("a", "First note.", "Ann", 1),
    ("b", 'Second,\nwith "quotes", commas\r\nand lines.', "Bob", 2),
    ("c", "Naïve 日本語 \u2028 text", None, 3),
]


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def write_csv(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


WRITERS = {".jsonl": write_jsonl, ".csv": write_csv, ".parquet": write_parquet}


def record_id(text: str, person: str = "", number: int = 0) -> str:
    record = json.dumps([person, text, number], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(record.encode()).hexdigest()[:32]


def read(path: Path) -> list[Document | Dropped]:
    return list(read_corpus(path, text="body", id="key", person="who"))


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_yields_the_same_documents(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"notes{suffix}", ROWS)
    assert read(path) == [Document(i, t, p, path.name, n) for i, t, p, n in WANTED]


@pytest.mark.parametrize("suffix", WRITERS)
def test_without_an_id_field_a_record_is_its_own_id(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"notes{suffix}", ROWS)
    ids = [document.id for document in read_corpus(path, text="body", person="who")]
    assert ids == [record_id(row["body"], row["who"] or "") for row in ROWS]
    assert ids == [document.id for document in read_documents(ROWS, text="body", person="who")]


@pytest.mark.parametrize("unit", ["document", "person"])
@pytest.mark.parametrize("added", ["New.", "Note 3."])
def test_one_row_more_at_the_front_moves_no_other_record(unit: str, added: str) -> None:
    def staged(rows: list[dict]) -> set[tuple]:
        found = read_documents(rows, person="person")
        parts = (
            stage_document(item, unit=unit, validation=0.5, key=bytes(32))
            for item in found
            if isinstance(item, Document)
        )
        return {(each["id"], each["text"], each["unit"], each["split"]) for each in parts}

    rows = [
        {"text": f"Note {n % 30}.", "person": None if n % 2 else f"p{n % 7}"} for n in range(40)
    ]
    before, after = staged(rows), staged([{"text": added, "person": None}, *rows])
    assert len(before) == 40
    assert len(after) == 41
    assert before < after


def test_equal_records_are_numbered() -> None:
    rows = [{"text": "Same."}, {"text": " "}, {"text": "Same."}, {"text": " "}]
    found = list(read_documents(rows))
    ids = [d.document.id if isinstance(d, Dropped) else d.id for d in found]
    texts = [(row["text"], number) for row, number in zip(rows, (0, 0, 1, 1), strict=True)]
    assert ids == [record_id(text, number=number) for text, number in texts]


def test_a_txt_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_bytes(b"\xef\xbb\xbfline one\nline two\n")
    (document,) = read_corpus(tmp_path / "note.txt")
    text = "line one\nline two\n"
    assert document == Document(record_id(text), text, None, "note.txt", 1)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    write_jsonl(tmp_path / "z.jsonl", [{"text": "last"}])
    write_csv(tmp_path / "ward" / "b.csv", [{"text": "second"}])
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / ".hidden").write_text("no corpus file")
    found = [(d.source, d.row, d.text) for d in read_corpus(tmp_path) if isinstance(d, Document)]
    assert found == [("a.txt", 1, "first"), ("ward/b.csv", 1, "second"), ("z.jsonl", 1, "last")]


@pytest.mark.parametrize("suffix", WRITERS)
def test_blank_texts_are_dropped_with_their_reason(tmp_path: Path, suffix: str) -> None:
    rows = [*ROWS, {"key": "d", "body": " \n", "who": "Eve"}, {"key": "e", "body": None}]
    rows[-1]["who"] = "Eve"
    found = read(WRITERS[suffix](tmp_path / f"notes{suffix}", rows))
    dropped = [each for each in found if isinstance(each, Dropped)]
    assert [(each.document.id, each.reason) for each in dropped] == [("d", "empty"), ("e", "empty")]
    assert dropped[0].as_dict()["person"] == "Eve"
    assert dropped[0].as_dict()["reason"] == "empty"
    assert len(found) == 5


def test_whole_numbers_are_ids_and_persons() -> None:
    (document,) = read_documents([{"text": "x", "n": 7, "p": 12}], id="n", person="p")
    assert (document.id, document.person) == ("7", "12")


def test_rows_in_memory() -> None:
    rows = iter([{"text": "one"}, {"text": "", "extra": 1}, {"text": "three"}])
    found = list(read_documents(rows))
    assert found[0] == Document(record_id("one"), "one", None, "documents", 1)
    assert isinstance(found[1], Dropped)
    assert (found[2].id, found[2].row) == (record_id("three"), 3)


def test_long_csv_fields_and_blank_lines(tmp_path: Path) -> None:
    long = "word " * 60_000
    (tmp_path / "c.csv").write_text(f'text\n\n"{long}"\n\nshort\n')
    assert [d.text for d in read_corpus(tmp_path / "c.csv")] == [long, "short"]


GOOD = b'{"key": "a", "body": "SECRET one", "who": "Ann"}\n'
BROKEN_JSONL = {
    "invalid JSON": (GOOD + b'{"key": "SECRET", "body": \n', "line 2, column"),
    "two values": (GOOD + b'{"key": "b"} {"SECRET": 1}\n', "line 2, column"),
    "no object": (GOOD + b'["SECRET"]\n', "line 2"),
    "invalid UTF-8": (GOOD + b'{"key": "b", "body": "SECRET \xff"}\n', "line 2, byte 30"),
    "too deep": (GOOD + b"[" * 100_000 + b"\n", "line 2"),
    "long number": (GOOD + b'{"key": ' + b"9" * 5000 + b"}\n", "line 2"),
    "missing text": (GOOD + b'\n{"key": "SECRET", "who": "Ann"}\n', "line 3: no field 'body'"),
    "missing id": (GOOD + b'{"body": "SECRET", "who": "Ann"}\n', "line 2: no field 'key'"),
    "missing person": (GOOD + b'{"key": "b", "body": "SECRET"}\n', "line 2: no field 'who'"),
    "duplicate id": (GOOD + GOOD, "line 2: its id was used before, in posts.jsonl row 1"),
    "empty id": (GOOD + b'{"key": " ", "body": "SECRET", "who": null}\n', "line 2: field 'key'"),
    "text no string": (GOOD + b'{"key": "b", "body": 5, "who": null}\n', "line 2: field 'body'"),
    "id a boolean": (GOOD + b'{"key": true, "body": "x", "who": null}\n', "line 2: field 'key'"),
    "half a surrogate": (
        GOOD + b'{"key": "b", "body": "\\ud800", "who": null}\n',
        "line 2: field 'body'",
    ),
    "empty": (b"", "an empty corpus"),
    "blank lines": (b"\n \n", "an empty corpus"),
    "blank texts": (b'{"key": "a", "body": " ", "who": null}\n', "an empty corpus"),
}


@pytest.mark.parametrize("case", BROKEN_JSONL)
def test_broken_jsonl_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    data, message = BROKEN_JSONL[case]
    path = tmp_path / "posts.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read(path)
    assert message in str(caught.value)
    assert "posts.jsonl" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


BROKEN_CSV = {
    "short record": (b"key,body,who\na,x,Ann\nSECRET,y\n", "line 3 (row 2): 2 fields"),
    "open quote": (b'key,body,who\na,x,Ann\nb,"SECRET\n\n', "line 3"),
    "text after quote": (b'key,body,who\nb,"SECRET" x,Ann\n', "line 2"),
    "invalid UTF-8": (b"key,body,who\na,x,Ann\nb,SECRET\xe9,Bob\n", "line 3, byte 9"),
    "no column": (b"key,SECRET,who\na,x,Ann\n", "line 1: no column 'body'"),
    "column twice": (b"key,body,who,body\na,x,Ann,SECRET\n", "line 1: two columns 'body'"),
    "duplicate id": (
        b'key,body,who\na,"x\ny",Ann\nb,x,Ann\na,SECRET,Ann\n',
        "line 5 (row 3): its id was used before, in posts.csv row 1",
    ),
    "empty": (b"", "an empty corpus"),
    "header alone": (b"key,body,who\n", "an empty corpus"),
}


@pytest.mark.parametrize("case", BROKEN_CSV)
def test_broken_csv_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    data, message = BROKEN_CSV[case]
    path = tmp_path / "posts.csv"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read(path)
    assert message in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_broken_parquet_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "posts.parquet", ROWS)
    with pytest.raises(UserError, match="no column 'txt'"):
        list(read_corpus(path, text="txt"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read(path)
    invalid = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"body": invalid}), path)
    with pytest.raises(UserError, match="row 1: column 'body' is not UTF-8"):
        list(read_corpus(path, text="body"))


def test_broken_txt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_bytes(b"fine\nnot \xc3 fine\n")
    with pytest.raises(UserError, match="line 2, byte 5: not UTF-8"):
        list(read_corpus(path))
    path.write_text("fine")
    with pytest.raises(UserError, match="has no fields"):
        list(read_corpus(path, person="who"))


def test_paths_that_are_no_corpus_are_refused_before_reading(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_corpus(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="an empty corpus"):
        read_corpus(tmp_path)
    (tmp_path / "posts.jsonl.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"format \.gz"):
        read_corpus(tmp_path)


def test_ids_are_unique_across_files(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    write_jsonl(tmp_path / "b.jsonl", [{"key": "c", "body": "again", "who": None}])
    with pytest.raises(UserError, match=r"b\.jsonl line 1: its id was used before, in a\.jsonl"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "x"}, "SECRET"], "row 2: a str"),
        ([{"text": "x"}, {"body": "SECRET"}], "row 2: no field 'text'"),
        ([], "an empty corpus"),
    ],
)
def test_broken_rows_in_memory_are_refused(rows: list, message: str) -> None:
    with pytest.raises(UserError) as caught:
        list(read_documents(rows))
    assert message in str(caught.value)
    assert "SECRET" not in str(caught.value)


def hang(path: Path) -> None:
    path.symlink_to("nowhere")


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def link_to_a_folder(path: Path) -> None:
    path.symlink_to(path.parent.parent / "outside", target_is_directory=True)


@pytest.mark.parametrize("make", [hang, listen, os.mkfifo, link_to_a_folder])
@pytest.mark.parametrize("name", ["b.jsonl", "sub/b.CSV"])
def test_what_is_neither_file_nor_folder_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], name: str
) -> None:
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "corpus"
    (folder / "sub").mkdir(parents=True)
    write_jsonl(folder / "a.jsonl", ROWS)
    monkeypatch.chdir(folder)
    make(folder / name)
    with pytest.raises(UserError) as caught:
        read(folder)
    assert str(folder / name) in caught.value.given


def test_a_link_to_a_file_is_that_file_and_hidden_names_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    outside = write_jsonl(tmp_path / "a.jsonl", ROWS)
    (folder / "b.jsonl").symlink_to(outside)
    (folder / ".lock").symlink_to("somebody@nowhere")
    assert [document.source for document in read(folder)] == ["b.jsonl"] * 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "sub").mkdir(mode=0)
    with pytest.raises(UserError, match="sub"):
        read(tmp_path)
