"""`dpmlm runs affected`: where the text of one person went, and nothing said of who it is."""

import json
import math
import shutil

import pytest
from small_stages import EMPTY, begin, run_stages

from dpmlm.artifacts import SealedFolder, create_keys, load_identity
from dpmlm.config import load_config
from dpmlm.corpus import read_shards
from dpmlm.pipeline.runs.affected import affected
from dpmlm.privacy import Ledger, make_plan
from dpmlm.tokens import TokenStore

pytestmark = pytest.mark.xdist_group("affected")

NAME = "Zoë Quillfeather-Orme"
PASSAGE = " ".join(f"word{n}" for n in range(40))


def rows() -> list[dict]:
    """Three shards of three: the person has four documents, of which one repeats another's."""
    plain = [
        {"id": f"d{n}", "text": f"note {n} " + f"river stone {n * 7} " * 6, "author": f"p{n}"}
        for n in range(9)
    ]
    for n in (1, 4, 7):
        plain[n]["author"] = NAME
    plain[4]["text"] = plain[0]["text"]
    plain[8]["author"] = None
    more = [
        {"id": "e1", "text": EMPTY, "author": NAME},
        {"id": "e2", "text": "  ", "author": NAME},
    ]
    return plain + more


INF = make_plan(
    epsilon=math.inf, delta=1e-4, units=100, expected_batch_size=8, steps=6, max_grad_norm=1.0
)


def one(config, person: str = NAME):
    return affected([config], person).runs[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Stages in the mode that removes near-duplicates."""
    folder = tmp_path_factory.mktemp("affected")
    config = begin(folder, rows(), corpus__per_shard=3)
    run_stages(config)
    return config


def naive(config) -> dict:
    """Documents of the person by stage, from everything decrypted, by the ids given above."""
    identity = load_identity(config.keys.identity)
    own = {"d1", "d4", "d7", "e1"}
    found = {}
    for stage in ("corpus", "scrub", "dedup"):
        folder = SealedFolder.open(config.workspace / stage, [identity])
        found[stage] = {d["id"] for d in read_shards(folder)} & own
    store = TokenStore.open(SealedFolder.open(config.workspace / "tokens", [identity]))
    found["tokens"] = {store.id(i) for i in range(len(store))} & own
    return found


def test_documents_are_followed_to_the_tokens(made):
    trace = one(made).trace
    assert naive(made) == {
        "corpus": {"d1", "d4", "d7", "e1"}, "scrub": {"d1", "d4", "d7"}, "dedup": {"d1", "d7"},
        "tokens": {"d1", "d7"},
    }  # fmt: skip
    assert (trace.documents, trace.blank, trace.unnamed) == (4, 1, 1)
    assert trace.files["corpus"] == [*(f"documents-0000{n}" for n in (0, 1, 2, 3)), "dropped"]
    assert trace.files["scrub"] == [*(f"documents-0000{n}" for n in (0, 1, 2)), "emptied-00003"]
    assert trace.files["dedup"][0] == "removed-00000"
    assert trace.files["tokens"] == ["tokens-00000"]
    assert (trace.emptied, trace.removed, trace.tokens["train"]) == (1, 1, 2)


def test_the_kept_copy_of_another_is_found_and_said(made):
    found = one(made)
    assert (found.trace.kept_by_others, found.trace.copies["train"]) == (1, 1)
    assert any("the kept copy of a duplicate" in sentence for sentence in found.why)
    other = one(made, "p0")
    assert (other.trace.stands_for_others, other.trace.kept_by_others) == (1, 0)
    assert any("stay once theirs are gone" in sentence for sentence in other.why)


def test_a_set_of_texts_names_documents_anew_and_is_followed(tmp_path):
    config = begin(tmp_path, rows(), privacy__unit="document", dedup={"near": None})
    identity = load_identity(config.keys.identity)
    run_stages(config)
    corpus = list(read_shards(SealedFolder.open(config.workspace / "corpus", [identity])))
    staged = list(read_shards(SealedFolder.open(config.workspace / "dedup", [identity])))
    # Nothing of a surviving record remains in a set of texts, and its person neither.
    assert all("person" not in document for document in staged)
    assert len({d["unit"] for d in corpus}) == len(corpus)
    trace = one(config).trace
    assert (trace.removed, trace.kept_by_others) == (1, 1)
    assert (trace.tokens["train"], trace.copies["train"]) == (2, 1)


def test_a_passage_that_another_document_keeps_is_found(tmp_path):
    lines = [
        {"id": f"d{n}", "text": f"{PASSAGE} and then note {n}", "author": f"p{n}"} for n in range(4)
    ]
    lines[3] |= {"author": NAME, "text": f"{PASSAGE} " + " ".join(f"own{n}" for n in range(60))}
    passages = {"words": 20, "documents": 2, "cut": True}
    config = begin(
        tmp_path, lines, dedup={"near": None, "passages": passages, "before_scrub": True}
    )
    run_stages(config)
    trace = one(config).trace
    assert (trace.removed, trace.kept_by_others, trace.copies["train"]) == (0, 1, 1)


def test_held_out_documents_are_told_from_trained_ones(tmp_path):
    lines = [{"id": f"d{n}", "text": f"note {n} " * 9, "author": f"p{n}"} for n in range(40)]
    config = begin(tmp_path, lines, split__validation=0.5, dedup={"near": None})
    run = run_stages(config)
    store = TokenStore.open(run.folder("tokens"))
    split = {store.id(n): name for name in ("train", "validation")
             for unit in store.units(name) for n in store.documents_of(unit)}  # fmt: skip
    sides = {one(config, f"p{n}").trace.tokens["train"]: split[f"d{n}"] for n in range(12)}
    assert sides == {1: "train", 0: "validation"}


@pytest.mark.parametrize("spelling", ["Zoe\u0308 Quillfeather-Orme", f"  {NAME}\t"])
def test_spellings_of_one_name_are_one_person(made, spelling):
    assert one(made, spelling).trace.documents == 4


def test_nobody_is_an_empty_answer(made):
    answer = affected([made], "p77").to_json()
    assert (answer["affected"], answer["unknown"]) == ([], [])
    assert "no document" in answer["not_affected"][0]["why"][0]


def test_the_answer_holds_no_name_no_id_and_no_text(made):
    answer = affected([made], NAME)
    whole = json.dumps(answer.to_json(), ensure_ascii=False) + answer.text()
    identity = load_identity(made.keys.identity)
    documents = list(read_shards(SealedFolder.open(made.workspace / "corpus", [identity])))
    for hidden in (
        NAME,
        "Quillfeather",
        "river",
        '"d1"',
        *(d["person"] or NAME for d in documents),
    ):
        assert hidden not in whole
    assert answer.to_json()["label"] == "private"


def test_steps_that_were_charged_may_have_drawn_it(made, tmp_path):
    shutil.copytree(made.workspace.parent, tmp_path, dirs_exist_ok=True)
    config = load_config(tmp_path / "run.yaml", {"ledger.cap.epsilon": math.inf})
    identity = load_identity(config.keys.identity)
    sealed = SealedFolder.create(config.workspace / "plan", [identity.recipient], role="plan")
    sealed.write_json("run", {"id": "small-1"})
    sealed.finish({})
    config.ledger.path.unlink()
    ledger = Ledger.register(config.ledger.path, epsilon=math.inf, delta=1e-3, corpus="posts")
    assert "no training has begun" in one(config).why
    (config.workspace / "training/checkpoints/step-00000002").mkdir(parents=True)
    ledger.reserve("small-1", INF)  # a plan without a promise takes no time to make
    attempt = ledger.begin_attempt("small-1")
    for step in range(3):
        ledger.charge("small-1", attempt, step)
    found = one(config)
    assert found.training["charged_steps"] == 3
    assert any("each of 3 steps" in sentence for sentence in found.why)
    assert any("step-00000002" in sentence for sentence in found.why)
    config.ledger.path.unlink()
    assert any("an unknown number of steps" in sentence for sentence in one(config).why)


def test_what_cannot_be_known_is_not_called_unaffected(made, tmp_path):
    shutil.copytree(made.workspace.parent, tmp_path / "old")
    config = load_config(tmp_path / "old/run.yaml")
    identity = load_identity(config.keys.identity)
    folder = SealedFolder.open(config.workspace / "corpus", [identity])
    folder.unfinish()
    assert one(config, "p77").answer == "unknown"
    folder.remove("persons")
    folder.finish({"counts": {}})
    found = one(config)
    assert found.answer == "unknown"
    assert found.why == ["unknown: made before persons were recorded"]
    nameless = begin(tmp_path / "new", rows(), corpus={"path": "private.jsonl", "id": "id"},
                     privacy__unit="document")  # fmt: skip
    assert one(nameless).why == ["nothing was read yet: there is no workspace"]
    run_stages(nameless, "corpus")
    assert one(nameless).answer == "unknown"


def test_another_pseudonym_key_is_unknown(made, tmp_path):
    create_keys(tmp_path / "keys")
    key = tmp_path / "keys/pseudonym.key"
    other = made.model_copy(update={"keys": made.keys.model_copy(update={"scrub": key})})
    assert not_looked_into(other, "another pseudonym key")


def not_looked_into(config, why: str) -> bool:
    found = one(config)
    return (found.answer, found.failed, why in found.why[0]) == ("unknown", True, True)


def test_a_workspace_of_other_settings_is_unknown(made):
    assert not_looked_into(made.model_copy(update={"seed": 99}), "another run")


def test_a_broken_workspace_does_not_take_the_answer_of_others_away(made, tmp_path):
    shutil.copytree(made.workspace.parent, tmp_path / "bad")
    bad = load_config(tmp_path / "bad/run.yaml")
    assert not affected([made], NAME).failed
    for damage in ("corpus/manifest.sealed", "run.json"):
        (bad.workspace / damage).write_bytes(b"{")
        answer = affected([made, bad, made], NAME)
        assert [run.answer for run in answer.runs] == ["affected", "unknown", "affected"]
        assert answer.failed
        assert "it cannot be looked into" in answer.text()


def test_gold_files_and_what_lies_elsewhere_are_named_as_not_looked_for(made):
    gold = made.scrub.model_copy(update={"gold": made.workspace / "marked.jsonl"})
    told = affected([made.model_copy(update={"scrub": gold})], NAME)
    assert told.not_found[0] == f"gold file {made.workspace / 'marked.jsonl'}: documents IN CLEAR"
    assert told.not_found[0] in told.text()
    for part in ("MLflow", "dpmlm.Trainer", "dpmlm scrub", "release export"):
        assert any(part in line for line in affected([made], NAME).to_json()["not_found"])


def test_a_damaged_bundle_does_not_hide_the_rest(made, tmp_path):
    shutil.copytree(made.workspace.parent, tmp_path, dirs_exist_ok=True)
    config = load_config(tmp_path / "run.yaml")
    (config.workspace / "bundle").mkdir()
    (config.workspace / "bundle/manifest.dsse.json").write_text("{")
    found = one(config)
    assert found.answer == "affected"
    assert "it is damaged" in found.why[-1]
