"""Scores and decodes against one row at a time through the bare model."""

import numpy as np
import pytest
import torch

from audits.models import LoadedModel
from audits.planting.canaries import CanarySet, plan_canaries
from audits.scores.scoring import greedy, greedy_in_alphabets, joint_logprobs, secret_positions
from dpmlm.artifacts import UserError


def _logprobs(subject: LoadedModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = subject.model(input_ids=torch.tensor([ids])).logits[0]
    return torch.log_softmax(logits.double(), dim=-1)


def test_joint_logprobs_row_by_row(leaky: LoadedModel, canaries: CanarySet) -> None:
    some = canaries.canaries[:7]
    found = joint_logprobs(leaky, some, batch_size=3)
    ids = leaky.ids
    for row, canary in zip(found, some):
        logprobs = _logprobs(leaky, [ids.cls, *canary.prefix, *[ids.mask] * 6, ids.sep])
        for position in range(6):
            expected = logprobs[1 + len(canary.prefix) + position, list(canary.alphabets[position])]
            assert row[position] == pytest.approx(expected.numpy(), abs=1e-5)
            assert np.exp(row[position]).sum() <= 1 + 1e-9


def test_left_to_right_row_by_row(leaky: LoadedModel, canaries: CanarySet) -> None:
    some = canaries.canaries[:7]
    found = greedy_in_alphabets(leaky, some, batch_size=4)
    ids = leaky.ids
    for row, canary in zip(found, some):
        said: list[int] = []
        for position in range(6):
            hidden = [ids.mask] * (6 - position)
            logprobs = _logprobs(leaky, [ids.cls, *canary.prefix, *said, *hidden, ids.sep])
            at = 1 + len(canary.prefix) + position
            said.append(max(canary.alphabets[position], key=lambda t: float(logprobs[at, t])))
        assert row.tolist() == said


def test_padding_changes_nothing(leaky: LoadedModel) -> None:
    short, long = (10, 11, 12, 13), (20, 21, 22, 23, 24, 25, 26, 27, 28, 29)
    together = greedy(leaky, [short, long], [(1, 3), (6, 8)])
    assert together[0].tolist() == greedy(leaky, [short], [(1, 3)])[0].tolist()
    assert together[1].tolist() == greedy(leaky, [long], [(6, 8)])[0].tolist()


def test_free_decode_never_says_a_special_token(untrained: LoadedModel) -> None:
    with torch.no_grad():
        untrained.model.cls.predictions.bias[:5] += 100
    try:
        said = greedy(untrained, [(10, 11, 12, 13)] * 3, [(0, 4)] * 3)
    finally:
        with torch.no_grad():
            untrained.model.cls.predictions.bias[:5] -= 100
    assert said.min() >= 5


def test_the_truth_in_the_span_is_not_seen(leaky: LoadedModel) -> None:
    first = greedy(leaky, [(10, 11, 12, 13)], [(1, 3)])
    second = greedy(leaky, [(10, 99, 98, 13)], [(1, 3)])
    assert first.tolist() == second.tolist()


def test_secret_positions_point_at_the_secret(canaries: CanarySet) -> None:
    for row, canary in zip(secret_positions(canaries.canaries), canaries.canaries):
        assert tuple(canary.alphabets[i][index] for i, index in enumerate(row)) == canary.secret


def test_rows_beyond_the_model_are_refused(untrained: LoadedModel) -> None:
    with pytest.raises(UserError, match="rows of 64 tokens"):
        greedy(untrained, [tuple(range(5, 68))], [(0, 2)])
    with pytest.raises(UserError, match="vocabulary of 700"):
        greedy(untrained, [(5, 700)], [(0, 1)])
    with pytest.raises(UserError, match="lengths"):
        greedy(untrained, [(5, 6, 7)] * 2, [(0, 1), (0, 2)])
    outside = plan_canaries(count=3, token_ids=range(650, 760), prefix_ids=range(5, 60))
    with pytest.raises(UserError, match="vocabulary of 700"):
        joint_logprobs(untrained, outside.canaries)
