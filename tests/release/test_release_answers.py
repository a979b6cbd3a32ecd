"""A bundle is asked before it takes its name, and again where it is opened."""

import copy
import math
import warnings

import pytest
import torch

from dpmlm.artifacts import SealedFolder, save_model
from dpmlm.errors import IntegrityError
from dpmlm.release import answers, bundle, load_released
from dpmlm.release.answers import NOTED, PROBES, REFUSED, Answers, ask, difference


@pytest.fixture
def opened(keys):
    def load(folder):
        return load_released(folder, identity=keys.consumer, trusted_keys=keys.trusted)

    return load


def test_what_is_kept_is_what_the_model_says(write, facts, tmp_path, keys, released_model):
    folder = write(tmp_path / "bundle", facts)
    sealed = SealedFolder.open(folder / "model", [keys.consumer])
    kept = sealed.read_json("answers")
    model, tokenizer = released_model
    for probe, ids, figures in zip(PROBES, kept["ids"], kept["figures"], strict=False):
        text = probe.format(mask=tokenizer.mask_token)
        assert ids == tokenizer(text)["input_ids"][: len(ids)]
        logits = model(torch.tensor([ids])).logits[0].tolist()
        for row, told in zip(logits, figures, strict=True):
            assert told[0] == pytest.approx(row[0])
            assert told[-2] == pytest.approx(row[-1])
            assert told[-1] == pytest.approx(math.log(sum(math.exp(one) for one in row)))
    assert len(kept["ids"]) == len(PROBES) + 1
    assert len(set(kept["ids"][-1])) > 4


def swapped(model):
    other = copy.deepcopy(model)
    torch.nn.init.normal_(other.bert.embeddings.word_embeddings.weight)
    return other


def with_another_activation(model):
    other = copy.deepcopy(model)
    other.config.hidden_act = "relu"
    return other


@pytest.mark.parametrize(
    ("damage", "blind", "says"),
    [
        (swapped, False, "the one that was judged"),
        (swapped, True, "answers public probes otherwise"),
        (with_another_activation, False, "answers public probes otherwise"),  # of the same digest
    ],
)
def test_a_bundle_that_holds_another_model_takes_no_name(
    write, facts, tmp_path, monkeypatch, damage, blind, says
):
    import dpmlm.artifacts

    def save_another(folder, model, tokenizer):
        save_model(folder, damage(model), tokenizer)

    monkeypatch.setattr(dpmlm.artifacts, "save_model", save_another)
    if blind:
        monkeypatch.setattr(bundle, "_refuse_others", lambda *_: None)
    with pytest.raises(IntegrityError, match=says):
        write(tmp_path / "bundle", facts, log=tmp_path / "releases.log")
    assert list(tmp_path.iterdir()) == []  # neither bundle nor line of the log


@pytest.mark.parametrize(
    ("off", "outcome"), [(NOTED / 10, "quiet"), (NOTED * 10, "warned"), (REFUSED * 2, "refused")]
)
def test_another_library_is_held_to_what_was_kept(
    write, facts, tmp_path, opened, monkeypatch, off, outcome
):
    folder = write(tmp_path / "bundle", facts)

    def elsewhere(model, tokenizer) -> Answers:
        found = ask(model, tokenizer)
        moved = [one.clone() for one in found.logits]
        largest = answers._figures(moved[0]).abs().max()
        moved[0][0, 0] += off * largest
        return Answers(found.ids, moved)

    monkeypatch.setattr(answers, "ask", elsewhere)
    if outcome == "refused":
        with pytest.raises(IntegrityError, match=r"of the largest logit off; .* torch 2\."):
            opened(folder)
    elif outcome == "warned":
        with pytest.warns(UserWarning, match=r"of the largest logit off those of the machine"):
            opened(folder)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            opened(folder)


def test_other_tokens_of_the_probes_are_refused(write, facts, tmp_path, opened, monkeypatch):
    folder = write(tmp_path / "bundle", facts)
    rows = answers._rows
    monkeypatch.setattr(answers, "_rows", lambda *given: [one[1:] for one in rows(*given)])
    with pytest.raises(IntegrityError, match="other tokens of public probes"):
        opened(folder)


def test_a_bundle_of_before_opens_unasked(write, facts, tmp_path, opened, monkeypatch):
    monkeypatch.setattr(bundle, "keep_answers", lambda *_: None)
    folder = write(tmp_path / "bundle", facts)
    monkeypatch.setattr(answers, "ask", lambda *_: pytest.fail("asked"))
    opened(folder)


def test_no_number_is_no_agreement(released_model):
    found = ask(*released_model)
    assert difference(found, found) == 0
    broken = Answers(found.ids, [one * float("nan") for one in found.logits])
    assert difference(found, broken) == float("inf")
    assert difference(found, Answers([], [])) == float("inf")


def test_asking_leaves_the_model_in_its_mode(released_model):
    model = copy.deepcopy(released_model[0]).train()
    found = ask(model, released_model[1])
    assert model.training
    assert difference(found, ask(*released_model)) == 0
