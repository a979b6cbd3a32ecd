"""`dpmlm runs forget`: who was forgotten is in no later run, and no line says who it was."""

import json
import math
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from faults import Faults, Killed
from small_run import write_run_file
from small_stages import begin, run_stages, write_rows

from dpmlm.artifacts import SealedFolder, create_keys, load_identity, load_secret_key
from dpmlm.config import PrivateVocabularyConfig, load_config
from dpmlm.corpus import read_shards
from dpmlm.errors import IntegrityError, UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import TRAINING
from dpmlm.pipeline.outcome import RELEASE
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_run, execute_until
from dpmlm.pipeline.runs.affected import affected
from dpmlm.pipeline.runs.tuning import select_run
from dpmlm.pipeline.secrets import RunSecrets
from dpmlm.pipeline.summary import private_rows
from dpmlm.pipeline.tombstones import (
    file_beside,
    forget,
    forgotten,
    refuse_forgotten,
    second_run,
    tombstones_of,
)
from dpmlm.pipeline.vocabulary import vocabulary_file
from dpmlm.pipeline.workers import prepare
from dpmlm.privacy import Ledger
from dpmlm.release.report.fields import TEXT

NAME = "Zoë Quillfeather-Orme"


def rows() -> list[dict]:
    texts = [{"id": f"d{n}", "text": f"note {n} " + f"river stone {n * 7} " * 6, "author": f"p{n}"}
             for n in range(8)]  # fmt: skip
    for n in (1, 4, 6):
        texts[n]["author"] = NAME
    texts[6]["text"] = ""
    texts[7]["author"] = None
    return texts


def corpus_of(config) -> list[dict]:
    identity = load_identity(config.keys.identity)
    return list(read_shards(SealedFolder.open(config.workspace / "corpus", [identity])))


def ids(config) -> list[str]:
    return [document["id"] for document in corpus_of(config)]


def kinds(config) -> list[str]:
    return [entry["kind"] for entry in Ledger.open(config.ledger.path).entries]


def new_workspace(config, name: str = "again"):
    return config.model_copy(update={"workspace": config.workspace.with_name(name)})


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Corpus, run file, keys and ledger."""
    folder = tmp_path_factory.mktemp("base")
    begin(folder, rows())
    return folder


@pytest.fixture
def config(base, tmp_path):
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    return load_config(tmp_path / "run.yaml")


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


def test_forgetting_names_nobody_and_charges_nothing(config):
    before = Ledger.open(config.ledger.path).spent()
    assert forget(config, NAME, "request-17").added
    assert not forget(config, "Zoe\u0308 Quillfeather-Orme ", "again").added
    assert Ledger.open(config.ledger.path).spent() == before
    assert kinds(config) == ["register", "tombstones"]
    file = file_beside(config.ledger.path)
    secrets = RunSecrets.derive(load_secret_key(config.keys.scrub), config.seed)
    stones = tombstones_of(Ledger.open(config.ledger.path), secrets)
    assert [stones.name(person) for person in (NAME, "p0", None)] == [True, False, False]
    written = file.read_text()
    assert not any(hidden in written for hidden in (NAME, stones.pseudonym(NAME), "Quillfeather"))
    found = forgotten(config)
    assert (found.persons, len(found.dates), found.added) == (1, 1, None)
    assert "reason" not in json.dumps(found.to_json())
    # Of a run file of another seed it is the same person.
    assert not forget(config.model_copy(update={"seed": 9}), NAME, "again").added


@pytest.mark.parametrize(
    ("person", "reason", "rule"),
    [
        (NAME, "", "one word"), (NAME, "a\nb", "one word"), (NAME, "x" * 65, "one word"),
        (NAME, "request 17", "one word"), (NAME, "Ze\u0301", "one word"),
        (NAME, "QUILLFEATHER/17", "part of the person's name"), (NAME, "zoe-17", "part of"),
        ("Rene\u0301", "Rene-asked", "part of"), ("Anna  Smith", "anna.s", "part of"),
        ("Anna Smith", "mail#smith", "part of"), ("\uff33mith", "smith", "part of"),
        ("Anna Smith", "annasmith17", "part of"), ("7", "request-7", "part of"),
    ],
)  # fmt: skip
def test_reasons_that_are_none(config, person, reason, rule):
    with pytest.raises(UserError, match=rule) as caught:
        forget(config, person, reason, anyway=True)
    assert NAME.casefold() not in str(caught.value).casefold()
    assert not file_beside(config.ledger.path).exists()


def test_a_number_that_is_a_person_may_be_a_digit_of_another(config):
    assert forget(config, "7", "request-17", anyway=True).added


def test_whoever_is_in_no_row_is_refused_but_for_anyway(config):
    with pytest.raises(UserError, match="no row of") as caught:
        forget(config, "Zoe Quillfeather-Orme", "request-17")  # misspelled
    assert "--anyway" in caught.value.next_step
    assert "Quill" not in str(caught.value)
    assert not file_beside(config.ledger.path).exists()
    found = forget(config, "Zoe\u0308 Quillfeather-Orme", "request-17")
    assert found.rows == 3  # the row without text too
    assert "name them (private): 3" in found.text()
    assert "rows" not in found.to_json()
    config.corpus.path.unlink()
    with pytest.raises(UserError, match="no such file"):
        forget(config, NAME, "request-17")
    assert forget(config, "p77", "request-18", anyway=True).added


def test_it_is_said_what_a_second_run_on_the_ledger_claims(config, tmp_path):
    run_stages(config)
    fits = forget(config, NAME, "request-17")
    cap = config.ledger.cap.model_copy(update={"epsilon": 16.0})
    wide = config.model_copy(update={"ledger": config.ledger.model_copy(update={"cap": cap})})
    assert "so its verdict will be FAIL" in second_run(wide)
    for part in ("epsilon 16", "internal allows epsilon 8", "two runs of epsilon 4 each"):
        assert part in second_run(wide)
    narrow = cap.model_copy(update={"epsilon": 8.0})
    good = config.model_copy(update={"ledger": config.ledger.model_copy(update={"cap": narrow})})
    assert "claims the ledger's cap, epsilon 8" in second_run(good)
    assert "FAIL" not in second_run(good)
    assert second_run(config) in fits.text()
    with pytest.raises(UserError, match="a second run on a ledger claims the ledger's cap"):
        run_stages(config, check=True)


def damage(lines: list[bytes], how: str) -> bytes | None:
    if how == "gone":
        return None
    if how == "empty":
        return b""
    if how == "cut":
        return b"".join(lines[:-1])
    if how == "a line out of the middle":
        return b"".join([*lines[:1], *lines[2:]])
    if how == "changed":
        return b"".join(lines).replace(b"request-1", b"request-2")
    assert how == "half a line"
    return b"".join(lines)[:-20]


@pytest.mark.parametrize(
    "how", ["gone", "empty", "cut", "half a line", "a line out of the middle", "changed"]
)
def test_a_file_that_was_cut_or_changed_is_refused_by_whoever_needs_it(config, how):
    forget(config, "p0", "request-1")
    forget(config, NAME, "request-2")
    file = file_beside(config.ledger.path)
    damaged = damage(file.read_bytes().splitlines(keepends=True), how)
    file.unlink()
    if damaged is not None:
        file.write_bytes(damaged)
    for need in (lambda: run_stages(config, "corpus"), lambda: forgotten(config),
                 lambda: forget(config, "p2", "request-3")):  # fmt: skip
        with pytest.raises(IntegrityError, match="tombstone file") as caught:
            need()
        assert "restore" in str(caught.value)


def test_two_who_forget_at_once_both_do(config, monkeypatch):
    from dpmlm.pipeline import tombstones

    made = tombstones.create

    def meanwhile(path, *arguments):
        monkeypatch.setattr(tombstones, "create", made)
        forget(config, "p0", "request-1")
        made(path, *arguments)

    monkeypatch.setattr(tombstones, "create", meanwhile)
    forget(config, NAME, "request-2")
    assert forgotten(config).persons == 2
    noted = Ledger.open(config.ledger.path).tombstones
    assert f"{noted['lines']}:{noted['head']}" == forgotten(config).head


def test_a_cut_file_is_found_by_a_workspace_that_read_it(config):
    plain = config.ledger.path.read_bytes()
    forget(config, NAME, "request-17")
    run = run_stages(config, "corpus")
    # Ledger and tombstones are put back to what they were: the workspace alone knows better.
    config.ledger.path.write_bytes(plain)
    file_beside(config.ledger.path).unlink()
    with pytest.raises(IntegrityError, match="workspace"):
        refuse_forgotten(run, Ledger.open(config.ledger.path))
    run.folder("corpus").unfinish()
    with pytest.raises(IntegrityError, match="workspace"):
        run_stages(config, "corpus")


def test_another_pseudonym_key_finds_nobody_and_is_refused(config, tmp_path):
    forget(config, NAME, "request-17")
    create_keys(tmp_path / "other")
    keys = config.keys.model_copy(update={"scrub": tmp_path / "other/pseudonym.key"})
    other = config.model_copy(update={"keys": keys})
    for need in (lambda: forget(other, NAME, "again"), lambda: run_stages(other, "corpus")):
        with pytest.raises(UserError, match="another pseudonym key"):
            need()


def test_a_signed_ledger_notes_it_signed(config):
    from dpmlm.artifacts import load_signing_key

    config.ledger.path.unlink()
    key = load_signing_key(config.keys.signing)
    Ledger.register(config.ledger.path, epsilon=16, delta=1e-3, corpus="posts", signer=key)
    forget(config, NAME, "request-17")
    Ledger.open(config.ledger.path).verify(trusted={key.key_id: key.verify_key})
    assert kinds(config) == ["register", "tombstones"]


def test_a_ledger_that_forgets_backwards_is_refused(config):
    forget(config, NAME, "request-17")
    ledger = Ledger.open(config.ledger.path)
    with pytest.raises(IntegrityError, match="grows"), ledger._journal.exclusive():
        ledger._write("tombstones", lines=1, head="sha256:0")
    with pytest.raises(IntegrityError, match="grows"):
        Ledger.open(config.ledger.path)


@pytest.mark.parametrize(
    "mode", ["torn", *(pytest.param(mode, marks=pytest.mark.full) for mode in ("kill", "ENOSPC"))]
)
def test_whatever_kills_it_a_repeat_completes_it(base, tmp_path, mode):
    nth = 0
    while True:
        nth += 1
        folder = tmp_path / f"{mode}-{nth}"
        shutil.copytree(base, folder)
        config = load_config(folder / "run.yaml")
        fault = Faults(nth, mode)
        try:
            with fault:
                forget(config, NAME, "request-17")
        except (Killed, UserError, OSError):
            pass
        if not fault.reached:
            break
        forget(config, NAME, "request-17")
        assert forgotten(config).persons == 1
        noted = Ledger.open(config.ledger.path).tombstones
        assert f"{noted['lines']}:{noted['head']}" == forgotten(config).head
        shutil.rmtree(folder)
    assert nth > 8


def test_a_vocabulary_leaves_out_their_words(config, tmp_path):
    config.ledger.path.unlink()
    Ledger.register(config.ledger.path, epsilon=math.inf, delta=1e-3, corpus="posts")
    open_cap = config.ledger.model_copy(
        update={"cap": config.ledger.cap.model_copy(update={"epsilon": math.inf})}
    )
    config = config.model_copy(update={"ledger": open_cap})
    lines = [{"text": "quince", "author": NAME} for _ in range(400)]
    lines += [{"text": "river", "author": f"p{n}"} for n in range(400)]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    forget(config, NAME, "request-17")
    how = PrivateVocabularyConfig(size=300, epsilon=100, delta=1e-4, words_per_unit=1, unused=0)

    def drawn(name: str, **more):
        return vocabulary_file(tmp_path / "words.jsonl", tmp_path / name, config.ledger.path, how,
                               text="text", **more)  # fmt: skip

    with pytest.raises(UserError, match="--pseudonym-key"):
        drawn("a.txt", person="author")
    with pytest.raises(UserError, match="--pseudonym-key"):
        drawn("a.txt", person=None, pseudonym_key=config.keys.scrub)
    assert kinds(config) == ["register", "tombstones"]  # nothing was charged
    counted = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpmlm.pipeline.vocabulary.WordHistogram.add",
                      lambda self, unit, text: counted.append(text))  # fmt: skip
        drawn("b.txt", person="author", pseudonym_key=config.keys.scrub)
    assert counted == ["river"] * 400


def test_rows_of_a_trainer_are_left_out_by_their_field(config):
    forget(config, NAME, "request-17")
    secrets = RunSecrets.derive(load_secret_key(config.keys.scrub), 5)
    stones = tombstones_of(Ledger.open(config.ledger.path), secrets)
    left = list(stones.without(rows(), "author"))
    assert [row["id"] for row in left] == ["d0", "d2", "d3", "d5", "d7"]
    with pytest.raises(UserError, match="not say whose they are"):
        list(stones.without([{"text": "a"}], "author"))


@pytest.fixture
def trained(finished, tmp_path):
    """A finished run of which a person was forgotten, and its ledger before."""
    shutil.copytree(finished[0], tmp_path / "copy")
    config = load_config(tmp_path / "copy/run.yaml")
    before = config.ledger.path.read_bytes()
    forget(config, "person 3", "request-17")
    return config, before


@pytest.mark.xdist_group("finished")
@pytest.mark.parametrize("until", ["release", "training"])
def test_a_charged_training_is_refused_and_charged_no_more(trained, until):
    config, before = trained
    run = Run.load(config, Progress(quiet=True))
    if until == "training":
        run.folder("training").unfinish()
    with pytest.raises(UserError, match="stays charged"):
        execute_run(config)
    after = config.ledger.path.read_bytes()
    assert after.startswith(before)
    assert [json.loads(line)["kind"] for line in after[len(before) :].splitlines()] == [
        "tombstones"
    ]


@pytest.mark.xdist_group("finished")
def test_who_is_forgotten_while_a_run_is_at_work_stops_it(trained):
    """Between the start of a run and its training, or its release, or a choice among runs."""
    config, _ = trained
    run = Run.load(config, Progress(quiet=True))
    for stage in (TRAINING, RELEASE):
        with pytest.raises(UserError, match="who was forgotten since"):
            stage.build(run, run.folder(stage.name), lambda done, total: None)
    with pytest.raises(UserError, match="who was forgotten since"):
        select_run([config, config], public="small")
    assert b'"choose"' not in config.ledger.path.read_bytes()


@pytest.mark.full
def test_newsgroups_forget_a_person(tmp_path):
    """Trained, forgotten, refused; run again twice on the ledger: nothing of theirs is anywhere."""
    if "DPMLM_DATA" not in os.environ:
        pytest.skip("DPMLM_DATA is not set: the folder with newsgroups/train.jsonl")
    path = Path(os.environ["DPMLM_DATA"]) / "newsgroups" / "train.jsonl"
    with path.open() as file:
        posts = [json.loads(line) for line, _ in zip(file, range(100), strict=False)]
    person, count = Counter(post["author"] for post in posts).most_common(2)[1]
    own = {post["id"] for post in posts if post["author"] == person}
    lines = own_lines(posts, own)
    assert count > 3
    assert len(lines) > 20
    kept = [{key: post[key] for key in ("id", "text", "author")} for post in posts]
    first = begin(
        tmp_path, kept, privacy__units=400,
        tokens__train={"corpus": "public.jsonl", "size": 600, "unused": 400},
        audit__control=None, split__validation=0.1,
        ledger__cap={"epsilon": 40, "delta": 1e-2}, release__policy="internal",
    )  # fmt: skip
    execute_until(first, "training")
    assert held(first, own, lines) == {"corpus", "scrub", "dedup", "tokens"}
    assert affected([first], person).runs[0].training["charged_steps"] == 6
    forget(first, person, "request-17")
    charged = [entry for entry in kinds(first) if entry in ("reserve", "charge")]
    for again in (lambda: execute_until(first, "training"), lambda: execute_run(first)):
        with pytest.raises(UserError, match="who was forgotten since"):
            again()
    assert [entry for entry in kinds(first) if entry in ("reserve", "charge")] == charged
    for name in ("second", "third"):
        config = new_workspace(first, name)
        execute_until(config, "training" if name == "second" else "tokens")
        assert held(config, own, lines) == set()
        assert affected([config], person).runs[0].answer == "not affected"
    Ledger.open(first.ledger.path).verify()


def own_lines(posts: list[dict], own: set[str]) -> set[str]:
    """Lines of some length that stand in their posts and in nobody else's."""

    def of(theirs: bool) -> set[str]:
        texts = (post["text"] for post in posts if (post["id"] in own) is theirs)
        return {line.strip() for text in texts for line in text.splitlines() if len(line) > 40}

    return {line for line in of(True) - of(False) if not any(line in other for other in of(False))}


def held(config, own: set[str], lines: set[str]) -> set[str]:
    """Stages of which some file, decrypted, holds an id or a line of theirs."""
    identity = load_identity(config.keys.identity)
    found = set()
    for path in config.workspace.rglob("recipients.json"):
        folder = SealedFolder.open(path.parent, [identity])
        for name in folder.names():
            data = folder.read_bytes(name)
            needles = [json.dumps(each, ensure_ascii=False)[1:-1] for each in own | lines]
            if any(needle.encode() in data for needle in needles):
                found.add(path.relative_to(config.workspace).parts[0])
    return found
