"""A model that learnt its text by heart shows it in the gap; one that saw neither text does not."""

import copy
import random

import pytest
import torch
from transformers import BertForMaskedLM

from dpmlm.evaluation import EvaluationSpec, generalization, generalization_lines, measure
from dpmlm.masking import Example, make_batch

WORDS = range(5, 14)


def text(seed, documents=24):
    rng = random.Random(seed)
    return [
        Example(f"{seed}-{i}", [rng.choice(WORDS) for _ in range(14)]) for i in range(documents)
    ]


def learnt_by_heart(model, examples, spec, table):
    """A larger model than the others' here: it must have room for the text."""
    config = copy.deepcopy(model.config)
    config.update({"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2})
    torch.manual_seed(3)
    fitted = BertForMaskedLM(config).train()
    optimizer = torch.optim.Adam(fitted.parameters(), lr=0.003)
    for step in range(400):
        batch = make_batch(
            examples, [step] * len(examples), seed=b"fit", table=table, spec=spec.masking,
            window=spec.window,
        )  # fmt: skip
        logits = fitted(batch.input_ids, batch.attention_mask).logits
        picked = logits.gather(1, batch.masked_positions[:, :, None].expand(-1, -1, logits.size(2)))
        losses = torch.nn.functional.cross_entropy(
            picked.flatten(0, 1), batch.masked_labels.flatten(), reduction="none"
        )
        optimizer.zero_grad()
        (losses * batch.masked_weights.flatten()).sum().backward()
        optimizer.step()
    return fitted.eval()


def told(model, spec, table, visits=3.0):
    asked = [measure(model, text(seed), spec, table=table) for seed in (1, 2)]
    return generalization(*asked, visits=visits)


@pytest.mark.full
def test_what_was_learnt_by_heart_shows_in_the_gap(model, table):
    spec = EvaluationSpec(16)
    before = told(model, spec, table)
    after = told(learnt_by_heart(model, text(1), spec, table), spec, table)
    assert not before["gap"]["loss"]["low"] > 0
    assert after["gap"]["loss"]["low"] > 0.5
    assert after["gap"]["top1"]["high"] < -0.1
    assert (after["documents"], after["units"]) == (24, 24)
    lines = generalization_lines(after)
    assert lines[0].startswith(
        "overfitting: 24 documents of 24 units of the training, each drawn 3"
    )
    assert f"+{after['gap']['loss']['value']:.3g} (" in lines[-1]
    assert "not told apart" not in lines[-1]
    blind = generalization_lines(told(model, spec, table, visits=0.4))
    assert blind[-1] == "  most of them were never drawn: a gap cannot show"


@pytest.mark.parametrize("nothing", [None, {"gap": {}}])
def test_without_text_to_compare_nothing_is_told(nothing):
    assert generalization_lines(nothing) == []
