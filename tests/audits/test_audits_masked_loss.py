"""Losses under shared random masks against one masked row at a time through the bare model."""

import copy
import math

import numpy as np
import pytest
import torch

from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.scores.masked_loss import draw_masks, masked_losses
from dpmlm.artifacts import UserError

ROWS = [tuple(range(10, 10 + n)) for n in (3, 20, 7, 33, 1, 20)]


def _naive(model: LoadedModel, row: tuple[int, ...], *, masks: int, seed: int) -> float:
    tokens = np.array(row)
    losses = []
    for places in draw_masks(tokens, range(5), masks=masks, ratio=0.15, seed=seed):
        masked = [model.ids.mask if i in places else token for i, token in enumerate(row)]
        ids = torch.tensor([[model.ids.cls, *masked, model.ids.sep]])
        with torch.no_grad():
            logprobs = torch.log_softmax(model.model(input_ids=ids).logits[0].double(), dim=-1)
        losses += [-float(logprobs[1 + i, row[i]]) for i in places]
    return sum(losses) / len(losses)


def test_losses_row_by_row(untrained: LoadedModel, leaky: LoadedModel) -> None:
    found = masked_losses([untrained, leaky], ROWS, masks=6, seed=3, batch_size=8)
    assert found.dtype == np.float64
    for losses, model in zip(found, (untrained, leaky)):
        expected = [_naive(model, row, masks=6, seed=3) for row in ROWS]
        assert losses == pytest.approx(expected, abs=1e-4)


def test_every_model_sees_the_same_masked_rows(untrained: LoadedModel) -> None:
    seen: list[list[bytes]] = [[], []]

    class Listening(torch.nn.Module):
        def __init__(self, model: torch.nn.Module, heard: list[bytes]) -> None:
            super().__init__()
            self.inner, self.config, self.heard = model, model.config, heard

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.inner.get_output_embeddings()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor):
            self.heard.append(input_ids.numpy().tobytes())
            return self.inner(input_ids=input_ids, attention_mask=attention_mask)

    pair = [
        LoadedModel(Listening(untrained.model, heard), untrained.tokenizer, "") for heard in seen
    ]
    losses = masked_losses(pair, ROWS, masks=4, seed=1, batch_size=5)
    assert seen[0] == seen[1]
    assert len(seen[0]) == math.ceil(len(ROWS) * 4 / 5)
    assert losses[0].tolist() == losses[1].tolist()


def test_masks_are_a_function_of_seed_and_row() -> None:
    def drawn(row: range, seed: int) -> list[list[int]]:
        return draw_masks(np.array(row), range(5), masks=4, ratio=0.15, seed=seed).tolist()

    assert drawn(range(10, 60), 1) == drawn(range(10, 60), 1)
    assert drawn(range(10, 60), 1) != drawn(range(10, 60), 2)
    assert drawn(range(10, 60), 1) != drawn(range(11, 61), 1)
    # As first released: another drawing would change every loss on record.
    pinned = draw_masks(np.arange(10, 20), range(5), masks=3, ratio=0.3, seed=7)
    assert pinned.tolist() == [[0, 2, 9], [5, 6, 7], [5, 6, 7]]


def test_masks_are_uniform_sets_of_the_ratio() -> None:
    tokens = np.array([4, 10, 11, 12, 1, 13])
    drawn = draw_masks(tokens, range(5), masks=6000, ratio=0.5, seed=0)
    sets, counts = np.unique(drawn, axis=0, return_counts=True)
    assert sets.tolist() == [[1, 2], [1, 3], [1, 5], [2, 3], [2, 5], [3, 5]]
    # Pearson's statistic with 5 degrees of freedom; 20.5 is its 99.9 % point.
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5
    for length, count in ((1, 1), (3, 1), (10, 2), (20, 3), (100, 15)):
        shape = draw_masks(np.arange(10, 10 + length), (), masks=2, ratio=0.15, seed=0).shape
        assert shape == (2, count)


def test_trained_rows_lose_less(
    untrained: LoadedModel, leaky: LoadedModel, canaries: CanarySet
) -> None:
    rows = [canary.tokens for canary in canaries.canaries]
    before, after = masked_losses([untrained, leaky], rows, masks=4, seed=0)
    coins = np.array(canaries.opened.of(canaries.canaries))
    gain = before - after
    assert gain[coins].mean() > gain[~coins].mean() + 0.1


def test_a_model_without_finite_scores_is_seen(untrained: LoadedModel, broken: LoadedModel) -> None:
    losses = masked_losses([untrained, broken], ROWS, masks=2, seed=0)
    assert np.isfinite(losses[0]).all()
    assert np.isnan(losses[1]).all()


def test_what_cannot_be_masked_or_compared_is_refused(untrained: LoadedModel) -> None:
    with pytest.raises(UserError, match="0 tokens to mask"):
        masked_losses([untrained], [()], seed=0)
    with pytest.raises(UserError, match="0 tokens to mask"):
        masked_losses([untrained], [(1, 4)], seed=0)
    with pytest.raises(UserError, match="0 masks"):
        masked_losses([untrained], ROWS, masks=0, seed=0)
    with pytest.raises(UserError, match=r"ratio 1\.5"):
        masked_losses([untrained], ROWS, ratio=1.5, seed=0)
    with pytest.raises(UserError, match="rows of 64 tokens"):
        masked_losses([untrained], [tuple(range(5, 68))], seed=0)
    with pytest.raises(UserError, match="0 models"):
        masked_losses([], ROWS, seed=0)
    other = copy.deepcopy(untrained.tokenizer)
    pair = [untrained, LoadedModel(untrained.model, other, "")]
    assert masked_losses(pair, ROWS, masks=1, seed=0).shape == (2, len(ROWS))
    other.mask_token = "w9"
    with pytest.raises(UserError, match="2 models, 1 of which"):
        masked_losses(pair, ROWS, seed=0)
    other = copy.deepcopy(untrained.tokenizer)
    other.add_tokens(["new"])
    with pytest.raises(UserError, match="2 models, 1 of which"):
        masked_losses([untrained, LoadedModel(untrained.model, other, "")], ROWS, seed=0)
    other.mask_token = None
    with pytest.raises(UserError, match="without mask token"):
        masked_losses([LoadedModel(untrained.model, other, "")], ROWS, seed=0)
