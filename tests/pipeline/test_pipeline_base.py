"""The models that a run starts from and is compared with are bound by what they hold."""

import json
import shutil

import pytest
import torch
from small_run import WORDS, draw_keys, write_corpus, write_run_file

from dpmlm.artifacts import load_model, model_digest
from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.pipeline import base
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import planned
from dpmlm.pipeline.preflight import preflight
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_run, execute_until
from dpmlm.release.exports import RECORD
from dpmlm.release.inventory import MANIFEST
from dpmlm.tokens import load_sealed_tokenizer, load_tokenizer, train_tokenizer
from dpmlm.training import new_model


def put_model(folder, tokenizer, seed):
    new_model("tiny", tokenizer, 48, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def planned_once(tmp_path_factory):
    """A run that continues from one folder and is compared with another, its plan made."""
    small = tmp_path_factory.mktemp("base")
    write_corpus(small)
    public = [json.loads(line)["text"] for line in (small / "public.jsonl").open()]
    tokenizer = train_tokenizer([*public, " ".join(WORDS)], vocab_size=600, unused=400)
    put_model(small / "base", tokenizer, 1)
    put_model(small / "reference", tokenizer, 2)
    write_run_file(
        small,
        privacy__accountant="rdp",
        tokens__train=None,
        tokens__vocabulary="base",
        model={"from": "base"},
        audit={"canaries": 40, "control": None, "reference": "reference", "verbatim_spans": 0},
    )
    draw_keys(small)
    execute_until(load_config(small / "run.yaml"), "plan")
    return small, tokenizer


@pytest.fixture
def based(planned_once, tmp_path):
    """A copy of that to change at will."""
    folder, tokenizer = planned_once
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return tmp_path, load_config(tmp_path / "run.yaml"), tokenizer


@pytest.mark.parametrize(
    ("folder", "named"), [("base", "model.from"), ("reference", "audit.reference")]
)
def test_other_weights_in_the_same_folder_are_refused(based, folder, named):
    home, config, tokenizer = based
    put_model(home / folder, tokenizer, 9)
    ledger = (home / "ledger.jsonl").read_bytes()
    with pytest.raises(UserError, match=named) as caught:
        execute_run(config)
    assert "plan" in str(caught.value)
    assert (home / "ledger.jsonl").read_bytes() == ledger
    put_model(home / folder, tokenizer, {"base": 1, "reference": 2}[folder])
    execute_until(config, "plan")


def test_the_plan_binds_both_models(based):
    _, config, _ = based
    run = Run.load(config, Progress(quiet=True))
    tokenizer = load_sealed_tokenizer(run.folder("tokens"))
    bindings = planned(run)[0].bindings
    assert bindings["initial_model"] == model_digest(base.initial_model(run, tokenizer))
    reference = new_model("tiny", tokenizer, 48, seed=2)
    assert bindings["audit_reference"] == model_digest(reference)


def test_weights_that_change_under_a_run_are_refused_where_they_are_read(based):
    home, config, tokenizer = based
    run = Run.load(config, Progress(quiet=True))
    base.refuse_other_models(run)
    put_model(home / "base", tokenizer, 9)
    with pytest.raises(UserError, match=r"model\.from"):
        base.initial_model(run, tokenizer)


def test_a_tokenizer_of_the_same_size_and_other_words_is_refused(based):
    home, config, tokenizer = based
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special, words = pieces[:5], pieces[5:]
    (home / "other.txt").write_text("\n".join([*special, *reversed(words)]))
    load_tokenizer(home / "other.txt").save_pretrained(home / "base")
    run = Run.load(config, Progress(quiet=True))
    with pytest.raises(UserError, match="would stand for other words"):
        base.initial_model(run, tokenizer)


@pytest.mark.parametrize(
    ("part", "other", "named"),
    [
        ("normalizer", {"type": "BertNormalizer", "clean_text": True, "strip_accents": None,
                        "handle_chinese_chars": True, "lowercase": False}, "changes letters"),
        ("pre_tokenizer", {"type": "WhitespaceSplit"}, "cuts text into words"),
    ],
)  # fmt: skip
def test_a_tokenizer_of_the_same_words_that_treats_text_otherwise_is_refused(
    based, part, other, named
):
    home, config, tokenizer = based
    run = Run.load(config, Progress(quiet=True))
    base.initial_model(run, tokenizer)
    file = home / "base/tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {part: other}))
    with pytest.raises(UserError, match=named) as caught:
        base.initial_model(run, tokenizer)
    assert "model.from" in caught.value.given


def test_a_model_without_its_tokenizer_is_refused(based):
    home, config, tokenizer = based
    for path in (home / "base").glob("tokenizer*"):
        path.unlink()
    run = Run.load(config, Progress(quiet=True))
    with pytest.raises(UserError, match="which words its embeddings stand for"):
        base.initial_model(run, tokenizer)


@pytest.mark.parametrize("record", [RECORD, MANIFEST])
@pytest.mark.parametrize("field", ["model.from", "audit.reference", "tokens.vocabulary"])
def test_a_release_never_counts_as_public(based, record, field):
    home, config, tokenizer = based
    folder = home / ("reference" if field == "audit.reference" else "base")
    (folder / record).write_text("{}")
    run = Run.load(config, Progress(quiet=True))
    if field == "tokens.vocabulary":
        for name in (folder, folder / "tokenizer.json"):
            with pytest.raises(UserError, match=r"tokens\.vocabulary .*it is a release"):
                base.refuse_release(field, str(name))
        with pytest.raises(UserError, match=r"tokens\.vocabulary .*it is a release"):
            preflight(run)
        return
    with pytest.raises(UserError, match="it is a release"):
        (base.initial_model if field == "model.from" else base.load_reference)(run, tokenizer)


@pytest.mark.parametrize("what", [pytest.param("no_embeddings", marks=pytest.mark.full), "lora"])
def test_a_run_trains_a_part_of_a_base_model_and_saves_a_whole_one(based, what):
    home, whole, tokenizer = based
    config = load_config(
        home / "run.yaml",
        {"model.train": what, "workspace": home / f"work-{what}", "training.steps": 2},
    )
    execute_until(config, "training")
    run, other = Run.load(config, Progress(quiet=True)), Run.load(whole, Progress(quiet=True))
    start, (end, _) = base.initial_model(run, tokenizer), load_model(run.folder("training"))
    before, after = dict(start.named_parameters()), dict(end.named_parameters())
    assert before.keys() == after.keys()
    embeddings = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(before[embeddings], after[embeddings])
    moved = "bert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(before[moved], after[moved])
    one, two = (planned(r)[0].bindings["model"] for r in (run, other))
    assert one != two
