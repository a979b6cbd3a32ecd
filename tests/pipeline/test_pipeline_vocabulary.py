"""A vocabulary from private text in a run: charged before it is drawn, claimed, never redrawn."""

import json

import pytest
from small_run import KNOWN_SENTENCE, draw_keys, write_corpus, write_run_file

from dpmlm.artifacts import SealedFolder
from dpmlm.config import load_config
from dpmlm.corpus import read_shards
from dpmlm.errors import UserError
from dpmlm.pipeline import preflight, vocabulary
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.preview import preview
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_run, execute_until
from dpmlm.privacy import Ledger, PartitionSelection, SecretStream, make_plan, statement
from dpmlm.release import verify_bundle
from dpmlm.tokens import TokenStore, load_sealed_tokenizer, tokenizer_digest

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("vocabulary-run")]

PRIVATE = {"size": 600, "epsilon": 8, "delta": 1e-4, "words_per_unit": 20, "unused": 300}
CHANGES = {
    "tokens": {"private": PRIVATE, "window": 48, "stride": 16},
    "privacy__accountant": "rdp",
    "privacy__epsilon": 2,
    "ledger__cap": {"epsilon": 40, "delta": 1e-2},
}


def new_run(folder, **more):
    folder.mkdir(exist_ok=True)
    write_corpus(folder)
    write_run_file(folder, **CHANGES | more)
    draw_keys(folder)
    return load_config(folder / "run.yaml")


def selections(folder) -> list[dict]:
    ledger = Ledger.open(folder / "ledger.jsonl")
    ledger.verify()
    return [entry for entry in ledger.entries if entry["kind"] == "select"]


def words_of(config) -> tuple[set[str], str]:
    run = Run.load(config, Progress(quiet=True))
    tokenizer = load_sealed_tokenizer(run.folder("tokens"))
    return set(tokenizer.get_vocab()), tokenizer_digest(tokenizer)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole run, and what was previewed before it."""
    folder = tmp_path_factory.mktemp("vocabulary")
    config = new_run(folder)
    shown = preview(config)
    return folder, config, shown, execute_run(config)


def test_the_statement_names_the_vocabularys_budget_and_the_preview_said_so(whole):
    folder, _, shown, result = whole
    signed = json.loads((result.bundle / "statement.json").read_text())
    assert signed["vocabulary"] == {"epsilon": 8, "delta": 1e-4, "words_per_unit": 20}
    assert (signed["basis"], signed["epsilon"], signed["delta"]) == ("filter", 40.0, 1e-2)
    said = "at most 20 words of each person by partition selection (epsilon 8, delta 0.0001)"
    assert said in signed["sentence"]
    assert shown.sentence == signed["sentence"]
    assert shown.vocabulary["epsilon"] == 8
    assert "charged beside the training: epsilon 8" in shown.text()
    assert shown.to_json()["vocabulary"]["threshold"] > 1
    assert [entry["label"] for entry in selections(folder)] == ["vocabulary of small"]


def test_its_bundle_verifies_and_a_statement_without_the_budget_does_not(whole, tmp_path):
    from datetime import UTC, datetime

    from dpmlm.release.consistency import contradictions, read_contents

    folder, _, _, result = whole
    now = datetime.now(UTC)
    assert verify_bundle(result.bundle, folder / "keys/trusted", now=now).findings == ()
    contents, _ = read_contents(result.bundle)
    claim = dict(contents.statement) | {"vocabulary": None}
    changed = type(contents)(**{**vars(contents), "statement": claim})
    manifest = verify_bundle(result.bundle, folder / "keys/trusted", now=now).manifest
    places = [finding.where for finding in contradictions(changed, manifest)]
    assert places == ["vocabulary"]


def test_words_of_all_come_out_and_words_of_one_do_not(whole):
    pieces, _ = words_of(whole[1])
    assert {"the", "near", "was", "again"} & pieces
    rare = {word for word in KNOWN_SENTENCE.lower().split() if len(word) > 6} - {"orchard"}
    assert not rare & pieces
    assert "[unused299]" in pieces


def test_held_out_units_contribute_no_word(whole, monkeypatch):
    folder, config, _, _ = whole
    seen = set()
    monkeypatch.setattr(vocabulary.WordHistogram, "add", lambda self, unit, text: seen.add(unit))

    def stop(*arguments, **names):
        raise RuntimeError("far enough")

    monkeypatch.setattr(vocabulary, "draw", stop)
    run = Run.load(config, Progress(quiet=True))
    other = SealedFolder.create(folder / "other", run.own, role="tokens")
    with pytest.raises(RuntimeError, match="far enough"):
        vocabulary.private_tokenizer(run, other)
    documents = list(read_shards(run.folder("dedup")))
    assert seen == {d["unit"] for d in documents if d["split"] == "train"}
    assert {d["unit"] for d in documents} - seen


def test_a_finished_vocabulary_is_not_charged_again(whole):
    folder, config, _, result = whole
    before = (words_of(config), len(selections(folder)))
    assert execute_run(config).verdict == result.verdict
    assert (words_of(config), len(selections(folder))) == before


@pytest.fixture
def keys(monkeypatch):
    """Keys of all streams that a vocabulary was drawn from, and how many charges stood then."""
    drawn = []
    real = PartitionSelection.select

    def watched(selection, weights, stream):
        drawn.append(stream._key)
        return real(selection, weights, stream)

    monkeypatch.setattr(PartitionSelection, "select", watched)
    return drawn


def test_a_draw_is_charged_before_it_and_each_draw_has_its_own_noise(tmp_path, keys, monkeypatch):
    config = new_run(tmp_path)
    charged_before = []
    real = SecretStream.from_os.__func__

    def killed(cls):
        charged_before.append(len(selections(tmp_path)))
        raise KeyboardInterrupt

    monkeypatch.setattr(vocabulary.SecretStream, "from_os", classmethod(killed))
    with pytest.raises(KeyboardInterrupt):
        execute_until(config, "tokens")
    assert charged_before == [1]
    monkeypatch.setattr(vocabulary.SecretStream, "from_os", classmethod(real))

    # Killed with the result half written: nothing of it is read, and it is drawn anew.
    finish = SealedFolder.finish

    def unfinished(folder, manifest):
        if folder.role == vocabulary.FOLDER:
            raise KeyboardInterrupt
        finish(folder, manifest)

    monkeypatch.setattr(SealedFolder, "finish", unfinished)
    with pytest.raises(KeyboardInterrupt):
        execute_until(config, "tokens")
    monkeypatch.setattr(SealedFolder, "finish", finish)
    assert (len(selections(tmp_path)), len(keys)) == (2, 1)

    # Killed after it, while text is encoded: the finished draw is taken up.
    build = TokenStore.build

    def stopped(*arguments, **names):
        build(*arguments, **names)
        raise KeyboardInterrupt

    monkeypatch.setattr(TokenStore, "build", staticmethod(stopped))
    with pytest.raises(KeyboardInterrupt):
        execute_until(config, "tokens")
    monkeypatch.setattr(TokenStore, "build", staticmethod(build))
    assert (len(selections(tmp_path)), len(keys)) == (3, 2)
    run = Run.load(config, Progress(quiet=True))
    drawn = SealedFolder.open(tmp_path / "work/tokens/vocabulary", [run.identity])
    execute_until(config, "tokens")
    assert words_of(config)[1] == tokenizer_digest(load_sealed_tokenizer(drawn))
    assert (len(selections(tmp_path)), len(keys)) == (3, 2)
    assert len(set(keys)) == 2


@pytest.mark.parametrize("until", ["release", "tokens"])
def test_a_cap_that_cannot_carry_both_is_refused_before_anything_is_drawn(tmp_path, keys, until):
    changes = {"ledger__cap": {"epsilon": 8, "delta": 1e-2}, "privacy__epsilon": 7}
    config = new_run(tmp_path, **changes)
    with pytest.raises(UserError, match="beside a vocabulary of epsilon 8"):
        execute_until(config, until)
    assert keys == []
    assert len(Ledger.open(tmp_path / "ledger.jsonl").entries) == 1
    assert not (tmp_path / "work").exists()
    shown = preview(config)
    assert "beside a vocabulary" in shown.refusal
    assert shown.sentence is None
    if until == "tokens":  # what draws nothing needs no room
        execute_until(config, "corpus")
        assert len(Ledger.open(tmp_path / "ledger.jsonl").entries) == 1


def test_a_budget_of_which_the_vocabulary_was_paid_is_enough_to_go_on(tmp_path, monkeypatch):
    config = new_run(tmp_path)
    execute_until(config, "tokens")
    asked = []
    monkeypatch.setattr(
        Ledger, "refuse_unaffordable", lambda self, plan, beside=None: asked.append(beside)
    )
    preflight.preflight(Run.load(config, Progress(quiet=True)))
    assert asked == [None]


def test_a_size_without_room_is_refused_before_anything_is_drawn(tmp_path):
    config = new_run(tmp_path, tokens={"private": PRIVATE | {"size": 400}, "window": 48})
    with pytest.raises(UserError, match="a vocabulary of 400 entries"):
        execute_run(config)
    assert not selections(tmp_path)


def test_a_claim_on_a_vocabulary_that_nobody_was_charged_for_is_refused(tmp_path):
    plan = make_plan(
        epsilon=2, delta=1e-4, units=200, expected_batch_size=10, steps=5, max_grad_norm=1.0,
        accountant="rdp",
        bindings={
            "vocabulary_epsilon": 1.0, "vocabulary_delta": 1e-6, "vocabulary_words_per_unit": 9
        },
    )  # fmt: skip
    ledger = Ledger.register(tmp_path / "other.jsonl", epsilon=9, delta=1e-3, corpus="notes")
    ledger.reserve("run", plan)
    with pytest.raises(UserError, match="is not charged there"):
        statement(plan, what="it", summary=ledger.summary("run"))
    ledger.spend_selection(
        "vocabulary", PartitionSelection(1.0, 1e-6, 9), unit="document", scope="source corpus"
    )
    assert (
        "(epsilon 1, delta 1e-06)"
        in statement(plan, what="it", summary=ledger.summary("run")).sentence
    )
