"""Who was forgotten is in no later corpus, and a workspace that holds them is refused."""

import pytest
from forgotten_rows import NAME, corpus_of, ids, new_workspace, rows
from small_run import write_run_file
from small_stages import run_stages, write_rows

from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.runs.affected import affected
from dpmlm.pipeline.summary import private_rows
from dpmlm.pipeline.tombstones import (
    forget,
    refuse_forgotten,
)
from dpmlm.pipeline.workers import prepare
from dpmlm.privacy import Ledger
from dpmlm.release.report.fields import TEXT


def test_a_forgotten_person_is_dropped_before_anything_else(config):
    run_stages(config, "corpus")
    assert ids(config) == ["d0", "d1", "d2", "d3", "d4", "d5", "d7"]
    forget(config, f" {NAME}", "request-17")
    again = new_workspace(config)
    run = run_stages(again)
    assert ids(again) == ["d0", "d2", "d3", "d5", "d7"]
    manifest = run.folder("corpus").manifest
    assert manifest["counts"]["forgotten"] == 3  # the row without text too
    assert manifest["counts"]["dropped"] == {}
    told = private_rows({"corpus": manifest["counts"], "seconds": {}})
    assert ("forgotten", "3 rows kept out by tombstones") in told
    assert "forgotten" in TEXT
    assert manifest["tombstones"]["lines"] == 2
    # What a document's neighbours are has no part in where it goes.
    before = {d["id"]: (d["unit"], d["split"], d["person"]) for d in corpus_of(config)}
    assert all(before[d["id"]] == (d["unit"], d["split"], d["person"]) for d in corpus_of(again))
    in_force = "a tombstone of theirs was in force when it was read"
    assert in_force in affected([again], NAME).runs[0].why
    # Not of somebody who was forgotten after the workspace was read.
    forget(config, "p77", "request-18", anyway=True)
    assert in_force not in affected([again], "p77").runs[0].why


def test_it_is_dropped_under_another_file_name_and_from_a_folder(config):
    forget(config, NAME, "request-17")
    source = config.corpus.path
    folder = source.with_name("delivery") / "may"
    folder.mkdir(parents=True)
    source.rename(folder / "other name.jsonl")
    moved = config.model_copy(
        update={"corpus": config.corpus.model_copy(update={"path": folder.parent})}
    )
    run_stages(moved, "corpus")
    assert ids(moved) == ["d0", "d2", "d3", "d5", "d7"]


def test_a_finished_workspace_that_holds_the_person_is_refused(config):
    run_stages(config)
    stamps = {path: path.stat().st_mtime_ns for path in config.workspace.rglob("*")}
    forget(config, NAME, "request-17")
    for refused in (lambda: run_stages(config, check=True), lambda: prepare_worker(config)):
        with pytest.raises(UserError, match="in a new workspace") as caught:
            refused()
        assert "text of a person who was forgotten since" in str(caught.value)
        assert NAME not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in config.workspace.rglob("*")} == stamps


def prepare_worker(config):
    run = Run.load(config, Progress(quiet=True))
    with run.workspace.shared("scrub-0"):
        prepare(run, "scrub", worker="scrub-0")


def test_a_workspace_without_the_person_goes_on(config):
    write_rows(config.corpus.path.parent, [row for row in rows() if row["author"] != NAME])
    run_stages(config)
    forget(config, NAME, "request-17", anyway=True)
    run = run_stages(config)
    refuse_forgotten(run, Ledger.open(config.ledger.path))


def test_a_corpus_stage_that_was_killed_is_read_again_without_the_person(config):
    run = run_stages(config, "corpus")
    folder = run.folder("corpus")
    folder.unfinish()  # all shards are written, and the manifest is not
    forget(config, NAME, "request-17")
    run_stages(config)
    assert ids(config) == ["d0", "d2", "d3", "d5", "d7"]


def test_shards_of_an_attempt_that_recorded_nobody_are_written_again(config):
    run = run_stages(config, "corpus")
    folder = run.folder("corpus")
    folder.unfinish()
    folder.remove("persons")
    folder.write_bytes("documents-00000", b'{"id": "old", "text": "x"}\n')
    run_stages(config, "corpus")
    assert len(ids(config)) == 7


def test_a_workspace_made_before_persons_were_recorded_is_refused(config):
    folder = run_stages(config, "corpus").folder("corpus")
    old = {k: v for k, v in folder.manifest.items() if k in ("counts", "key", "inputs")}
    folder.remove("persons")
    folder.finish(old)
    run = Run.load(config, Progress(quiet=True))
    ledger = Ledger.open(config.ledger.path)
    refuse_forgotten(run, ledger)  # nobody was forgotten yet
    forget(config, NAME, "request-17")
    with pytest.raises(UserError, match="before persons were recorded"):
        refuse_forgotten(run, ledger)


def test_a_corpus_that_names_nobody_is_refused_once_somebody_was_forgotten(config):
    nameless = load_config(
        write_run_file(
            config.corpus.path.parent, corpus={"path": "private.jsonl", "id": "id"},
            privacy__unit="document",
        )
    )  # fmt: skip
    with pytest.raises(UserError, match="names none"):
        forget(nameless, NAME, "request-17")
    forget(config, NAME, "request-17")
    run = Run.load(nameless, Progress(quiet=True))
    with pytest.raises(UserError, match="do not say whose they are"):
        refuse_forgotten(run, Ledger.open(nameless.ledger.path))
