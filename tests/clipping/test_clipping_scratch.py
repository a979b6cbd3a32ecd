"""Memory that steps use again: less of it is new, and nothing of one step is seen in the next."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from microbatch import awkward_batch, grads, tiny_model

from dpmlm.clipping import MaskedLMGradSampleModule, check_model, clip_and_sum, own_scratch
from dpmlm.clipping import scratch as kept
from dpmlm.clipping.layers import merge_terms
from dpmlm.clipping.layers.embedding import LookupTerm
from dpmlm.clipping.layers.linear import OuterTerm
from dpmlm.clipping.recompute import activation_checkpointing
from dpmlm.clipping.scratch import Scratch, scratch_of

CPU = torch.device("cpu")


def step(model, batch):
    """(norms, gradients) of one step."""
    model.zero_grad(set_to_none=True)
    return clip_and_sum(model, batch, 0.1).norms, grads(model)


def adapted(model):
    peft = pytest.importorskip("peft", reason="the peft package is not installed")
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"], r=2))


def test_what_is_handed_out_is_disjoint_until_it_is_taken_back():
    scratch = Scratch()
    for _ in range(3):
        scratch.begin()
        pieces = [scratch.empty(shape, CPU) for shape in ((2, 3), (4,), (1, 2, 5))]
        for number, piece in enumerate(pieces):
            piece.fill_(number)
        assert [p.unique().tolist() for p in pieces] == [[0.0], [1.0], [2.0]]
    assert len({p.untyped_storage().data_ptr() for p in pieces}) == 1
    more = scratch.empty((100,), CPU)  # has no room left
    assert more.untyped_storage().data_ptr() != pieces[0].untyped_storage().data_ptr()


def test_from_the_second_step_on_nothing_formed_is_new():
    model = tiny_model("bert")
    batch = awkward_batch(0)
    with own_scratch(model):
        step(model, batch)
        scratch = kept._OF_MODEL[model]
        assert scratch._used == 0  # no block yet
        step(model, batch)
        assert scratch._used == scratch._asked == scratch._block.numel()
        first_layer = 4 * 24 * 24 + 2 * 24 * 40
        second_layer = 3 * 24 * 24  # its rest sees the masked positions alone, by Gram matrices
        assert scratch._used == 7 * (first_layer + second_layer)


def test_nothing_of_a_step_is_seen_in_the_next():
    model = tiny_model("bert")
    untouched = copy.deepcopy(model)
    large, small = awkward_batch(0), awkward_batch(0, rows=6, width=9, seed=3)
    with own_scratch(model):
        for batch in (large, small, large, small):
            with own_scratch(untouched):
                norms, gradients = step(untouched, batch)
            again, again_gradients = step(model, batch)
            torch.testing.assert_close(again, norms, rtol=0, atol=0)
            for name, gradient in gradients.items():
                assert torch.equal(again_gradients[name], gradient), name
            scratch_of(model)._block.fill_(math.nan)  # what a unit left out may leave behind


def test_a_unit_left_out_leaves_nothing_for_the_next_step():
    """Its loss is infinite, and so are its factors and what is formed of them."""
    model = tiny_model("bert")
    clean = awkward_batch(0)
    weights = clean.masked_weights.clone()
    weights[0] = math.inf
    index = torch.tensor([0, 1, 2, 3, 0, 1, 2])  # rows of a unit are far apart
    with own_scratch(model):
        expected, gradients = step(model, clean)
    with own_scratch(model):
        for _ in range(3):
            norms, _ = step(model, replace(clean, masked_weights=weights, unit_index=index))
            assert not bool(torch.isfinite(norms[0]))
            again, again_gradients = step(model, clean)
            assert torch.equal(again, expected)
            assert all(torch.equal(again_gradients[n], g) for n, g in gradients.items())


def test_a_step_that_fails_is_followed_by_a_sound_one(monkeypatch):
    model = tiny_model("bert")
    batch = awkward_batch(0)
    with own_scratch(model):
        expected, _ = step(model, batch)
        with monkeypatch.context() as broken:
            broken.setattr(OuterTerm, "add_clipped", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                step(model, batch)
        assert torch.equal(step(model, batch)[0], expected)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_it_is_float32_whatever_the_default(kind):
    model, batch = tiny_model("bert"), awkward_batch(0)
    expected, _ = step(model, batch)
    found = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        with own_scratch(model):
            for _ in range(3):
                assert torch.equal(step(model, batch)[0], expected)
    finally:
        torch.set_default_dtype(found)


@pytest.mark.parametrize("wrap", [MaskedLMGradSampleModule, adapted], ids=["opacus", "peft"])
def test_a_wrapped_model_keeps_one_block(wrap):
    model = tiny_model("bert")
    before = len(kept._OF_MODEL)
    wrapped = wrap(model)
    with own_scratch(wrapped):
        clip_and_sum(wrapped, awkward_batch(0), 1.0)
        clip_and_sum(model, awkward_batch(0), 1.0)
        assert len(kept._OF_MODEL) == before + 1
    assert len(kept._OF_MODEL) == before


def test_the_doctor_keeps_nothing():
    model = tiny_model("bert")
    before = len(kept._OF_MODEL)
    assert check_model(model).exact
    assert len(kept._OF_MODEL) == before


def test_a_tied_weight_is_written_before_it_is_added_to():
    lookup = LookupTerm(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, 2))
    outer = OuterTerm(torch.ones(1, 1, 2), torch.ones(1, 1, 3))
    for order in ([lookup, outer], [outer, lookup]):
        assert [type(term) for term in merge_terms(order)] == [OuterTerm, LookupTerm]


@pytest.mark.parametrize("how", ["freed", "model gone"])
def test_it_goes_with_the_step_or_the_model(how):
    model = tiny_model("bert")
    before = len(kept._OF_MODEL)
    if how == "freed":
        with own_scratch(model):
            clip_and_sum(model, awkward_batch(0), 1.0)
            assert len(kept._OF_MODEL) == before + 1
    else:
        clip_and_sum(model, awkward_batch(0), 1.0)
        assert len(kept._OF_MODEL) == before + 1
        del model
    assert len(kept._OF_MODEL) == before


def test_recomputing_keeps_nothing():
    model = tiny_model("bert")
    with own_scratch(model), activation_checkpointing(model):
        for _ in range(2):
            clip_and_sum(model, awkward_batch(0), 1.0)
        assert model not in kept._OF_MODEL
