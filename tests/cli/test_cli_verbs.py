"""Every verb on a finished run: its text says what it should, its JSON is what is documented."""

import json
import re
import shutil
from pathlib import Path

import pytest

from audits.planting.canaries import CanarySet
from audits.planting.labels import Labels
from dpmlm.artifacts import SealedFolder, digest, load_identity
from dpmlm.corpus import read_shards

DOCS = (Path(__file__).parents[2] / "docs/cli.md").read_text()
pytestmark = pytest.mark.xdist_group("finished")


def documented() -> dict[str, set[str]]:
    """Schema to its fields, from docs/cli.md."""
    parts = re.split(r"^### (dpmlm\.\S+)$", DOCS, flags=re.MULTILINE)[1:]
    return {
        name: set(re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE))
        for name, body in zip(parts[::2], parts[1::2])
    }


BUNDLE = ("work/bundle", "--trusted-keys", "keys/trusted")
OPEN = ("--identity", "keys/consumer.key", "--plaintext")
AUDIT = ("--canaries", "work/canaries", "--plan", "work/bundle/plan.json")
TRAINER = ("--identity", "keys/trainer.key")
BESIDE = ("--control", "work/control", "--untrained", "work/audit/untrained")
OPENED = ("--commitment", "commitment.json")
STATUS = {"dpmlm.evidence/1": 1}  # too few canaries for a PASS
CALLS = [
    ("dpmlm.written/1", "init", "fresh"),
    ("dpmlm.written/1", "keys", "new", "more"),
    ("dpmlm.preview/1", "plan", "run.yaml"),
    ("dpmlm.checklist/1", "plan", "run.yaml", "--checklist"),
    ("dpmlm.run/1", "run", "run.yaml"),
    ("dpmlm.run/1", "train", "run.yaml"),
    ("dpmlm.evaluation/1", "evaluate", "run.yaml"),
    ("dpmlm.run/1", "release", "bundle", "run.yaml"),
    ("dpmlm.decision/1", "gate", "run.yaml"),
    ("dpmlm.explanation/1", "gate", "run.yaml", "--explain"),
    ("dpmlm.verification/1", "verify", *BUNDLE),
    ("dpmlm.written/1", "release", "export", *BUNDLE, *OPEN, "--to", "plain"),
    ("dpmlm.exports/1", "release", "exports", "work/bundle"),
    ("dpmlm.written/1", "report", "run.yaml", "--open-to", "report.html"),
    ("dpmlm.account/1", "ledger", "show", "ledger.jsonl"),
    ("dpmlm.account/1", "ledger", "register", "other.jsonl", "--epsilon", "9", "--delta", "1e-6"),
    ("dpmlm.ledger-check/1", "ledger", "verify", "ledger.jsonl"),
    ("dpmlm.stage/1", "scrub", "few.jsonl", "scrubbed", "--to", "keys/trainer.pub"),
    ("dpmlm.scrub.recall/2", "scrub", "--gold", "gold.jsonl"),
    ("dpmlm.scrub.explanation/1", "scrub", "work/scrub", "--explain", "d1-0", *TRAINER),
    ("dpmlm.stage/1", "dedup", "few.jsonl", "unique", "--to", "keys/trainer.pub"),
    ("dpmlm.dedup.explanation/1", "dedup", "work/dedup", "--explain", "d1-0", *TRAINER),
    (
        "dpmlm.evidence/1", "audit", "work/training", *AUDIT, *TRAINER, *BESIDE, "--out",
        "evidence.json",
    ),
    ("dpmlm.power/1", "audit", "--plan", "work/bundle/plan.json", "--count", "60"),
    ("dpmlm.revealed/1", "audit", "canaries", "reveal", "work/canaries", *OPENED, *TRAINER),
]  # fmt: skip


@pytest.fixture
def prepared(copy):
    lines = (copy / "private.jsonl").read_text().splitlines()[:6]
    (copy / "few.jsonl").write_text("\n".join([*lines, lines[2].replace('"d', '"x')]) + "\n")
    text = "Call (212) 555-0101 or ask Maria Gonzalez."
    spans = [{"start": 5, "end": 19, "type": "PHONE"}, {"start": 27, "end": 41, "type": "PERSON"}]
    canaries = CanarySet.read(
        SealedFolder.open(copy / "work/canaries", [load_identity(copy / "keys/trainer.key")])
    )
    (copy / "commitment.json").write_text(json.dumps(canaries.public()))
    (copy / "gold.jsonl").write_text(json.dumps({"id": "g", "text": text, "spans": spans}) + "\n")
    return copy


def test_every_documented_schema_is_called_for():
    elsewhere = {
        "dpmlm.error/1",
        "dpmlm.bench/1",
        "dpmlm.doctor/1",
        "dpmlm.vocab/1",
        "dpmlm.public-vocab/1",
        "dpmlm.choice/1",
        "dpmlm.selftest/1",
        "dpmlm.recheck/1",
        "dpmlm.grid/1",
    }  # in files of their own
    assert {schema for schema, *_ in CALLS} | elsewhere == set(documented())


def test_an_error_is_of_its_documented_schema(call):
    called = call("ledger", "show", "none", "--json")
    assert called.status == 2
    shown = json.loads(called.out)
    assert shown.pop("schema") == "dpmlm.error/1"
    assert set(shown) == documented()["dpmlm.error/1"]


@pytest.mark.parametrize("typed", CALLS, ids=lambda typed: " ".join(typed[1:3]))
def test_json_is_one_object_of_the_documented_schema(prepared, call, typed):
    schema, *words = typed
    called = call(*words, "--json")
    assert called.status == STATUS.get(schema, 0), called.err
    assert called.out.count("\n") == 1
    shown = json.loads(called.out, parse_constant=pytest.fail)
    assert shown.pop("schema") == schema
    assert set(shown) == documented()[schema]


def test_the_scores_of_a_run_are_sealed_and_its_evidence_names_them(copy):
    identity = load_identity(copy / "keys/trainer.key")
    kept = SealedFolder.open(copy / "work/audit", [identity])
    scores, evidence = kept.read_json("transcript"), kept.read_json("evidence")
    assert evidence["transcripts"] == {"digest": digest(scores), "kept": True}
    assert evidence["declared"]["pre_registered"]
    assert evidence["declared"]["tokens_checked"]
    labels = Labels.read(SealedFolder.open(copy / "work/canaries", [identity]))
    assert scores["subjects"]["target"]["canaries"].keys() == labels.coins.keys()


def test_a_person_reads_each_result(prepared, call):
    said = {}
    for schema, *words in CALLS:
        called = call(*words)
        assert called.status == STATUS.get(schema, 0), called.err
        option = "--checklist" in words or words[::2] == ["gate", "--explain"]
        said[" ".join(words[:3] if option else words[:2])] = called.out
    assert "the ledger would accept it" in said["plan run.yaml"]
    assert "all in place" in said["plan run.yaml --checklist"]
    assert said["run run.yaml"].startswith("verdict      PASS")
    assert "--show-private" in said["evaluate run.yaml"]
    assert said["gate run.yaml"].startswith("PASS under few-canaries")
    assert "\n  why       " in said["gate run.yaml --explain"]
    assert said[f"verify {BUNDLE[0]}"].startswith("verified: signed by ")
    assert "in clear" in said["release export"]
    assert "chain intact" in said["release exports"]
    assert "private figures" in said["report run.yaml"]
    assert "chain intact" in said["ledger show"]
    assert "chain intact" in said["ledger verify"]
    assert "PHONE_NUMBER" in said["scrub few.jsonl"]
    assert "full-coverage recall" in said["scrub --gold"]
    assert said["scrub work/scrub"].startswith("d1-0: ")
    assert "removed: exact" in said["dedup few.jsonl"]
    assert said["audit work/training"].startswith("verdict  INCONCLUSIVE: ")
    assert "canaries were inserted" in said["audit work/training"]
    assert "before anything is trained" in said["audit --plan"]
    assert said["audit canaries"].startswith("opens sha256:")
    assert (prepared / "report.html").stat().st_mode & 0o077 == 0


def test_private_figures_are_printed_on_request_alone(prepared, call):
    quiet = call("evaluate", "run.yaml", "--json")
    assert json.loads(quiet.out)["figures"] is None
    assert "perplexity" not in call("evaluate", "run.yaml").out
    assert "perplexity" in call("evaluate", "run.yaml", "--show-private").out
    shown = json.loads(call("evaluate", "run.yaml", "--show-private", "--json").out)
    assert shown["label"] == "private"
    assert shown["figures"]["held_out"]["after"]["loss"] > 0


def test_the_audit_takes_the_runs_sealed_folders(prepared, call):
    control = ("--control", "work/control")
    called = call("audit", "work/training", *AUDIT, *control, *TRAINER, "--out", "e.json")
    assert called.status == 1, called.err
    assert called.out.startswith("verdict  INCONCLUSIVE")
    assert "no --untrained model" in called.out
    evidence = json.loads((prepared / "e.json").read_bytes())
    assert evidence["subjects"]["control"]["rejected_by"]
    # The control is a model that the claim does not hold for.
    caught = call("audit", "work/control", *AUDIT, *TRAINER, "--out", "c.json")
    assert caught.status == 1
    assert "CONTRADICTED" in caught.out


def test_a_verdict_that_is_not_pass_is_status_1(prepared, call):
    called = call("gate", "run.yaml", "--policy", "partner")
    assert called.status == 1
    assert called.out.startswith("FAIL under partner")
    one = call("gate", "run.yaml", "--policy", "partner", "--explain", "dp.epsilon")
    assert one.status == 1
    assert "\n  to pass   ledger.epsilon has to be at most 3." in one.out
    assert "dp.delta" not in one.out
    path = prepared / "work/bundle/report.html"
    path.write_bytes(path.read_bytes() + b" ")
    for more in ((), ("--json",)):
        called = call("verify", *BUNDLE, *more)
        assert called.status == 1
        assert "report.html" in called.out
    ledger = prepared / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"step":3', b'"step":4', 1))
    called = call("ledger", "verify", ledger, "--json")
    assert called.status == 1
    assert json.loads(called.out)["intact"] is False
    assert ", line " in call("ledger", "verify", ledger).out


def test_an_exported_model_loads_and_says_where_it_is_from(prepared, call):
    from transformers import pipeline

    assert call("release", "export", *BUNDLE, *OPEN, "--to", "below/plain").status == 0
    fill = pipeline("fill-mask", model="below/plain", tokenizer="below/plain")
    assert len(fill("The river near the [MASK] was stone again.")) == 5
    record = json.loads((prepared / "below/plain/dpmlm-export.json").read_text())
    assert record["opened_by"] == load_identity(Path("keys/consumer.key")).key_id
    assert record["bundle_manifest"].startswith("sha256:")


def test_sealed_output_opens_to_the_named_key_and_clear_output_to_its_owner(prepared, call):
    assert call("scrub", "few.jsonl", "sealed", "--to", "keys/auditor.pub").status == 0
    assert call("scrub", "few.jsonl", "clear.jsonl", "--plaintext").status == 0
    folder = SealedFolder.open(prepared / "sealed", [load_identity(Path("keys/auditor.key"))])
    sealed = [row["text"] for row in read_shards(folder)]
    clear = [json.loads(line)["text"] for line in Path("clear.jsonl").read_text().splitlines()]
    assert sealed == clear
    assert "(212)" not in " ".join(clear)
    assert Path("clear.jsonl").stat().st_mode & 0o077 == 0
    assert len(folder.read_json("decisions")) == len(sealed)


def opened(folder: Path) -> SealedFolder:
    return SealedFolder.open(folder, [load_identity(Path("keys/trainer.key"))])


@pytest.mark.parametrize("verb", ["scrub", "dedup"])
def test_rows_without_text_are_counted_and_kept_sealed(prepared, call, verb):
    source = prepared / "few.jsonl"
    source.write_text('{"text": " "}\n' + source.read_text() + '{"text": null}\n')
    called = call(verb, "few.jsonl", "sealed", "--json")
    assert called.status == 0, called.err
    assert json.loads(called.out)["counts"]["dropped: empty"] == 2
    dropped = opened(prepared / "sealed").read_json("dropped")
    assert [(row["source"], row["row"], row["reason"]) for row in dropped] == [
        ("few.jsonl", 1, "empty"), ("few.jsonl", 9, "empty"),
    ]  # fmt: skip
    called = call(verb, "few.jsonl", "clear.jsonl", "--plaintext")
    assert "dropped: empty" in called.out
    assert sorted(path.name for path in prepared.glob("clear*")) == ["clear.jsonl"]


def test_texts_that_scrubbing_emptied_are_counted_and_kept_apart(prepared, call, monkeypatch):
    from dpmlm.pipeline import scrub_files
    from dpmlm.scrub import Scrubbed

    def emptying(self, texts, *, persons, processes):
        yield from (Scrubbed("" if n == 1 else text, ()) for n, text in enumerate(texts))

    monkeypatch.setattr(scrub_files.Scrubber, "scrub_many", emptying)
    called = call("scrub", "few.jsonl", "sealed", "--json")
    assert called.status == 0, called.err
    shown = json.loads(called.out)
    assert (shown["documents"], shown["counts"]) == (6, {"emptied": 1})
    folder = opened(prepared / "sealed")
    assert [row["id"] for row in read_shards(folder)] == [
        f"few.jsonl:{row}" for row in (1, 3, 4, 5, 6, 7)
    ]
    assert folder.read_json("emptied") == [{"id": "few.jsonl:2", "text": ""}]
    assert len(folder.read_json("decisions")) == 7
    called = call("scrub", "few.jsonl", "clear.jsonl", "--plaintext")
    assert "emptied" in called.out
    assert len(Path("clear.jsonl").read_text().splitlines()) == 6


def test_pseudonyms_of_a_single_stage_need_the_option_of_that_verb(tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("A text.")
    (tmp_path / "policy.yaml").write_text(
        "name: p\ndescription: d\nrules: []\nother: {operator: pseudonym, threshold: 0.5, why: w}\n"
    )
    message = refused("scrub", "in.txt", "out", "--plaintext", "--policy", "policy.yaml")
    assert "--pseudonym-key" in message
    assert "keys.scrub" not in message


def test_exact_dedup_keeps_what_is_merely_alike(tmp_path, call):
    same = "The same words stand here once and once more."
    alike = same.replace("words", "words,").lower()
    rows = [{"text": same}, {"text": alike}, {"text": same}]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    called = call("dedup", source, tmp_path / "exact.jsonl", "--exact", "--plaintext", "--json")
    assert json.loads(called.out)["counts"] == {"removed: exact": 1}
    called = call("dedup", source, tmp_path / "near.jsonl", "--plaintext", "--json")
    assert json.loads(called.out)["documents"] == 1


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "txt"])
def test_a_corpus_may_come_in_each_format(tmp_path, call, kind):
    import pyarrow
    import pyarrow.parquet

    texts = ['One line,\nanother "quoted" line.', "Näxt: (212) 555-0101"]
    source = tmp_path / f"Ünïcode näme 'q' \u202e.{kind}"
    if kind == "jsonl":
        source.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    elif kind == "csv":
        rows = ['"' + t.replace('"', '""') + '"' for t in texts]
        source.write_text("text\r\n" + "\r\n".join(rows) + "\r\n")
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), source)
    else:
        source.mkdir()
        for number, text in enumerate(texts):
            (source / f"{number}.txt").write_text(text)
    target = tmp_path / "out.jsonl"
    called = call("dedup", source, target, "--plaintext", "--json")
    assert called.status == 0, called.err
    assert [json.loads(line)["text"] for line in target.read_text().splitlines()] == texts


def test_init_leaves_what_is_there(tmp_path, monkeypatch, call, finished):
    monkeypatch.chdir(tmp_path)
    shutil.copy(finished[0] / "run.yaml", tmp_path)
    before = (tmp_path / "run.yaml").read_bytes()
    first = call("init", ".")
    assert "wrote keys/trainer.key" in first.out
    assert (tmp_path / "run.yaml").read_bytes() == before
    key = (tmp_path / "keys/trainer.key").read_bytes()
    again = call("init", ".", "--json")
    assert json.loads(again.out) == {"schema": "dpmlm.written/1", "written": []}
    assert (tmp_path / "keys/trainer.key").read_bytes() == key


def test_scrubbed_output_confirms_no_guess_at_what_was_removed(tmp_path, call):
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"text": "Call (212) 555-0142 for more."}) + "\n")
    call("scrub", source, tmp_path / "out.jsonl", "--plaintext")
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert "0142" not in row["text"]
    assert row["id"] == "in.jsonl:1"


def test_output_is_sealed_to_the_trainer_whose_keys_lie_here(copy, call):
    assert call("dedup", "private.jsonl", "unique").status == 0
    folder = SealedFolder.open(copy / "unique", [load_identity(copy / "keys/trainer.key")])
    assert len(list(read_shards(folder))) == 80


NOTES = [f"Mr Robert Hughes, note {number}, grew tulips." for number in range(9)]


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A corpus of its own, each text twice; the current folder."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"text": text}) + "\n" for text in NOTES * 2]
    (tmp_path / "notes.jsonl").write_text("".join(lines))
    return tmp_path


def drawn_rows(folder):
    return [json.loads(line) for line in (folder / "gold.jsonl").read_text().splitlines()]


def write_rows(folder, rows):
    (folder / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_sample_is_drawn_blind_marked_and_measured(notes, call, refused):
    drawn = call("scrub", "notes.jsonl", "gold.jsonl", "--sample", "4", "--plaintext")
    assert drawn.status == 0, drawn.err
    assert "dpmlm scrub --gold gold.jsonl" in drawn.out
    assert (notes / "gold.jsonl").stat().st_mode & 0o777 == 0o600
    rows = drawn_rows(notes)
    assert len({row["text"] for row in rows}) == 4
    assert all(row["text"] in NOTES for row in rows)
    assert [(row["spans"], row["prefilled"]) for row in rows] == [(None, False)] * 4
    said = refused("scrub", "--gold", "gold.jsonl")
    assert "line 1" in said
    assert "null until somebody has read it" in said
    for row in rows:
        row["spans"] = [
            {"text": "Robert Hughes", "type": "PERSON", "identifier": "DIRECT"},
            {"text": "tulips", "type": "PLANT", "identifier": "QUASI"},
        ]
    write_rows(notes, rows)
    shown = call("scrub", "--gold", "gold.jsonl", "--show-private")
    assert "PLANT                         0 of 4" in shown.out
    assert "DIRECT                        4 of 4" in shown.out
    assert "marked without seeing" in shown.out
    assert "the worst 4 of 4 misses" in shown.out
    assert "[tulips]" in shown.out
    assert "tulips" not in call("scrub", "--gold", "gold.jsonl").out
    told = call("scrub", "--gold", "gold.jsonl", "--json").out
    assert json.loads(told)["annotation"] == "blind"
    assert "tulips" not in told


def test_every_text_of_a_corpus_is_drawn_once_at_most(notes, call):
    assert call("scrub", "notes.jsonl", "gold.jsonl", "--sample", "99", "--plaintext").status == 0
    assert sorted(row["text"] for row in drawn_rows(notes)) == sorted(NOTES)


def test_a_prefilled_sample_holds_what_was_found_and_says_so(notes, call, refused):
    sample = ("scrub", "notes.jsonl", "gold.jsonl", "--sample", "4", "--plaintext")
    assert call(*sample, "--prefill").status == 0
    rows = drawn_rows(notes)
    assert all(row["spans"] and row["prefilled"] is True for row in rows)
    told = call("scrub", "--gold", "gold.jsonl")
    assert "the true recall may be lower" in told.out
    assert json.loads(call("scrub", "--gold", "gold.jsonl", "--json").out)["annotation"] == (
        "prefilled"
    )
    del rows[0]["prefilled"]
    for row in rows[1:]:
        row["prefilled"] = False
    write_rows(notes, rows)
    assert "does not say whether" in call("scrub", "--gold", "gold.jsonl").out
    assert "--sample" in refused("scrub", "notes.jsonl", "out", "--prefill", "--plaintext")


def test_a_sample_is_written_in_clear_on_request_alone(tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.jsonl").write_text(json.dumps({"text": "Mr Robert Hughes"}) + "\n")
    assert "--plaintext" in refused("scrub", "notes.jsonl", "gold.jsonl", "--sample", "4")
    (tmp_path / "gold.jsonl").touch()
    said = refused("scrub", "notes.jsonl", "gold.jsonl", "--sample", "4", "--plaintext")
    assert "there already" in said
