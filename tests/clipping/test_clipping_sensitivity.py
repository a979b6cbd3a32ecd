"""One unit moves the clipped sum by its own share, and by nothing else."""

from dataclasses import replace

import pytest
import torch
from microbatch import VOCAB, awkward_batch, grads, tiny_model, vector
from torch import nn

from dpmlm.clipping import FLOAT32_TAU, clip_and_sum
from dpmlm.clipping.layers import linear


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


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
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


def poison(model, rows, kind):
    """Spoils row 4 of a batch of `rows` rows, in the encoder or in the head."""

    def spoil(_module, _inputs, out):
        if len(out) != rows:
            return out
        out = out.clone()
        if kind == "overflow":
            out[4] *= 1e30
        else:
            out[4, 0] = float(kind)
        return out

    if kind == "overflow":
        return model.cls.predictions.transform.register_forward_hook(spoil)
    return model.bert.embeddings.register_forward_hook(spoil)


@pytest.mark.parametrize("forms", [True, False], ids=["formed", "gram"])
@pytest.mark.parametrize("units", [None, [0, 1, 2, 3, 2, 1, 0]], ids=["rows", "units"])
@pytest.mark.parametrize("kind", ["nan", "inf", "overflow"])
def test_a_non_finite_unit_contributes_exactly_zero(units, kind, forms, monkeypatch):
    monkeypatch.setattr(linear, "forming_is_cheaper", lambda *_: forms)
    model = tiny_model("bert")
    numbers = units or list(range(7))
    batch = replace(awkward_batch(0), unit_index=torch.tensor(numbers))
    handle = poison(model, 7, kind)
    got, result = summed(model, batch, 0.5)
    handle.remove()
    finite = torch.isfinite(result.norms) & torch.isfinite(result.losses)
    assert finite.tolist() == [unit != numbers[4] for unit in range(len(finite))]
    rows = [i for i in range(7) if numbers[i] != numbers[4]]
    kept = replace(
        batch.rows(torch.tensor(rows)), unit_index=torch.tensor([numbers[i] for i in rows])
    )
    alone, _ = summed(model, kept, 0.5)
    assert bool(torch.isfinite(got).all())
    torch.testing.assert_close(got, alone, rtol=1e-5, atol=1e-7)
