import math

import pytest
import torch
from microbatch import FAMILIES, awkward_batch, tiny_model, unit_loss

from dpmlm.clipping import EvalResult, clip_and_sum, evaluate_batch, masked_lm_loss


@torch.no_grad()
def by_hand(model, batch):
    loss = weight = top1 = top5 = 0.0
    for i in range(len(batch)):
        logits = model(
            input_ids=batch.input_ids[i : i + 1], attention_mask=batch.attention_mask[i : i + 1]
        ).logits[0]
        for k, w in enumerate(batch.masked_weights[i].tolist()):
            if w:
                at, label = logits[batch.masked_positions[i, k]], batch.masked_labels[i, k]
                order = at.argsort(descending=True)
                loss -= w * float(at.double().log_softmax(-1)[label])
                weight += w
                top1 += w * float(order[0] == label)
                top5 += w * float(label in order[:5])
    return EvalResult(loss, weight, top1, top5)


@pytest.mark.parametrize("family", FAMILIES)
def test_sums_and_hits_against_the_full_head(family):
    model = tiny_model(family)
    batch = awkward_batch(model.config.pad_token_id, seed=5)
    with torch.no_grad():
        logits = model(batch.input_ids, batch.attention_mask).logits
        batch.masked_labels[0] = logits[0, batch.masked_positions[0]].argmax(-1)
        batch.masked_labels[4] = logits[4, batch.masked_positions[4]].argsort(-1)[:, -5]
    truth = by_hand(model, batch)
    ours = evaluate_batch(model.train(), batch)
    assert model.training
    assert ours.loss_sum == pytest.approx(truth.loss_sum, rel=1e-5)
    assert (ours.weight_sum, ours.top1, ours.top5) == (truth.weight_sum, truth.top1, truth.top5)
    assert ours.top1 >= 4
    assert ours.top5 >= 8


def test_losses_are_those_of_training():
    model = tiny_model("bert")
    batch = awkward_batch(0)
    found = masked_lm_loss(model, batch)
    trained = clip_and_sum(model, batch, 1.0)
    torch.testing.assert_close(found.losses, trained.losses)
    truth = torch.stack([unit_loss(model, batch, [i]).detach() for i in range(7)])
    torch.testing.assert_close(found.losses, truth)
    assert not found.correct5[batch.masked_weights == 0].any()
    assert not found.losses.requires_grad


def test_an_empty_batch_sums_to_nothing():
    empty = awkward_batch(0).rows(slice(0, 0))
    assert evaluate_batch(tiny_model("bert"), empty) == EvalResult(0.0, 0.0, 0.0, 0.0)


def test_a_fresh_model_is_near_the_uniform_loss():
    model = tiny_model("bert")
    with torch.no_grad():
        for param in model.parameters():
            param.mul_(0.01)
    result = evaluate_batch(model, awkward_batch(0))
    assert result.loss_sum / result.weight_sum == pytest.approx(math.log(61), rel=1e-3)
