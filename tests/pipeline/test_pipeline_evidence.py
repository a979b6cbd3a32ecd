"""Evidence of runs that are odd, and sound: short windows, and losses beyond any number."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from dpmlm.pipeline import evidence
from dpmlm.training import Evaluation


class Notes:
    """A store of one document a unit, of the lengths given."""

    def __init__(self, lengths):
        self._lengths = lengths

    def units(self, split):
        return [f"{split} {index}" for index in range(len(self._lengths))]

    def documents_of(self, unit):
        return [int(unit.split()[1])]

    def id(self, document):
        return str(document)

    def tokens(self, document):
        return np.arange(self._lengths[document])


def a_run(window):
    return SimpleNamespace(
        secrets=SimpleNamespace(mask_seed=b"seed"),
        config=SimpleNamespace(tokens=SimpleNamespace(window=window)),
    )


@pytest.mark.parametrize("window", [8, 16, 31])
def test_a_window_too_short_for_a_span_gives_none(window):
    assert evidence._spans(a_run(window), Notes([5, 29, 30, 300]), "train", 9) == []


@pytest.mark.parametrize("window", [32, 33, 128])
def test_a_span_lies_inside_a_window_with_context_on_both_sides(window):
    lengths = [29, 30, 31, 40, 300]
    spans = evidence._spans(a_run(window), Notes(lengths), "train", 9)
    assert len(spans) == 4
    for span in spans:
        row = span.left + span.secret + span.right
        assert row == tuple(range(row[0], row[0] + len(row)))
        assert 30 <= len(row) <= window - 2
        assert len(span.secret) == evidence.SPAN
        assert min(len(span.left), len(span.right)) >= evidence.SPAN


def test_losses_beyond_any_number_are_spelled(monkeypatch):
    found = [Evaluation(9, 800.0, math.inf, 0.0, 0.0), Evaluation(9, math.nan, math.nan, 0.0, 0.0)]
    written = {}
    folder = SimpleNamespace(write_json=lambda name, value: written.update({name: value}))
    run = SimpleNamespace(folder=lambda name: name)
    for name in ("load_sealed_tokenizer", "recipe_of", "initial_model"):
        monkeypatch.setattr(evidence, name, lambda *_: None)
    monkeypatch.setattr(evidence, "load_model", lambda folder: (None, None))
    monkeypatch.setattr(evidence.TokenTable, "of", lambda tokenizer: None)
    monkeypatch.setattr(evidence.TokenStore, "open", lambda folder: Notes([40]))
    monkeypatch.setattr(evidence, "evaluate", lambda *_: found.pop(0))
    evidence._evaluation(run, folder, lambda done, total: None)
    figures = written["evaluation"]
    assert figures["before"]["loss"] == 800.0
    assert figures["before"]["perplexity"] == "inf"
    assert figures["after"]["loss"] == figures["after"]["perplexity"] == "nan"
