"""The single verbs one after the other: sealed from one to the next, explained in each."""

import json

import pytest

from dpmlm.artifacts import SealedFolder, load_identity
from dpmlm.corpus import read_shards
from dpmlm.scrub import Decision, replay

LETTER = "Call {} or ask Mr Robert Hughes about the orchard, the lantern and the bridge."
TEXTS = [
    *(LETTER.format(phone) for phone in ("(212) 555-0101", "(415) 555-0102", "(312) 555-0103")),
    "Nothing of the kind stands here.",
] * 3
TO, KEY = ("--to", "keys/trainer.pub"), ("--identity", "keys/trainer.key")
WORDS = ("Robert", "Hughes", "555", "Call", "orchard")


@pytest.fixture
def notes(tmp_path, monkeypatch, call):
    """A corpus and keys; the current folder."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    (tmp_path / "notes.jsonl").write_text("".join(lines))
    assert call("keys", "new", "keys").status == 0
    return tmp_path


def opened(name: str) -> SealedFolder:
    return SealedFolder.open(name, [load_identity("keys/trainer.key")])


def texts_of(name: str) -> dict[str, str]:
    return {row["id"]: row["text"] for row in read_shards(opened(name))}


def test_scrub_then_dedup_without_clear_text(notes, call, refused):
    assert call("scrub", "notes.jsonl", "scrubbed", *TO).status == 0
    said = refused("dedup", "scrubbed", "unique", *TO)
    assert "scrubbed, a sealed folder" in said
    assert "give --identity" in said
    assert call("dedup", "scrubbed", "unique", *TO, *KEY).status == 0
    scrubbed, unique = texts_of("scrubbed"), texts_of("unique")
    assert list(unique) == ["notes.jsonl:01", "notes.jsonl:04"]
    assert unique.items() <= scrubbed.items()
    assert set(unique.values()) == set(scrubbed.values())
    assert not any(path.suffix == ".jsonl" for path in notes.iterdir() if path.stem != "notes")
    # One id in both logs: what was replaced, and why it went.
    gone = call("dedup", "unique", "--explain", "notes.jsonl:02", *KEY)
    assert "notes.jsonl:01 stays in its place" in gone.out
    shown = call("scrub", "scrubbed", "--explain", "notes.jsonl:02", *KEY)
    assert shown.status == 0, shown.err
    assert "PHONE_NUMBER" in shown.out
    assert "placeholder" in shown.out
    told = call("scrub", "scrubbed", "--explain", "notes.jsonl:02", *KEY, "--json").out
    assert not any(word in shown.out + told for word in WORDS)
    places = {(s["start"], s["end"], s["entity"]) for s in json.loads(told)["spans"]}
    assert (5, 19, "PHONE_NUMBER") in places
    log = {row["id"]: row["spans"] for row in opened("scrubbed").read_json("decisions")}
    for number, text in enumerate(TEXTS, start=1):
        name = f"notes.jsonl:{number:02}"
        decisions = [Decision(**span) for span in log[name]]
        assert replay(text, decisions, None) == scrubbed[name]


def test_dedup_then_scrub_without_clear_text(notes, call):
    assert call("dedup", "notes.jsonl", "unique", "--exact", *TO).status == 0
    assert call("dedup", "unique", "again", *TO, *KEY).status == 0
    assert texts_of("again").items() <= texts_of("unique").items()
    assert call("scrub", "unique", "scrubbed", *TO, *KEY).status == 0
    scrubbed = texts_of("scrubbed")
    assert list(scrubbed) == [f"notes.jsonl:0{row}" for row in (1, 2, 3, 4)]
    assert not any("Hughes" in text or "555" in text for text in scrubbed.values())
    drawn = call("scrub", "unique", "gold.jsonl", "--sample", "2", "--plaintext", *KEY)
    assert drawn.status == 0, drawn.err
    rows = [json.loads(line) for line in (notes / "gold.jsonl").read_text().splitlines()]
    assert all(texts_of("unique")[row["id"]] == row["text"] for row in rows)


def test_what_is_no_folder_of_theirs_is_told_so(notes, call, refused):
    assert call("dedup", "notes.jsonl", "unique", *TO).status == 0
    assert "drop --identity" in refused("dedup", "notes.jsonl", "out", *TO, *KEY)
    assert "drop the option" in refused("dedup", "unique", "out", *TO, *KEY, "--text", "body")
    assert "drop the option" in refused("scrub", "unique", "out", *TO, *KEY, "--person", "who")
    other = ("--identity", "keys/auditor.key")
    assert "only the keys" in refused("dedup", "unique", "out", *TO, *other)
    assert "of scrubbed text" in refused("scrub", "unique", "--explain", "notes.jsonl:1", *KEY)
    assert "is sealed" in refused("scrub", "unique", "--explain", "notes.jsonl:1")
    (notes / "unique/manifest.sealed").unlink()
    assert "not written to its end" in refused("dedup", "unique", "out", *TO, *KEY)
    assert not (notes / "out").exists()


@pytest.mark.parametrize("verb", ["scrub", "dedup"])
def test_an_unknown_id_is_answered_with_the_form_of_ids(notes, call, refused, verb):
    assert call(verb, "notes.jsonl", "written", *TO).status == 0
    said = refused(verb, "written", "--explain", "notes.jsonl:2", *KEY)
    assert "FILE:ROW, digits in ROW: 2" in said
    assert "notes.jsonl:17" in said
    assert not any(word in said for word in WORDS)
