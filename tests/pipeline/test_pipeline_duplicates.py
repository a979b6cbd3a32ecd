"""Deduplication within a run and as a command: order, passages, certificates."""

import json
from pathlib import Path

import pytest
from small_run import write_run_file

from dpmlm.artifacts import SealedFolder, load_identity
from dpmlm.cli.main import status_of
from dpmlm.config import load_config
from dpmlm.corpus import read_shards
from dpmlm.pipeline.run import execute_until

NOTICE = " ".join(f"clause{n} applies" for n in range(30))


def opened(folder: Path, stage: str) -> SealedFolder:
    return SealedFolder.open(folder / "work" / stage, [load_identity(folder / "keys/trainer.key")])


NOTHING = """
name: nothing
description: Leaves the text as it is.
other: {operator: keep, why: the test is about duplicates}
rules: []
"""


def dedup_run(
    folder: Path,
    rows: list[dict],
    *,
    policy: str = "nothing.yaml",
    privacy: dict | None = None,
    **rules,
) -> dict:
    """Counts of the dedup stage of a run over `rows`, taken to its tokens."""
    (folder / "nothing.yaml").write_text(NOTHING)
    (folder / "private.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = {"privacy": privacy} if privacy else {}
    scrub, split = {"policy": policy}, {"validation": 0.0}
    write_run_file(folder, dedup=rules, split=split, scrub=scrub, **more)
    execute_until(load_config(folder / "run.yaml"), "tokens")
    return opened(folder, "dedup").manifest["counts"]


def rows_of(*texts: str) -> list[dict]:
    return [{"id": f"d{n}", "text": text, "author": f"p{n}"} for n, text in enumerate(texts)]


ALIKE = rows_of(
    *(f"Call {phone} about the orchard, the lantern and the bridge." for phone in (
        "(212) 555-0101", "(415) 555-0102", "(312) 555-0103"))
)  # fmt: skip


@pytest.mark.parametrize(
    ("before_scrub", "order"),
    [(False, ["scrub", "dedup"]), (True, ["dedup", "scrub"])],
)
def test_the_order_is_the_run_files(small, before_scrub, order):
    counts = dedup_run(
        small, ALIKE, policy="default", near={"threshold": 0.8}, before_scrub=before_scrub
    )
    inputs = {stage: list(opened(small, stage).manifest["inputs"]) for stage in (*order, "tokens")}
    assert inputs == {order[0]: ["corpus"], order[1]: [order[0]], "tokens": [order[1]]}
    # Scrubbed, the three say the same; as they were written, their numbers tell them apart.
    assert counts["removed"] == ({} if before_scrub else {"exact": 2})
    for document in read_shards(opened(small, order[1])):
        assert "555" not in document["text"]
        assert "<PHONE_NUMBER>" in document["text"]
    seen = opened(small, "tokens").manifest["counts"]["documents"]
    assert seen == (3 if before_scrub else 1)


@pytest.mark.parametrize(("unit", "left"), [("document", 1), ("person", 3)])
def test_equal_texts_stay_equal_where_documents_are_units(small, unit, left):
    """A person's dates move by a constant of that person; a text's own by one of that text."""
    rule = {"operator": "surrogate", "why": "dates"}
    (small / "dates.yaml").write_text(json.dumps(
        {"name": "dates", "description": "d", "other": {"operator": "keep", "why": "w"},
         "rules": [{"entity": "DATE_TIME", **rule}]}))  # fmt: skip
    rows = rows_of(*["The lantern was lit on 12 March 2019 by the bridge."] * 3)
    privacy = {"unit": unit, "epsilon": 8, "delta": 1e-3, "units": 100}
    counts = dedup_run(small, rows, policy="dates.yaml", near=None, privacy=privacy)
    assert counts["documents"] == left
    (text, *others) = {d["text"] for d in read_shards(opened(small, "dedup"))}
    assert "2019" not in text or "12 March" not in text
    assert bool(others) is (unit == "person")


def test_the_least_identifiers_are_those_that_scrubbing_counted(small):
    rows = rows_of(
        "The (212) 555-0101 lantern stood near the orchard and the bridge all winter long here.",
        "The lantern stood near the orchard and the bridge all winter long here.",
    )
    rules = {"near": {"threshold": 0.5}, "keep": "least_identifiers"}
    counts = dedup_run(small, rows, policy="default", **rules)
    assert counts["removed"] == {"near": 1}
    assert [document["id"] for document in read_shards(opened(small, "dedup"))] == ["d1"]


@pytest.mark.parametrize("cut", [False, True])
def test_passages_are_reported_or_cut(small, cut):
    texts = [f"Letter {word} to the orchard keeper.\n{NOTICE}" for word in "one two three".split()]
    counts = dedup_run(
        small,
        rows_of(*texts, NOTICE),
        near=None,
        passages={"words": 50, "documents": 3, "cut": cut},
    )
    assert counts["passages"] == 1
    (passage,) = opened(small, "dedup").read_json("passages")
    assert (passage["id"], passage["words"], passage["documents"]) == ("d0", 60, 4)
    kept = {d["id"]: d["text"] for d in read_shards(opened(small, "dedup"))}
    assert kept["d0"].endswith(NOTICE)
    if cut:
        assert (counts["cut_documents"], counts["emptied"], counts["documents"]) == (3, 1, 3)
        assert kept.keys() == {"d0", "d1", "d2"}
        assert kept["d1"].strip() == "Letter two to the orchard keeper."
        (emptied,) = opened(small, "dedup").read_json("emptied")
        assert (emptied["id"], emptied["text"]) == ("d3", NOTICE)
    else:
        assert (counts["cut_documents"], counts["emptied"], counts["documents"]) == (0, 0, 4)
        assert kept["d3"] == NOTICE
    run = json.loads((small / "work/run.json").read_text())
    assert run["settings"]["dedup"]["passages"]["cut"] is cut


def test_sketches_do_not_outlive_the_stage(small):
    dedup_run(small, ALIKE, near={"threshold": 0.8})
    names = opened(small, "dedup").names()
    assert not [name for name in names if name.startswith(("signatures", "catalogue"))]
    assert {"documents-00000", "cross_split", "passages", "emptied"} <= set(names)


def explained(folder: Path, name: str, capsys, *more: str) -> str:
    capsys.readouterr()
    command = ["dedup", str(folder / "work/dedup"), "--explain", name]
    status = status_of([*command, "--identity", str(folder / "keys/trainer.key"), *more])
    said = capsys.readouterr()
    assert status == 0, said.err
    return said.out


def test_a_chain_is_explained_step_by_step(small, capsys):
    words = [f"word{n}" for n in range(60)]
    texts = [" ".join(words)]
    for changed in (59, 0, 30):
        words = [f"other{n}" if n == changed else word for n, word in enumerate(words)]
        texts.append(" ".join(words))
    rows = rows_of(*texts, "A lantern stood alone near the bridge.")
    dedup_run(small, rows, near={"threshold": 0.8})
    assert explained(small, "d4", capsys) == "d4 stays\n"
    said = explained(small, "d2", capsys)
    assert said.startswith("d2 was removed; d0 stays in its place\n")
    assert "d2 is nearly the same as" in said
    assert "it stays for 3 removed documents" in explained(small, "d0", capsys)
    found = json.loads(explained(small, "d3", capsys, "--json"))
    assert found["schema"] == "dpmlm.dedup.explanation/1"
    assert not found["kept"]
    assert found["chain"][-1]["duplicate_of"] == "d0"
    for step in found["chain"]:
        assert 0.8 <= step["similarity"] < 1


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["{work}/dedup", "--explain", "nobody", "--identity", "{key}"], "no document of that id"),
        (["{work}/dedup", "--explain", "nobody", "--identity", "{key}"], "32 hexadecimal digits"),
        (
            ["{work}/scrub", "{new}", "--to", "{public}", "--identity", "{key}"],
            "a folder of scrub: ",
        ),
        (["{work}/scrub", "{new}", "--to", "{public}"], "give --identity"),
        (["{work}/scrub", "--explain", "d0", "--identity", "{key}"], "a finished dedup folder"),
        (["{work}/dedup", "--explain", "d0"], "give --identity"),
        (["{work}/nothing", "--explain", "d0", "--identity", "{key}"], "no sealed folder"),
        (["{rows}"], "it needs OUT"),
        (["{rows}", "{new}", "--exact", "--keep", "longest"], "leave nothing to choose"),
        (["{rows}", "{new}", "--passages", "cut", "--words", "3"], "--words"),
        (["{rows}", "{new}", "--keep", "best"], "--keep"),
    ],
)
def test_what_cannot_be_done_is_said(small, capsys, arguments, rule):
    dedup_run(small, ALIKE, near={"threshold": 0.8})
    places = {
        "work": small / "work", "key": small / "keys/trainer.key",
        "rows": small / "private.jsonl", "new": small / "new", "public": small / "keys/trainer.pub",
    }  # fmt: skip
    assert status_of(["dedup", *(one.format(**places) for one in arguments)]) == 2
    assert rule in capsys.readouterr().err


def test_a_file_is_deduplicated_and_explained(small, capsys):
    texts = ["A short note.", f"A longer note here.\n{NOTICE}", "A short note.", f"{NOTICE} end"]
    rows = small / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    public, key = str(small / "keys/trainer.pub"), str(small / "keys/trainer.key")
    out = str(small / "unique")
    more = ["--passages", "cut", "--more-than", "1", "--to", public, "--json"]
    assert status_of(["dedup", str(rows), out, "--exact", "--keep", "longest", *more]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["documents"] == 3
    assert done["counts"] == {
        "removed: exact": 1,
        "passages": 1,
        "cut_documents": 1,
        "emptied": 0,
    }
    folder = SealedFolder.open(Path(out), [load_identity(key)])
    kept = {d["id"]: d["text"] for d in read_shards(folder)}
    assert kept == {
        "rows.jsonl:1": "A short note.",
        "rows.jsonl:2": texts[1],
        "rows.jsonl:4": "\n end",
    }
    assert status_of(["dedup", out, "--explain", "rows.jsonl:3", "--identity", key]) == 0
    assert "rows.jsonl:1 stays in its place" in capsys.readouterr().out
    assert status_of(["dedup", out, "--explain", "rows.jsonl:4", "--identity", key]) == 0
    cut = f"characters 0 to {len(NOTICE)} were cut: rows.jsonl:2 keeps them"
    assert cut in capsys.readouterr().out


def test_a_text_of_a_set_is_explained_by_the_id_it_had(small, capsys):
    rows = rows_of("A lantern stood here.", "A lantern stood here.", "And a bridge there.")
    policy = {"unit": "document", "epsilon": 8, "delta": 1e-3, "units": 100}
    dedup_run(small, rows, near=None, privacy=policy)
    stays, gone = (explained(small, name, capsys) for name in ("d0", "d1"))
    new = stays.removeprefix("d0 stays, as ").split()[0]
    assert len(new) == 32
    assert "it stays for 1 removed documents" in stays
    assert gone.startswith(f"d1 was removed; {new} stays in its place\n")
