"""Evidence of runs that are odd, and sound: losses beyond any number."""

import math
from types import SimpleNamespace

import numpy as np

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
