"""What models put into masks, against loops of single forward passes."""

import copy

import numpy as np
import pytest
import torch

from audits.models import LoadedModel
from audits.scores.filling import NotFinite, candidate_scores, sample_rows
from dpmlm.artifacts import UserError


def logprobs(subject: LoadedModel, row: list[int], place: int) -> torch.Tensor:
    """Of one row with special tokens, at one place; over the ids that may be said."""
    with torch.no_grad():
        logits = subject.model(input_ids=torch.tensor([row])).logits[0, place]
    logits[subject.tokenizer.all_special_ids] = -torch.inf
    return torch.log_softmax(logits, dim=-1)


@pytest.fixture
def rows() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(5, 700, length).tolist() for length in (12, 9, 15)]


def masked(subject: LoadedModel, row, start: int, said, length: int) -> list[int]:
    hidden = [*said, *[subject.ids.mask] * (length - len(said))]
    return [subject.ids.cls, *row[:start], *hidden, *row[start + length :], subject.ids.sep]


def test_scores_of_candidates_are_those_of_loops(untrained: LoadedModel, rows) -> None:
    candidates = [[(9, 10), (11, 12), (13,)], [(14, 15, 16)], []]
    places = [(3, 5), (4, 6), (0, 1)]
    found = candidate_scores(untrained, rows, places, candidates)
    assert [len(scores) for scores in found] == [3, 1, 0]
    for row, (start, end), own, scores in zip(rows, places, candidates, found):
        for secret, score in zip(own, scores):
            changed = [*row[:start], *secret, *row[end:]]
            hidden = masked(untrained, changed, start, [], len(secret))
            each = [
                float(logprobs(untrained, hidden, start + 1 + place)[token])
                for place, token in enumerate(secret)
            ]
            assert score == pytest.approx(sum(each) / len(each), abs=1e-5)


def test_made_up_rows_are_those_of_loops(untrained: LoadedModel) -> None:
    found = sample_rows(untrained, rows=3, tokens=6, seed=4)
    generator = torch.Generator().manual_seed(4)
    current = [masked(untrained, [], 0, [], 6) for _ in range(3)]
    for place in range(1, 7):
        values = torch.stack([logprobs(untrained, row, place) for row in current])
        drawn = torch.multinomial(values.exp(), 1, generator=generator)[:, 0].tolist()
        for row, token in zip(current, drawn):
            row[place] = token
    assert found.tolist() == [row[1:-1] for row in current]
    assert found.min() >= 5


def test_made_up_rows_have_the_frequencies_of_the_model(untrained: LoadedModel) -> None:
    model = copy.deepcopy(untrained.model)
    with torch.no_grad():
        model.get_output_embeddings().weight = torch.nn.Parameter(torch.zeros(700, 64))
        model.get_output_embeddings().bias[:] = -30.0
        model.get_output_embeddings().bias[[7, 8]] = torch.tensor([1.0, 0.0])
    found = sample_rows(LoadedModel.of(model, untrained.tokenizer), rows=200, tokens=5, seed=1)
    assert set(np.unique(found)) == {7, 8}
    assert (found == 7).mean() == pytest.approx(1 / (1 + np.exp(-1)), abs=3.3 * 0.5 / 1000**0.5)


def test_a_model_that_ran_away_and_rows_too_long_are_refused(broken, untrained, rows) -> None:
    for call in (
        lambda model: sample_rows(model, rows=2, tokens=3, seed=0),
        lambda model: candidate_scores(model, rows, [(0, 1)] * 3, [[(9,)]] * 3),
    ):
        call(untrained)
        with pytest.raises(NotFinite):
            call(broken)
    with pytest.raises(UserError, match="64"):
        sample_rows(untrained, rows=1, tokens=63, seed=0)
