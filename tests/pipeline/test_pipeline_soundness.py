"""Shards that are spoiled stop a run before anything is charged, and are named."""

import json
import random
from types import SimpleNamespace

import pytest
from small_run import draw_keys, sentences, write_run_file

from dpmlm.artifacts import SealedFolder, new_identity
from dpmlm.config import load_config
from dpmlm.corpus import write_shards
from dpmlm.errors import UserError
from dpmlm.pipeline.run import execute_until
from dpmlm.pipeline.soundness import refuse_spoiled, shards_of
from dpmlm.tokens import TokenStore, train_tokenizer

IDENTITY = new_identity()
MISREAD = "Der Bär fraß süße Äpfel für 3 €. ".encode().decode("latin-1")


def a_run(folder, spoil, *, broken=0.01, unknown=0.2, gone=()):
    """Twelve shards of five documents; `spoil` changes the texts of the eighth. Documents `gone`
    are not trained on."""
    rng = random.Random(1)
    rows = [
        {"id": f"d{n}", "text": sentences(rng, 4), "unit": f"d{n}", "split": "train",
         "source": "notes.jsonl", "row": n + 1}
        for n in range(60)
    ]  # fmt: skip
    tokenizer = train_tokenizer((row["text"] for row in rows), vocab_size=200)
    for row in rows[35:40]:
        row["text"] = spoil(row["text"])
    folders = {}
    for name in ("corpus", "tokens", "plan"):
        recipients = [IDENTITY.recipient]
        folders[name] = SealedFolder.create(folder / name, recipients, role=name)
    write_shards(folders["corpus"], rows, per_shard=5)
    kept = [row for row in rows if row["id"] not in gone]
    folders["tokens"].finish(TokenStore.build(folders["tokens"], kept, tokenizer, per_shard=7))
    config = SimpleNamespace(
        corpus=SimpleNamespace(broken_characters=broken),
        tokens=SimpleNamespace(unknown_tokens=unknown),
    )
    return SimpleNamespace(folder=folders.__getitem__, config=config), folders["plan"]


SPOILT = {
    "another encoding": (lambda text: MISREAD + text, "corpus.broken_characters"),
    "bytes": (lambda text: text + "\x00\x01\x02" * 9, "corpus.broken_characters"),
    "a hole": (lambda text: text.replace("a", "\ufffd"), "corpus.broken_characters"),
    "another language": (
        lambda text: "ещё одно предложение " * 4,
        "tokens.unknown_tokens",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_the_spoilt_shard_is_named_with_its_rows_and_no_figure(tmp_path, name):
    spoil, field = SPOILT[name]
    run, plan = a_run(tmp_path, spoil)
    with pytest.raises(UserError) as caught:
        refuse_spoiled(run, plan)
    said = str(caught.value)
    assert caught.value.given == (
        "shard documents-00007 of the corpus (notes.jsonl row 36 to notes.jsonl row 40)"
    )
    assert field in said
    assert "0.01" in said or "0.2" in said  # the limit, a public number of the run file
    kept = plan.read_json("soundness")
    assert kept["label"] == "private"
    worst = max(kept["shards"], key=lambda one: one["broken"] + one["unknown"])
    assert worst["shard"] == "documents-00007"
    for figure in (worst["broken"], worst["unknown"]):
        assert figure == 0 or f" {figure} " not in said


def test_a_sound_corpus_passes_and_its_figures_are_kept(tmp_path):
    run, plan = a_run(tmp_path, lambda text: text)
    refuse_spoiled(run, plan)
    assert len(plan.read_json("soundness")["shards"]) == 12
    assert {one["broken"] for one in plan.read_json("soundness")["shards"]} == {0}


@pytest.mark.parametrize("name", SPOILT)
def test_who_says_so_trains_on_it(tmp_path, name):
    run, plan = a_run(tmp_path, SPOILT[name][0], broken=1, unknown=1)
    refuse_spoiled(run, plan)


def test_the_figures_are_those_of_a_count_by_hand(tmp_path):
    run, _ = a_run(tmp_path, lambda text: "ещё раз \ufffd", gone=("d36", "d39", "d2"))
    found = list(shards_of(run))
    store = TokenStore.open(run.folder("tokens"))
    for number, one in enumerate(found):
        ids = [i for i in range(len(store)) if int(store.id(i)[1:]) // 5 == number]
        assert one.documents == 5
        assert one.tokens == sum(len(store.tokens(i)) for i in ids)
        entry = store.tokenizer.unk_token_id
        assert one.unknown == sum(int(t == entry) for i in ids for t in store.tokens(i))
    assert found[7].broken == 5
    assert found[7].unknown_share == 1.0


AS_IT_IS = """
name: as-it-is
description: Leaves the text as it is, so that no model has to be loaded.
other: {operator: keep, why: the test is about decoding}
rules: []
"""


def french(seed):
    """Six sentences with characters beyond ASCII."""
    return sentences(random.Random(seed), 6).replace("near the", "près du").replace("was", "fût")


def a_corpus_folder(folder, *, misread):
    """Three files, each a shard of eight documents; the second was read as Latin-1 where it is
    `misread`. Returns the run's config."""
    (folder / "notes").mkdir(exist_ok=True)
    for number, name in enumerate(("april", "may", "june")):
        texts = [french(8 * number + n) for n in range(8)]
        if misread and name == "may":
            texts = [text.encode().decode("latin-1") for text in texts]
        rows = [
            {"id": f"{name}-{n}", "text": t, "author": f"{name} {n}"} for n, t in enumerate(texts)
        ]
        said = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "notes" / f"{number}-{name}.jsonl").write_text(said)
    public = [{"text": french(100 + n)} for n in range(40)]
    (folder / "public.jsonl").write_text("".join(json.dumps(row) + "\n" for row in public))
    (folder / "as-it-is.yaml").write_text(AS_IT_IS)
    corpus = {"path": "notes", "id": "id", "person": "author", "per_shard": 8}
    write_run_file(
        folder, corpus=corpus, scrub={"policy": "as-it-is.yaml", "processes": 1},
        workspace="misread" if misread else "mended", audit__canaries=0, split__validation=0.0,
        privacy__accountant="rdp",
    )  # fmt: skip
    return load_config(folder / "run.yaml")


def test_a_run_on_a_misread_shard_ends_before_its_budget_is_reserved(tmp_path):
    """The command would go on into training, which is where the ledger is written to. The same run
    on the file read rightly has its plan, in a new workspace."""
    config = a_corpus_folder(tmp_path, misread=True)
    draw_keys(tmp_path)
    before = (tmp_path / "ledger.jsonl").read_bytes()
    with pytest.raises(UserError) as caught:
        execute_until(config, "training")
    assert caught.value.given == (
        "shard documents-00001 of the corpus (1-may.jsonl row 1 to 1-may.jsonl row 8)"
    )
    assert "read in another encoding" in caught.value.rule
    assert "reserve" not in before.decode()
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    assert not (config.workspace / "training").exists()
    execute_until(a_corpus_folder(tmp_path, misread=False), "plan")
    assert (tmp_path / "mended/plan/manifest.sealed").exists()
