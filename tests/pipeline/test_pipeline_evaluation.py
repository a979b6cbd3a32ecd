"""The stage `evaluation`: what is asked, of which documents, and what is kept of it."""

import json
from dataclasses import replace

import pytest

from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.evaluation import EvaluationSpec, beside, figures_of, lines_of, measure
from dpmlm.masking import Example, TokenTable
from dpmlm.pipeline import evaluation
from dpmlm.pipeline.base import initial_model
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.evaluation import HeldOut
from dpmlm.pipeline.models import held_out_digest, planned
from dpmlm.pipeline.outcome import _held_out_figures
from dpmlm.pipeline.progress import Progress
from dpmlm.release.report import fields
from dpmlm.tokens import TokenStore, load_sealed_tokenizer


@pytest.fixture
def run(finished):
    folder, _ = finished
    return Run.load(load_config(folder / "run.yaml"), Progress(quiet=True))


def kept(run):
    return run.folder("evaluation").read_json("evaluation")


def test_figures_of_both_moments_are_kept_with_intervals_and_buckets(run):
    found = kept(run)
    assert found["label"] == "private"
    assert found["asked"] == {
        "window": 48, "strategy": "token", "ratio": 0.15, "rows_per_document": 8,
    }  # fmt: skip
    assert found["after"]["loss"] < found["before"]["loss"]
    assert found["after"]["bits_per_byte"] < found["before"]["bits_per_byte"]
    change = found["intervals"]["change"]["loss"]
    assert change["value"] == pytest.approx(found["after"]["loss"] - found["before"]["loss"])
    tokens = sum(bucket["tokens"] for bucket in found["buckets"])
    assert tokens == found["before"]["tokens"] == found["after"]["tokens"]


def test_the_figures_are_those_of_the_text_before_the_tokens(run):
    """Made again by hand: documents from the stage before, the model before training."""
    held_out = HeldOut.of_run(run)
    texts = {d["id"]: d for d in evaluation.read_shards(run.source("tokens"))}
    mine = {key for key, document in texts.items() if document["split"] == "validation"}
    assert {document.id for document in held_out.documents} == mine
    assert list(held_out.units) == [texts[d.id]["unit"] for d in held_out.documents]
    store = TokenStore.open(run.folder("tokens"))
    tokenizer = load_sealed_tokenizer(run.folder("tokens"))
    examples = [Example(store.id(i), store.tokens(i)) for i in range(len(store))]
    examples = [example for example in examples if example.id in mine]
    again = measure(
        initial_model(run, tokenizer), examples, EvaluationSpec(48),
        table=TokenTable.of(tokenizer),
        bytes_of=lambda example: len(texts[example.id]["text"].encode()),
    )  # fmt: skip
    for name, value in figures_of(again).items():
        assert kept(run)["before"][name] == pytest.approx(value, rel=1e-4), name


def test_the_trained_model_is_asked_as_much_of_its_own_text(run):
    found = kept(run)["trained_on"]
    held_out = HeldOut.of_run(run)
    known = HeldOut.trained_on(run, len(held_out.documents))
    assert found["documents"] == len(known.documents) == len(held_out.documents)
    rows = {d["id"]: d for d in evaluation.read_shards(run.source("tokens"))}
    assert {rows[document.id]["split"] for document in known.documents} == {"train"}
    assert not set(known.units) & set(held_out.units)
    everybody = HeldOut.trained_on(run, len(rows))
    assert len(everybody.documents) == len(rows) - len(held_out.documents)
    assert found["visits"] == pytest.approx(80 * 16 / 100)
    for name in ("loss", "top1"):
        gap = found["gap"][name]["value"]
        assert gap == pytest.approx(kept(run)["after"][name] - found["figures"][name])


def test_held_out_documents_are_locked_by_a_keyed_digest(run, monkeypatch):
    plan, run_id = planned(run)
    assert plan.bindings["held_out"] == held_out_digest(run, run_id)
    assert held_out_digest(run, "another") != plan.bindings["held_out"], "two runs are unlike"
    true_units = TokenStore.units

    def fewer(store, split):
        return true_units(store, split)[1:] if split == "validation" else true_units(store, split)

    monkeypatch.setattr(TokenStore, "units", fewer)
    with pytest.raises(UserError, match="not those that the run's plan was made with"):
        HeldOut.of_run(run)


def test_models_are_measured_on_the_best_device(run, monkeypatch):
    """On a machine with a GPU, there; the meta device stands for it here."""
    seen = []
    monkeypatch.setattr(evaluation, "best_device", lambda: "meta")
    monkeypatch.setattr(evaluation, "measure", lambda model, *_, **__: seen.append(model))
    held_out, tokenizer = HeldOut([], [], None), load_sealed_tokenizer(run.folder("tokens"))
    model, asked = initial_model(run, tokenizer), held_out.asked(tokenizer)
    held_out.measured(model, asked, EvaluationSpec(48), lambda *_: None)
    assert {param.device.type for param in seen[0].parameters()} == {"meta"}


def test_losses_beyond_any_number_are_spelled(run, monkeypatch):
    """Training that ran away leaves figures that JSON can hold."""
    written = {}
    true = evaluation.HeldOut.measured

    def lost(*asked):
        found = true(*asked)
        return replace(found, loss=found.loss * float("nan"), confidence=found.confidence * 1e400)

    class Folder:
        def write_json(self, name, value):
            written[name] = json.dumps(value, allow_nan=False)

    monkeypatch.setattr(evaluation.HeldOut, "measured", lost)
    evaluation._evaluation(run, Folder(), lambda *_: None)
    figures = json.loads(written["evaluation"])
    assert figures["after"]["loss"] == figures["after"]["perplexity"] == "nan"
    assert figures["intervals"]["change"]["loss"]["low"] is None
    assert "calibration_error" not in figures["after"]


def test_a_run_without_held_out_documents_or_public_text_says_so(run):
    held_out, tokenizer = HeldOut([], [], None), load_sealed_tokenizer(run.folder("tokens"))
    model, asked = initial_model(run, tokenizer), held_out.asked(tokenizer)
    assert asked.buckets is None
    told = beside({"after": held_out.measured(model, asked, EvaluationSpec(48), lambda *_: None)})
    assert (told["documents"], told["after"], told["buckets"]) == (0, None, [])
    assert lines_of(told, ["after"])[0].startswith("no hidden token was asked for")


def test_the_report_shows_the_first_guess_by_how_common_a_word_is(run):
    moments = {when: _held_out_figures(kept(run), when) for when in ("before", "after")}
    rows = {row["name"]: row for row in fields.compared(moments)}
    assert all(row["says"] for row in rows.values())
    common = kept(run)["buckets"][-1]
    shown = rows[f"{fields.COMMON} {common['bucket']}"]["of"][1]
    told = float(shown.removesuffix("\u00a0%"))
    assert told == pytest.approx(100 * common["after"]["top1"], rel=0.05, abs=0.01)
