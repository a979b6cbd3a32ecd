"""One unit moves the clipped sum by its own share, and by nothing else."""

from dataclasses import replace

import pytest
import torch
from microbatch import VOCAB, awkward_batch, grads, tiny_model, vector
from small_models import small_model
from torch import nn
from variants import rest_in_full

from dpmlm.clipping import FLOAT32_TAU, clip_and_sum
from dpmlm.clipping.layers import linear
from dpmlm.clipping.structure import Structure
from dpmlm.masking import MaskedBatch


def summed(model, batch, bound):
    model.zero_grad()
    result = clip_and_sum(model, batch, bound)
    return vector(grads(model)), result


def changed(batch, row, seed):
    """The same batch with another example, of another number of masks, in one row."""
    generator = torch.Generator().manual_seed(seed)
    ids, labels = batch.input_ids.clone(), batch.masked_labels.clone()
    weights, positions = batch.masked_weights.clone(), batch.masked_positions.clone()
    ids[row] = torch.randint(3, VOCAB, ids[row].shape, generator=generator)
    labels[row] = torch.randint(3, VOCAB, labels[row].shape, generator=generator)
    positions[row] = torch.randint(0, ids.shape[1], labels[row].shape, generator=generator)
    weights[row] = (torch.arange(weights.shape[1]) <= seed % weights.shape[1]).float()
    return replace(
        batch,
        input_ids=ids,
        masked_labels=labels,
        masked_weights=weights,
        masked_positions=positions,
        attention_mask=torch.ones_like(batch.attention_mask),
    )


def full(batch):
    """The awkward batch without padding, so that a change of one row leaves the others alone."""
    return changed(batch, 0, 3)


def batch_mean_clipped(model, batch, bound):
    """The fault: per-row gradients of a loss divided by the masked tokens of the whole batch."""
    total = float(batch.masked_weights.sum())
    sums = None
    for i in range(len(batch)):
        logits = model(
            input_ids=batch.input_ids[i : i + 1], attention_mask=batch.attention_mask[i : i + 1]
        ).logits[0]
        used = batch.masked_weights[i] > 0
        at = logits[batch.masked_positions[i][used]]
        loss = nn.functional.cross_entropy(at, batch.masked_labels[i][used], reduction="sum")
        found = torch.autograd.grad(loss / total, list(model.parameters()), allow_unused=True)
        g = torch.cat([x.double().flatten() for x in found if x is not None])
        g = g * min(1.0, bound / float(g.norm())) if float(g.norm()) else g
        sums = g if sums is None else sums + g
    return sums


@pytest.mark.parametrize("family", rest_in_full(["bert", "roberta", "distilbert"], ["bert"]))
def test_changing_one_example_moves_the_sum_by_at_most_twice_the_bound(family):
    model = tiny_model(family)
    batch = full(awkward_batch(model.config.pad_token_id))
    bound = float(summed(model, batch, 1.0)[1].norms.median())
    before, _ = summed(model, batch, bound)
    moves = [
        float((summed(model, changed(batch, 3, seed), bound)[0] - before).norm())
        for seed in range(12)
    ]
    assert max(moves) <= 2 * bound * (1 + 1e-5)
    assert max(moves) > bound / 2  # the test would see a fault of this size


def test_a_mean_over_the_batch_fails_the_same_test():
    """24 rows of one mask; one more example with four masks rescales all of them."""
    model = tiny_model("bert")
    batch = changed(awkward_batch(0), 3, 3).rows(torch.full((24,), 3))
    few, many = torch.tensor([[1.0, 0, 0, 0]]).repeat(24, 1), torch.ones(24, 4)
    few[0] = 0
    many[1:] = few[1:]
    before, after = replace(batch, masked_weights=few), replace(batch, masked_weights=many)
    bound = float(batch_mean_clipped(model, before, 1e9).norm()) / 23  # near every norm
    fault = batch_mean_clipped(model, after, bound) - batch_mean_clipped(model, before, bound)
    assert float(fault.norm()) > 2 * bound * (1 + 1e-5)
    norms = summed(model, before, 1.0)[1].norms
    bound = float(norms[1:].median())
    exact = summed(model, after, bound)[0] - summed(model, before, bound)[0]
    assert float(exact.norm()) <= 2 * bound * (1 + 1e-5)


def test_removing_a_unit_moves_the_sum_by_at_most_the_bound():
    model = tiny_model("bert")
    batch = replace(awkward_batch(0), unit_index=torch.tensor([0, 1, 2, 3, 0, 1, 0]))
    bound = float(summed(model, batch, 1.0)[1].norms.median())
    with_it, _ = summed(model, batch, bound)
    kept = replace(batch.rows(torch.tensor([1, 2, 3, 5])), unit_index=torch.tensor([0, 1, 2, 0]))
    without, _ = summed(model, kept, bound)
    assert float((with_it - without).norm()) <= bound * (1 + 1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bound", [1e-3, 1.0])
def test_a_clipped_unit_stays_below_the_bound_and_close_to_it(bound, tied):
    model = tiny_model("roberta", tied=tied)
    batch = awkward_batch(1)
    for i in (0, 1, 3, 4, 5, 6):
        alone, result = summed(model, batch.rows(slice(i, i + 1)), bound)
        assert float(alone.norm()) <= bound
        assert float(alone.norm()) >= min(bound, float(result.norms)) * (1 - 3 * FLOAT32_TAU)


PATHS = {"bert": "one pass", "mpnet": "row by row"}
CASES = [(kind, quantile) for kind in PATHS for quantile in (0.5, 0.9)]


def one_row_of_many_masks(rows=24, slots=8):
    """Texts that differ in one token; row 0 has `slots` masks and all others have one."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, VOCAB, (1, 14), generator=generator).repeat(rows, 1)
    ids[:, 5] = torch.randint(3, VOCAB, (rows,), generator=generator)
    weights = torch.zeros(rows, slots)
    weights[:, 0], weights[0] = 1, 1
    return MaskedBatch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        masked_positions=torch.arange(slots).expand(rows, slots) + 2,
        masked_labels=torch.randint(3, VOCAB, (1, slots), generator=generator).repeat(rows, 1),
        masked_weights=weights,
    )


def without(batch, row):
    return batch.rows(torch.tensor([i for i in range(len(batch)) if i != row]))


def at_quantile(model, batch, quantile):
    """The model's sum at a bound on that quantile of the norms, and the bound.

    The norms are those of the batch without row 0: a loss that the masks of row 0 scale down
    moves every other row below this bound.
    """
    bound = float(summed(model, without(batch, 0), 1.0)[1].norms.quantile(quantile))
    return summed(model, batch, bound)[0], bound


@pytest.mark.parametrize(("kind", "quantile"), rest_in_full(CASES, [*CASES[:2], ("mpnet", 0.5)]))
def test_adding_or_removing_a_row_moves_the_sum_by_at_most_the_bound(kind, quantile):
    """The row of many masks, and some of one mask; row 0's own share reaches the bound or not."""
    model, batch = small_model(kind), one_row_of_many_masks()
    assert Structure.of(model).path == PATHS[kind]
    with_all, bound = at_quantile(model, batch, quantile)
    norms = summed(model, batch, bound)[1].norms
    for row in (0, 1, int(norms.argmax()), int(norms.argmin())):
        rest, _ = summed(model, without(batch, row), bound)
        moved = float((with_all - rest).norm())
        assert moved <= bound * (1 + 1e-5)
        # exactly the row's own clipped share: nothing of the others moved with it
        assert moved == pytest.approx(min(bound, float(norms[row])), rel=1e-4)


@pytest.mark.parametrize(("kind", "quantile"), rest_in_full(CASES, CASES[:2]))
def test_replacing_a_row_moves_the_sum_by_at_most_twice_the_bound(kind, quantile):
    """One mask for many masks, many for one, and another text, each in row 0 and in row 1."""
    model, batch = small_model(kind), one_row_of_many_masks()
    before, bound = at_quantile(model, batch, quantile)
    moves = []
    for row in (0, 1):
        for slots in (1, batch.masked_weights.shape[1]):
            weights = batch.masked_weights.clone()
            weights[row] = (torch.arange(weights.shape[1]) < slots).float()
            for text in (batch.input_ids[row], batch.input_ids[row].flip(0)):
                ids = batch.input_ids.clone()
                ids[row] = text
                other = replace(batch, input_ids=ids, masked_weights=weights)
                moves.append(float((summed(model, other, bound)[0] - before).norm()))
    assert max(moves) <= 2 * bound * (1 + 1e-5)
    assert max(moves) > bound / 2  # the test would see a fault of this size


def poison(model, row_ids, kind):
    """Spoils the row of these token ids, in the encoder or in the head, in a batch or alone.

    Returns what takes it off again.
    """
    spoilt = []

    def find(_module, _args, named):
        spoilt[:] = [(named["input_ids"] == row_ids).all(1)]

    def spoil(_module, _inputs, out):
        out, rows = out.clone(), spoilt[0]
        if kind == "overflow":
            out[rows] *= 1e30
        else:
            out[rows, 0] = float(kind)
        return out

    head = (
        model.lm_head.layer_norm if hasattr(model, "lm_head") else model.cls.predictions.transform
    )
    place = head if kind == "overflow" else model.base_model.embeddings
    handles = [
        model.register_forward_pre_hook(find, with_kwargs=True),
        place.register_forward_hook(spoil),
    ]
    return lambda: [handle.remove() for handle in handles]


@pytest.mark.parametrize(
    ("model_kind", "forms"),
    [("bert", True), ("bert", False), ("squeezebert", True), ("mpnet", None)],
    ids=["formed", "gram", "replayed", "row by row"],
)
@pytest.mark.parametrize("units", [None, [0, 1, 2, 3, 2, 1, 0]], ids=["rows", "units"])
@pytest.mark.parametrize("kind", rest_in_full(["nan", "inf", "overflow"], ["nan", "overflow"]))
def test_a_non_finite_unit_contributes_exactly_zero(units, kind, model_kind, forms, monkeypatch):
    monkeypatch.setattr(linear, "forming_is_cheaper", lambda *_: forms)
    model = small_model(model_kind)
    structure = Structure.of(model)
    assert structure.path == ("row by row" if forms is None else "one pass")
    assert bool(structure.replayed) == (model_kind == "squeezebert")
    numbers = units or list(range(7))
    batch = replace(awkward_batch(0), unit_index=torch.tensor(numbers))
    restore = poison(model, batch.input_ids[4], kind)
    got, result = summed(model, batch, 0.5)
    restore()
    finite = torch.isfinite(result.norms) & torch.isfinite(result.losses)
    assert finite.tolist() == [unit != numbers[4] for unit in range(len(finite))]
    rows = [i for i in range(7) if numbers[i] != numbers[4]]
    kept = replace(
        batch.rows(torch.tensor(rows)), unit_index=torch.tensor([numbers[i] for i in rows])
    )
    alone, of_kept = summed(model, kept, 0.5)
    assert bool(torch.isfinite(got).all())
    torch.testing.assert_close(got, alone, rtol=1e-5, atol=1e-7)
    left = [unit for unit in range(len(finite)) if finite[unit]]
    assert float(alone.norm()) > 0.1
    for unit in left:
        torch.testing.assert_close(result.norms[unit], of_kept.norms[unit], rtol=1e-5, atol=1e-7)
