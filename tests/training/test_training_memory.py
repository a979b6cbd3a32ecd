"""Memory of a physical batch, and how many rows fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import (
    Charges,
    Every,
    Numbered,
    a_model,
    a_recipe,
    documents,
    weights,
    without_noise,
)
from transformers import BertConfig, BertForMaskedLM
from variants import rest_in_full

from dpmlm.clipping import activation_checkpointing, clip_and_sum, own_scratch
from dpmlm.clipping.structure import Structure
from dpmlm.errors import UserError
from dpmlm.masking import MaskingSpec, TokenTable
from dpmlm.training import loop, memory
from dpmlm.training.memory import LiveBytes, rows_that_fit

VOCABULARY, WINDOW = 500, 32
SPEC = MaskingSpec(strategy="token", ratio=0.2)


def table() -> TokenTable:
    special = np.zeros(VOCABULARY, dtype=bool)
    special[:5] = True
    plain = np.zeros(VOCABULARY, dtype=bool)
    return TokenTable(VOCABULARY, 4, 0, 2, 3, special, plain, plain)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": WINDOW}
    return BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, **sizes)).eval()


def test_bytes_alive_are_counted_once_and_let_go():
    with LiveBytes() as live:
        first = torch.zeros(1000)
        second = first + 1
        seen = second.view(10, 100)
        assert (live.now, live.peak) == (8000, 8000)
        del first
        assert (live.now, live.peak) == (4000, 8000)
        del second
        assert live.now == 4000  # the view still holds it
        del seen
    assert (live.now, live.peak) == (0, 8000)


@pytest.mark.parametrize("limit", rest_in_full([1 << 22, 1 << 24, 1 << 26], [1 << 24]))
def test_as_many_rows_as_fit_and_not_many_more(model, limit):
    rows = rows_that_fit(model, table(), SPEC, WINDOW, limit)
    assert 1 < rows <= memory.LARGEST
    batch = memory.synthetic_rows(rows, table(), SPEC, WINDOW)
    assert 0.6 * limit <= memory._peak(model, batch) <= limit


def test_the_limit_holds_in_the_middle_of_training():
    """From the third step on, what steps keep is there from the beginning, and gradients are."""
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 512}
    config = BertConfig(vocab_size=VOCABULARY, num_attention_heads=2, **sizes)
    wide, limit = BertForMaskedLM(config).eval(), 2**26
    rows = rows_that_fit(wide, table(), SPEC, 128, limit)
    batch = memory.synthetic_rows(rows, table(), SPEC, 128)
    with own_scratch(wide), LiveBytes() as live:
        for _ in range(5):
            clip_and_sum(wide, batch, 1.0)
    assert 0.6 * limit <= live.peak <= limit


def test_a_limit_below_one_unit_fits_none(model):
    assert rows_that_fit(model, table(), SPEC, WINDOW, 1000) == 0
    of_units = rows_that_fit(model, table(), SPEC, WINDOW, 2**22, rows_a_unit=8)
    assert of_units > 0
    assert of_units % 8 == 0


def test_a_limit_that_no_unit_fits_is_refused_before_a_charge(fit):
    charges = Charges()
    recipe = a_recipe(windows_per_draw=5, memory_limit=1000)
    with pytest.raises(UserError, match="not even one unit of 5 rows"):
        fit(a_model(), Numbered(documents()), without_noise(), recipe, charges=charges)
    assert charges.seen == []


def test_the_memory_of_units_of_several_rows_is_foreseen(model):
    """Eight rows a unit are copied side by side; the limit holds all the same."""
    limit = 2**23
    rows = rows_that_fit(model, table(), SPEC, WINDOW, limit, rows_a_unit=8)
    batch = memory.synthetic_rows(rows, table(), SPEC, WINDOW)
    index = torch.arange(rows // 8).repeat_interleave(8)
    assert 0.6 * limit < memory._peak(model, replace(batch, unit_index=index)) < limit


def test_gradients_are_as_before(model):
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    rows_that_fit(model, table(), SPEC, WINDOW, 1 << 24)
    assert all(bool((p.grad == 1).all()) for p in model.parameters())
    model.zero_grad()


def test_activation_checkpointing_trains_the_same_weights(fit, monkeypatch):
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    ends = []
    for asked in (False, True):
        trained = a_model(num_hidden_layers=2)
        recipe = a_recipe(activation_checkpointing=asked)
        fit(trained, Numbered(documents()), without_noise(), recipe, folder=str(asked))
        ends.append(weights(trained))
        assert not Structure.of(trained).recomputed
    for one, other in zip(*ends):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.full
def test_activation_checkpointing_fits_more_rows():
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=8, num_attention_heads=2
    )
    deep = BertForMaskedLM(config).eval()
    kept = rows_that_fit(deep, table(), SPEC, WINDOW, 2**26)
    with activation_checkpointing(deep):
        assert rows_that_fit(deep, table(), SPEC, WINDOW, 2**26) > 2 * kept
