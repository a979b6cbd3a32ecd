"""What a training moves: all weights, all but the embeddings, or low-rank factors."""

import sys

import pytest
import torch
from small_training import Charges, Numbered, a_model, a_plan, a_recipe, documents
from torch import nn

from dpmlm.artifacts import new_identity
from dpmlm.clipping import check_model
from dpmlm.errors import UserError
from dpmlm.training import Checkpoints, adamw, merged, restrict, train


def named(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def trained(model, folder, plan=None, units=12):
    plan, identity = plan or a_plan(steps=3), new_identity()
    checkpoints = Checkpoints(folder, identity, [identity.recipient], plan.digest)
    recipe = a_recipe(average=0.5)
    train(
        model,
        Numbered(documents(units)),
        plan,
        recipe,
        charges=Charges(),
        checkpoints=checkpoints,
    )
    return model


def test_frozen_embeddings_stay_and_everything_else_is_noised(tmp_path):
    model = a_model()
    before = named(model)
    model = restrict(model, "no_embeddings")
    assert check_model(model, 60).exact
    after = named(merged(trained(model, tmp_path)))
    moved = {name for name in before if (after[name] != before[name]).any()}
    kept = {name for name in before if "embeddings" in name and "LayerNorm" not in name}
    assert len(kept) == 3
    assert moved == before.keys() - kept


def test_low_rank_factors_change_nothing_before_training():
    batch = torch.randint(5, 59, (3, 9))
    plain = a_model().eval()(batch).logits
    with torch.no_grad():
        assert torch.equal(restrict(a_model(), "lora", rank=4).eval()(batch).logits, plain)


def test_merged_weights_are_the_old_ones_and_twice_the_product_of_the_factors(tmp_path):
    model = a_model()
    before = named(model)
    adapted = restrict(model, "lora", rank=4, seed=3)
    assert check_model(adapted, 60).exact
    trained(adapted, tmp_path)
    parts = {n.removeprefix("base_model.model."): w for n, w in named(adapted).items()}
    after = named(merged(adapted))
    assert after.keys() == before.keys()
    factored = 0
    for name, weight in after.items():
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A.default.weight" in parts:
            a, b = (parts[f"{layer}.lora_{x}.default.weight"].double() for x in "AB")
            naive = before[name].double() + 2 * b @ a
            torch.testing.assert_close(weight.double(), naive, rtol=1e-5, atol=1e-6)
            assert (weight != before[name]).any()
            factored += 1
        elif weight.ndim == 1 and not name.endswith("weight"):
            assert (weight != before[name]).any(), name  # biases, the decoder's among them
        else:
            assert torch.equal(weight, before[name]), name
    assert factored == 7  # six linear layers and the head's transform


def test_the_first_factors_are_functions_of_the_seed_and_of_nothing_else():
    def factors(seed, drawn_before):
        torch.randn(drawn_before)
        return named(restrict(a_model(), "lora", rank=2, seed=seed))

    one, other = factors(5, 0), factors(5, 7)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any((one[name] != weight).any() for name, weight in factors(6, 0).items())


@pytest.mark.parametrize("what", ["no_embeddings", "lora"])
def test_a_finished_training_is_taken_up_whole(what, tmp_path):
    """The checkpoint holds the factors and the frozen weights, and not one of another shape."""
    plan, identity = a_plan(steps=2), new_identity()
    places = Checkpoints(tmp_path, identity, [identity.recipient], plan.digest)

    def one(recipe):
        model = restrict(a_model(), what, rank=2)
        train(
            model, Numbered(documents()), plan, recipe, charges=Charges(), checkpoints=places
        )  # fmt: skip
        return named(merged(model))

    first, again = one(a_recipe()), one(a_recipe())
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_all_leaves_the_model_as_it_is():
    model = a_model()
    assert restrict(model, "all") is model
    assert merged(model) is model
    assert all(p.requires_grad for p in model.parameters())


def test_only_what_moves_is_in_the_optimizer():
    params = {
        what: sum(
            p.numel()
            for group in adamw(restrict(a_model(), what, rank=2), 1e-3, 0.0).param_groups
            for p in group["params"]
        )
        for what in ("all", "no_embeddings", "lora")
    }
    embeddings = sum(
        p.numel()
        for m in a_model().base_model.modules()
        if isinstance(m, nn.Embedding)
        for p in m.parameters()
    )
    assert params["no_embeddings"] == params["all"] - embeddings
    assert params["lora"] < params["no_embeddings"]


def test_a_rank_beyond_a_layer_is_refused():
    with pytest.raises(UserError, match=r"model\.lora_rank 17") as caught:
        restrict(a_model(), "lora", rank=17)
    assert "16" in str(caught.value)


def test_a_missing_library_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"dpmlm-framework\[lora\]"):
        restrict(a_model(), "lora")
