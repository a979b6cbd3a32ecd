"""Units of several windows: drawn whole, clipped as one, never cut in two."""

import numpy as np
import pytest
import torch
from small_training import VOCABULARY, a_model, a_plan, a_recipe, weights, without_noise

from dpmlm.clipping import clip_and_sum
from dpmlm.errors import UserError
from dpmlm.masking import Example
from dpmlm.training import CorpusUnits, loop
from dpmlm.training.gradients import NO_GRADIENT_CANARIES, PlantedGradients
from dpmlm.training.physical import PhysicalBatches
from dpmlm.training.ranks import Ranks
from dpmlm.training.units import View


class Persons:
    """A token store: person p has `documents[p]` documents."""

    def __init__(self, documents):
        self._owner = [person for person, count in enumerate(documents) for _ in range(count)]
        self._names = [f"p{person}" for person in range(len(documents))]

    def units(self, split):
        return self._names

    def documents_of(self, unit):
        return [i for i, person in enumerate(self._owner) if f"p{person}" == unit]

    def tokens(self, i):
        rng = np.random.default_rng(i)
        return rng.integers(5, VOCABULARY - 1, rng.integers(4, 40))

    def names(self, i):
        return None

    def id(self, i):
        return f"d{i}"


def drawn(documents, count, step=0) -> list[list[View]]:
    units = CorpusUnits(Persons(documents), "train", b"s" * 32)
    return [units.views(index, step, count) for index in range(len(documents))]


def moved(views, *, physical=64, bound=0.5) -> list[torch.Tensor]:
    """The clipped sum over `views`, a list a unit, as a step of the loop forms it."""
    plan = without_noise(max_grad_norm=bound, expected_batch_size=1.0)
    model = a_model().eval()
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    private = loop.SecureDPOptimizer(sgd, plan, loop.SecretStream.from_os())
    before = weights(model)
    recipe = a_recipe(physical_batch_size=physical)
    planted = PlantedGradients(NO_GRADIENT_CANARIES, private.params, plan)
    batches = PhysicalBatches(recipe, Ranks(0, 1))
    clip = loop._clipping(model, plan, recipe)
    loop._step(clip, private, views, planted, 0, 1.0, plan, batches, Ranks(0, 1))
    return [old - new for old, new in zip(before, weights(model))]


def naive(views, bound) -> list[torch.Tensor]:
    """Autograd of every unit's mean loss over its rows, one row at a time, then clipped."""
    model, recipe = a_model().eval(), a_recipe()
    total = [torch.zeros_like(p) for p in model.parameters()]
    for unit in views:
        losses = []
        for view in unit:
            row = recipe.batch([[view]])
            logits = model(input_ids=row.input_ids, attention_mask=row.attention_mask).logits
            at = row.masked_positions[0][row.masked_weights[0] > 0]
            labels = row.masked_labels[0][row.masked_weights[0] > 0]
            losses.append(torch.nn.functional.cross_entropy(logits[0, at], labels))
        found = torch.autograd.grad(torch.stack(losses).mean(), list(model.parameters()))
        norm = torch.cat([g.flatten() for g in found]).norm()
        for place, g in enumerate(found):
            total[place] += g * min(1.0, bound / float(norm))
    return total


@pytest.mark.parametrize("physical", [1, 4, 64])
def test_the_step_is_the_clipped_gradient_of_every_units_mean_loss(physical):
    views = drawn([1, 5, 2, 9], 4)
    for one, other in zip(moved(views, physical=physical), naive(views, 0.5)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-6)


def test_a_person_of_a_thousand_documents_moves_the_sum_by_no_more_than_the_bound():
    few, more = drawn([3, 4], 16), drawn([3, 4, 1000], 16)
    moves = [a - b for a, b in zip(moved(more, bound=0.3), moved(few, bound=0.3))]
    norm = float(torch.cat([move.flatten() for move in moves]).norm())
    assert 0.299 < norm <= 0.3 + 1e-6


def test_no_unit_is_cut_in_two_and_a_larger_one_stands_alone():
    views = [*drawn([1, 5, 2, 9], 3), drawn([7], 12)[0]]
    batches = a_recipe(physical_batch_size=7).micro_batches(views)
    rows = sorted(sum(len(unit) for unit in batch) for batch in batches)
    assert rows == [6, 6, 12]
    assert sorted(id(unit) for batch in batches for unit in batch) == sorted(map(id, views))


def test_units_of_one_row_carry_no_index():
    assert a_recipe().batch(drawn([1, 2], 1)).unit_index is None
    assert a_recipe().batch(drawn([1, 2], 2)).unit_index.tolist() == [0, 0, 1, 1]


def test_training_draws_that_many_windows(fit, monkeypatch):
    rows = []

    def watched(model, batch, bound, **more):
        rows.append((len(batch), int(batch.unit_index.max()) + 1))
        return clip_and_sum(model, batch, bound, **more)

    monkeypatch.setattr(loop, "clip_and_sum", watched)
    units = CorpusUnits(Persons([1, 4, 2]), "train", b"s" * 32)
    plan = a_plan(units=3, expected_batch_size=3.0, steps=2)
    progress = fit(a_model(), units, plan, a_recipe(windows_per_draw=5))
    assert rows == [(15, 3), (15, 3)]
    assert [event["private"]["units"] for event in progress.events] == [3, 3]


@pytest.mark.parametrize("count", [0, -1])
def test_a_unit_contributes_at_least_one_row(count):
    with pytest.raises(UserError, match="windows_per_draw"):
        a_recipe(windows_per_draw=count)


def test_a_view_is_a_window_of_its_document_alone():
    example = Example("d", np.arange(5, 50))
    alone = a_recipe().batch([[View(example, 7)]])
    beside = a_recipe().batch([[View(Example("e", np.arange(5, 9)), 3), View(example, 7)]])
    assert torch.equal(alone.input_ids[0], beside.input_ids[1])
