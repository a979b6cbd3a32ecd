"""`dpmlm doctor`: exact 0, inexact 1, nothing to load 2."""

import json

import pytest
from small_models import VOCABULARY, small_model
from small_run import write_run_file

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture
def saved(tmp_path):
    """Save a random model of a type and return its folder."""

    def save(kind, **settings):
        small_model(kind, **settings).save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return save


def vocabulary(folder, entries):
    path = folder / "vocab.txt"
    words = [f"word{n}" for n in range(entries - len(SPECIALS))]
    path.write_text("\n".join([*SPECIALS, *words]) + "\n")
    return path


def test_an_exact_model(call, saved):
    called = call("doctor", saved("bert"), "--window", 20)
    assert called.status == 0, called.err
    assert "BertForMaskedLM): exact" in called.out
    assert "one pass: about the price" in called.out
    assert "20 tokens" in called.out
    assert "no parameter" in called.out
    assert "none found" in called.out


def test_json_has_every_documented_field(call, saved):
    folder = saved("longformer")
    called = call("doctor", folder, "--json", "--window", 20)
    assert called.status == 0, called.err
    found = json.loads(called.out)
    assert found["schema"] == "dpmlm.doctor/1"
    assert found["exact"]
    assert found["path"] == "row by row"
    assert found["max_relative_error"] < 1e-5
    assert found["trainable"] > 1000
    assert len(found["unused"]) == 12
    assert (found["reason"], found["next_step"]) == ("", "")
    shown = call("doctor", folder, "--window", 20).out
    assert "two to four times the price of one pass" in shown
    assert "12 parameters take noise and learn nothing" in shown
    assert "and 7 more" in shown


def test_padding_that_matters_is_said(call, saved):
    assert "padded to the window" in call("doctor", saved("fnet"), "--window", 20).out


def test_a_refused_model(call, saved):
    called = call("doctor", saved("reformer"))
    assert called.status == 1
    assert "NOT EXACT" in called.out
    assert "reversible layers" in called.out
    assert "next step" in called.out
    found = json.loads(call("doctor", saved("reformer"), "--json").out)
    assert found["exact"] is False
    assert found["path"] is None
    assert "docs/models.md" in found["next_step"]


def test_a_tokenizer_of_another_model_is_inexact(call, saved, tmp_path):
    folder = saved("bert")
    fits = vocabulary(tmp_path, VOCABULARY)
    assert call("doctor", folder, "--tokenizer", fits, "--window", 20).status == 0
    called = call("doctor", folder, "--tokenizer", vocabulary(tmp_path, VOCABULARY + 1))
    assert called.status == 1
    assert f"the tokenizer has {VOCABULARY + 1} ids" in called.out


def test_the_models_own_tokenizer_is_found(call, saved):
    folder = saved("bert")
    vocabulary(folder, VOCABULARY - 20)
    called = call("doctor", folder, "--json", "--window", 20)
    assert json.loads(called.out)["vocabulary"] == VOCABULARY - 20


def test_bfloat16_is_measured_under_autocast(call, saved):
    called = call("doctor", saved("bert"), "--precision", "bfloat16", "--window", 20, "--json")
    found = json.loads(called.out)
    assert called.status == 0, found["reason"]
    assert found["precision"] == "bfloat16"
    assert found["max_relative_error"] > 1e-5


def test_a_run_file_names_model_window_and_vocabulary(call, small):
    called = call("doctor", small / "run.yaml", "--json")
    found = json.loads(called.out)
    assert called.status == 0, found
    assert found["class"] == "BertForMaskedLM"
    assert found["window"] == 48
    assert found["vocabulary"] == 600  # of a vocabulary that is not trained yet
    again = json.loads(call("doctor", small / "run.yaml", "--json", "--window", 24).out)
    assert again["window"] == 24


def test_a_run_file_that_continues_a_model(call, saved, small):
    folder, words = saved("albert"), vocabulary(small, VOCABULARY)
    tokens = {"vocabulary": words.name, "window": 32, "stride": 32}
    path = write_run_file(small, model={"from": str(folder)}, tokens=tokens)
    found = json.loads(call("doctor", path, "--json").out)
    assert (found["class"], found["exact"]) == ("AlbertForMaskedLM", True)
    assert (found["window"], found["vocabulary"]) == (32, VOCABULARY)


def test_what_cannot_be_loaded_is_refused(refused, saved, small, tmp_path):
    garbage = tmp_path / "garbage"
    garbage.mkdir()
    (garbage / "config.json").write_text("{not json")
    assert "no masked language model in that folder" in refused("doctor", garbage)
    (garbage / "config.json").write_text('{"model_type": "bert"}')
    assert "no masked language model in that folder" in refused("doctor", garbage)
    assert "not to be had from the hub" in refused("doctor", tmp_path / "missing")
    assert "there is no such file" in refused("doctor", tmp_path / "missing.yaml")
    assert "there is no such file" in refused(
        "doctor", saved("bert"), "--tokenizer", tmp_path / "vocab.txt"
    )
    assert "positions" in refused("doctor", saved("bert"), "--window", 65)
    assert "--window" in refused("doctor", saved("bert"), "--window", 1)
    (small / "run.yaml").write_text("name: [")
    assert "run.yaml" in refused("doctor", small / "run.yaml")
