"""`dpmlm evaluate` as a person types it: runs, bundles and folders, alone and beside another."""

import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from dpmlm.artifacts import SealedFolder, load_identity, load_model
from dpmlm.pipeline import subjects
from dpmlm.privacy.noise import REPRODUCIBLE_NOISE
from dpmlm.privacy.plan import PrivacyPlan
from dpmlm.tokens import train_tokenizer

TRAINER = ("--identity", "keys/trainer.key")
CONSUMER = ("--identity", "keys/consumer.key", "--trusted-keys", "keys/trusted")
TEXT = ("--text", "public.jsonl", "--counts", "public.jsonl", "--public")
NARROW = 100
"""Embeddings of a model whose tokenizer has more ids."""


@pytest.fixture
def other(copy):
    """A random model with a vocabulary of its own."""
    lines = (copy / "public.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    tokenizer = train_tokenizer(texts, vocab_size=120, unused=0)
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 32}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(copy / "other")
    tokenizer.save_pretrained(copy / "other")
    return "other"


@pytest.fixture
def odd(copy, other):
    """Folders that hold a whole model and can still not be measured."""
    narrow = BertForMaskedLM.from_pretrained(other)
    narrow.resize_token_embeddings(NARROW)
    changed = {"narrow": narrow}
    for name in ("short", "wordless"):
        changed[name] = BertForMaskedLM.from_pretrained(other)
    table = changed["short"].bert.embeddings
    table.position_embeddings = torch.nn.Embedding(2, 16)
    changed["short"].config.max_position_embeddings = 2
    for name, model in changed.items():
        shutil.copytree(copy / other, copy / name)
        model.save_pretrained(copy / name)
    for file in (copy / "wordless").glob("tokenizer*"):
        file.unlink()


@pytest.fixture
def probes(copy):
    """Files for both probes, small and easy."""
    rows = [
        {"text": f"{word} {i}", "label": word} for i in range(12) for word in ("river", "stone")
    ]
    (copy / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"The O\nriver B-LOC\nwas O\nstone{i} I-ORG\n\n" for i in range(12)]
    (copy / "tagged.conll").write_text("".join(lines))
    return ("--probe", "sentiment=labelled.jsonl", "--probe", "ner=tagged.conll")


def figures(call, *words):
    called = call("evaluate", *words, "--json", "--show-private")
    assert called.status == 0, called.err
    return json.loads(called.out)


def test_a_run_is_told_in_words(copy, call):
    called = call("evaluate", "run.yaml", "--show-private")
    assert called.status == 0, called.err
    for words in ("right at the first guess", "change, with 95 % interval", "by how common"):
        assert words in called.out


@pytest.mark.full
def test_groups_and_hidden_tokens_of_a_run(copy, call):
    found = figures(call, "run.yaml", "--groups", "author", "--pseudo", "2")["figures"]
    groups = found["groups"]
    assert all(group["units"] == 1 for group in groups)
    assert sum(group["tokens"] for group in groups) == found["held_out"]["after"]["tokens"]
    assert all(group["intervals"]["top1"]["low"] is None for group in groups)
    assert found["pseudo"]["after"]["perplexity"] < found["pseudo"]["before"]["perplexity"]
    kept = figures(call, "run.yaml")["figures"]["held_out"]
    assert found["held_out"]["after"] == pytest.approx(kept["after"], rel=1e-5)
    told = call("evaluate", "run.yaml", "--groups", "author", "--show-private").out
    assert "fewer than two groups of 10 units" in told
    assert "person" in told
    quiet = call("evaluate", "run.yaml", "--groups", "author").out
    assert "person" not in quiet, "names of groups are private text"


@pytest.mark.full
def test_a_bundle_and_a_folder_on_public_text(copy, call, probes):
    alone = figures(call, "work/bundle", *CONSUMER, *TEXT)
    assert (alone["label"], set(alone["models"])) == ("public", {"this"})
    assert alone["figures"]["held_out"]["documents"] == 60
    sealed = figures(call, "work/training", *TRAINER, *TEXT)["figures"]["held_out"]
    same = pytest.approx(sealed["this"], rel=1e-5)
    assert alone["figures"]["held_out"]["this"] == same, "the bundle holds the run's model"
    both = figures(
        call, "work/bundle", *CONSUMER, *TEXT, *probes, "--against", "work/audit/untrained",
        "--identity", "keys/trainer.key",
    )  # fmt: skip
    change = both["figures"]["held_out"]["intervals"]["change"]["loss"]
    assert change["high"] < 0, "the trained model is the better one on text like its own"
    assert [probe["probe"] for probe in both["probes"]] == ["sentiment", "ner"]
    assert both["probes"][0]["figures"]["this"]["value"] > 0.9
    assert both["probes"][0]["change"] is not None


def test_what_is_private_stays_so(copy, call):
    """A folder comes without a claim: its figures are shown on request alone."""
    rows = (copy / "private.jsonl").read_text().splitlines()[:12]
    (copy / "few.jsonl").write_text("\n".join(rows))
    words = ("work/training", *TRAINER, "--text", "few.jsonl", "--groups", "author")
    called = call("evaluate", *words, "--out", "found.json")
    assert called.status == 0, called.err
    for hint in ("%", "0.", "person"):
        assert hint not in called.out + called.err.replace("s  ", "")
    kept = json.loads((copy / "found.json").read_text())
    assert (kept["schema"], kept["figures"]) == ("dpmlm.evaluation/1", None)
    assert stat.S_IMODE((copy / "found.json").stat().st_mode) == 0o600
    shown = call("evaluate", *words, "--show-private")
    assert "right at the first guess" in shown.out
    assert "person 3" in shown.out


@pytest.mark.full
def test_probes_are_shown_where_a_claim_covers_them(copy, call, probes):
    words = ("work/training", *TRAINER, *probes)
    called = call("evaluate", *words, "--out", "found.json")
    assert called.status == 0, called.err
    assert "0." not in called.out
    kept = json.loads((copy / "found.json").read_text())
    assert (kept["schema"], kept["probes"]) == ("dpmlm.evaluation/1", None)
    shown = call("evaluate", *words, "--out", "found.json", "--show-private")
    assert "probe ner" in shown.out
    kept = json.loads((copy / "found.json").read_text())
    assert (kept["label"], kept["probes_label"]) == ("private", "private")
    # A run's own model has a claim, and its probes look at public text alone.
    probe = call("evaluate", "run.yaml", *probes)
    assert "probe sentiment" in probe.out
    assert "right at the first guess" not in probe.out


def test_a_label_says_who_vouches_for_the_figures_of_a_probe(copy, call, other, probes):
    """A folder has no claim: `dp` on its figures would promise what nobody keeps."""
    probe = probes[:2]

    def told(*words):
        called = call("evaluate", *words, *probe, "--json")
        assert called.status == 0, called.err
        found = json.loads(called.out)
        return found["probes_label"], found["probes"] is not None

    assert told(other) == ("private", False)
    assert told(other, "--public") == ("public", True)
    assert told("work/bundle", *CONSUMER) == ("dp", True)
    assert told("work/bundle", *CONSUMER, "--against", other) == ("private", False)
    assert told("work/bundle", *CONSUMER, "--against", other, "--public") == ("public", True)


def test_a_bundle_that_promises_nothing_covers_no_probe(copy, call, probes, monkeypatch):
    """Whoever keeps it can open one that did not pass, and its noise may be one to draw again."""
    path = copy / "work/bundle/plan.json"
    plan = PrivacyPlan.from_json(json.loads(path.read_text()))
    again = replace(plan, noise_seed=1, noise_source=REPRODUCIBLE_NOISE)
    path.write_text(json.dumps(again.to_json()))
    sealed = SealedFolder.open(copy / "work/training", [load_identity(copy / "keys/trainer.key")])
    monkeypatch.setattr(subjects, "load_released", lambda *given, **keys: load_model(sealed))
    called = call("evaluate", "work/bundle", *CONSUMER, *probes[:2], "--json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    assert (found["probes_label"], found["probes"]) == ("private", None)


def test_a_folder_is_opened_without_a_bar_of_its_loading(call, other):
    called = call("evaluate", other, "--text", "public.jsonl", "--public")
    assert called.status == 0, called.err
    assert "Loading weights" not in called.err


def test_a_file_that_cannot_be_written_is_refused_before_a_model_is_opened(copy, refused):
    (copy / "found.json").write_text("as before")
    for out, rule in (
        ("work", "no ordinary file"),
        (".", "no ordinary file"),
        ("/dev/null", "no ordinary file"),
        ("absent/found.json", "could not be written"),
        ("found.json/found.json", "could not be written"),
        ("a" * 300, "could not be written"),
    ):
        assert rule in refused("evaluate", "nowhere", "--text", "public.jsonl", "--out", out)
    assert "config.json" in refused("evaluate", "nowhere", *TEXT, "--out", "found.json")
    assert (copy / "found.json").read_text() == "as before"
    assert not list(copy.glob(".*.tmp")), "nothing is left of a file that was not written"


@pytest.mark.full
def test_another_vocabulary_is_compared_by_bytes_alone(copy, call, other):
    found = figures(call, "run.yaml", "--against", other)["figures"]["held_out"]
    assert found["same_vocabulary"] is False
    assert set(found["intervals"]["change"]) == {"bits_per_byte"}
    said = call("evaluate", "run.yaml", "--against", other, "--show-private").out
    assert "vocabularies differ" in said
    assert "runs select --epsilon" in said, "choosing by such figures is charged"


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("none.yaml",), "no such file"),
        (("nowhere", "--text", "public.jsonl"), "a model folder has a config.json"),
        (("work/training", *TRAINER), "needs text to be measured on"),
        (
            ("work/training", *TRAINER, "--pseudo", "3", "--probe", "ner=tagged.conll"),
            "held-out text",
        ),
        (("run.yaml", "--text", "public.jsonl"), "the text that it kept out"),
        (("run.yaml", "--public"), "the text that it kept out"),
        (("run.yaml", "--groups", "ward"), "no field 'ward'"),
        (("run.yaml", "--probe", "sentiment"), "a probe is NAME=FILE"),
        (("run.yaml", "--probe", "poetry=a"), "one of sentiment, ner"),
        (("run.yaml", "--probe", "ner=none.conll"), "cannot be read"),
        (("run.yaml", "--probe", "sentiment=public.jsonl"), "no field 'label'"),
        (("work/bundle", *TEXT), "its model is sealed"),
        (("work/training", *TRAINER, *TEXT, "--set", "seed=4"), "changes fields of one"),
        (("work/training", *TRAINER, *TEXT, "--against", "run.yaml"), "on its own held-out text"),
        (("work/training", *TEXT), "identity"),
        (("narrow", *TEXT), "narrow with 100 embeddings: its tokenizer has 120 ids"),
        (("other", "--against", "narrow", *TEXT), "narrow with 100 embeddings"),
        (("narrow", "--probe", "ner=tagged.conll"), "narrow with 100 embeddings"),
        (("run.yaml", "--against", "narrow"), "narrow with 100 embeddings"),
        (("short", *TEXT), "short, whose rows have 2 tokens"),
        (("wordless", *TEXT), "save the tokenizer that the model was trained with"),
    ],
)
def test_what_cannot_be_measured_is_refused(copy, refused, probes, odd, words, rule):
    assert rule in refused("evaluate", *words)


def test_a_released_run_that_is_looked_at_keeps_what_it_told(copy, call):
    """A verdict that vanished from where alerts look would be taken for one that was mended."""
    telling = ("--set", "telemetry.prometheus.textfile=run.prom")
    assert call("run", "run.yaml", *telling).status == 0
    page, status = Path("run.prom").read_text(), Path("work.status.json").read_text()
    assert 'verdict="PASS"} 1' in page
    for name in ("ended", "canaries_extracted", "steps_charged", "epsilon_spent", "epsilon_cap"):
        assert f"dpmlm_{name}{{" in page
    assert 'dpmlm_step{run="small"} 80' in page
    assert json.loads(status)["reason"] == "PASS"
    assert call("evaluate", "run.yaml", *telling).status == 0
    assert call("evaluate", "run.yaml", *telling, "--pseudo", "1").status == 0
    assert Path("run.prom").read_text() == page
    assert Path("work.status.json").read_text() == status


FORGETTING = ("--text", "public.jsonl", "--public", "--forgetting", "2")


def test_forgetting_is_a_verdict(copy, call):
    opened = (*TRAINER, "--trusted-keys", "keys/trusted")
    same = call("evaluate", "work/bundle", "--against", "work/bundle", *FORGETTING, *opened)
    assert same.status == 0, same.err
    assert "KEPT: it kept what it could" in same.out
    lost = call(
        "evaluate", "work/audit/untrained", "--against", "work/bundle", *FORGETTING, *opened,
        "--json",
    )  # fmt: skip
    assert lost.status == 1, lost.err
    found = json.loads(lost.out)["forgetting"]
    assert found["verdict"] == "forgot"
    assert found["lost"]["low"] > found["margin"] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run.yaml", "--forgetting", "2"), "model.forgetting"),
        (("work/bundle", *FORGETTING), "--against"),
        (("work/bundle", "--against", "work/bundle", "--forgetting", "2"), "--text and --public"),
        (("work/bundle", "--against", "other", *FORGETTING), "vocabularies differ"),
    ],
)
def test_forgetting_of_private_text_or_of_nothing_is_refused(copy, other, call, words, says):
    called = call("evaluate", *words, *CONSUMER)
    assert called.status == 2
    assert says in called.err
