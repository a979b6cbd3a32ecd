"""Beyond the corpus stage: vocabularies, Trainer, trainings under way, and real posts."""

import json
import math
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from forgotten_rows import NAME, kinds, new_workspace, rows
from small_stages import begin

from dpmlm.artifacts import SealedFolder, load_identity, load_secret_key
from dpmlm.config import PrivateVocabularyConfig, load_config
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import TRAINING
from dpmlm.pipeline.outcome import RELEASE
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_run, execute_until
from dpmlm.pipeline.runs.affected import affected
from dpmlm.pipeline.runs.tuning import select_run
from dpmlm.pipeline.secrets import RunSecrets
from dpmlm.pipeline.tombstones import (
    forget,
    tombstones_of,
)
from dpmlm.pipeline.vocabulary import vocabulary_file
from dpmlm.privacy import Ledger


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
