"""Corpora nobody would write by hand: counted, or refused by file and line, and never printed."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def corpus(tmp_path: Path):
    """Writes texts as a corpus, one object a line."""

    def write(*texts: str) -> Path:
        path = tmp_path / "corpus.jsonl"
        rows = (json.dumps({"text": text}) for text in texts)
        path.write_text("\n".join(rows) + "\n")
        return path

    return write


def kept(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_ten_thousand_equal_documents_are_one(corpus, call, tmp_path):
    source = corpus(*["the same few words over and over again"] * 10_000)
    called = call("dedup", source, tmp_path / "out.jsonl", "--plaintext", "--json")
    counts = json.loads(called.out)["counts"]
    assert called.status == 0
    assert counts == {"removed: exact": 9_999}
    assert [row["id"] for row in kept(tmp_path / "out.jsonl")] == ["corpus.jsonl:00001"]


def test_documents_of_one_character_stay_as_they_are(corpus, call, tmp_path):
    letters = ["a", "b", ".", "é", "界", "😀", "\u0301", "\u200b"]
    source = corpus(*letters)
    for verb in ("scrub", "dedup"):
        called = call(verb, source, tmp_path / f"{verb}.jsonl", "--plaintext", "--json")
        assert called.status == 0, called.err
        assert [row["text"] for row in kept(tmp_path / f"{verb}.jsonl")] == letters, verb


def test_blank_documents_are_dropped_and_counted(corpus, call, tmp_path):
    source = corpus("", " \t\n", "\u00a0", "words that stay")
    for verb in ("scrub", "dedup"):
        called = call(verb, source, tmp_path / f"{verb}.jsonl", "--plaintext", "--json")
        assert called.status == 0, called.err
        assert json.loads(called.out)["counts"] == {"dropped: empty": 3}, verb
        assert len(kept(tmp_path / f"{verb}.jsonl")) == 1, verb


@pytest.mark.parametrize("verb", ["scrub", "dedup"])
def test_half_a_character_is_named_by_its_line_and_nothing_is_written(verb, tmp_path, refused):
    source = tmp_path / "corpus.jsonl"
    source.write_text('{"text": "whole"}\n{"text": "secret half \\ud83d"}\n')
    message = refused(verb, source, tmp_path / "out.jsonl", "--plaintext")
    assert "corpus.jsonl line 2" in message
    assert "secret" not in message
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.full
@pytest.mark.parametrize("verb", ["scrub", "dedup"])
def test_fifty_megabytes_on_one_line(verb, corpus, call, tmp_path):
    """A word of 50 million characters is cut for the name finders; the neighbour loses nothing."""
    source = corpus("x" * 50_000_000, "a short text without a name in it")
    called = call(verb, source, tmp_path / "out.jsonl", "--plaintext", "--json")
    assert called.status == 0, called.err
    rows = kept(tmp_path / "out.jsonl")
    assert len(rows) == 2
    assert rows[1]["text"] == "a short text without a name in it"
