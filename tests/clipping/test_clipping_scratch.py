"""Memory that steps use again: less of it is new, and nothing of one step is seen in the next."""

import copy
import math

import pytest
import torch
from microbatch import awkward_batch, grads, tiny_model

from dpmlm.clipping import clip_and_sum, own_scratch
from dpmlm.clipping import scratch as kept
from dpmlm.clipping.recompute import activation_checkpointing
from dpmlm.clipping.scratch import Scratch, scratch_of

CPU = torch.device("cpu")


def step(model, batch):
    """(norms, gradients) of one step."""
    model.zero_grad(set_to_none=True)
    return clip_and_sum(model, batch, 0.1).norms, grads(model)


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
