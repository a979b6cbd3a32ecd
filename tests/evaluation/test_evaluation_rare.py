"""A model that met some words hardly ever fails on them, and the buckets tell it."""

import copy
import random
import re

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from dpmlm.evaluation import EvaluationSpec, WordBuckets, beside, count_words, lines_of, measure
from dpmlm.masking import Example, make_batch

COMMON = "the river was a stone . the river was a"
RARE = "the garden was a market . the garden was a"
SPEC = EvaluationSpec(12)
STEPS, ROWS = 100, 32
FEW, HALF = 0.002, 0.5
"""Share of the documents that have the rare nouns."""


def text(tokenizer, seed, documents, share):
    """Documents of one row each, common ones and `share` of rare ones."""
    rng = random.Random(seed)
    known = [tokenizer(said, add_special_tokens=False)["input_ids"] for said in (COMMON, RARE)]
    drawn = [np.array(known[rng.random() < share]) for _ in range(documents)]
    return [Example(f"{seed}-{i}", tokens) for i, tokens in enumerate(drawn)]


def trained(tokenizer, model, table, share):
    """A small model that saw each document once."""
    config = copy.deepcopy(model.config)
    config.update({"hidden_size": 32, "hidden_dropout_prob": 0.0})
    torch.manual_seed(3)
    fitted = BertForMaskedLM(config).train()
    optimizer = torch.optim.Adam(fitted.parameters(), lr=0.02)
    examples = text(tokenizer, 1, STEPS * ROWS, share)
    for step in range(STEPS):
        batch = make_batch(
            examples[step * ROWS : (step + 1) * ROWS], [step] * ROWS, seed=b"fit", table=table,
            spec=SPEC.masking, window=SPEC.window,
        )  # fmt: skip
        logits = fitted(batch.input_ids, batch.attention_mask).logits
        picked = logits.gather(1, batch.masked_positions[:, :, None].expand(-1, -1, logits.size(2)))
        losses = torch.nn.functional.cross_entropy(
            picked.flatten(0, 1), batch.masked_labels.flatten(), reduction="none"
        )
        optimizer.zero_grad()
        (losses * batch.masked_weights.flatten()).mean().backward()
        optimizer.step()
    return fitted.eval()


@pytest.mark.parametrize(("share", "fails"), [(FEW, True), (HALF, False)])
def test_words_that_were_hardly_met_are_not_guessed_and_the_lines_tell(
    tokenizer, model, table, share, fails
):
    """Both models are asked for the same words, and the rest of the row says which it is. To one
    they were rare in training, as they are in the public text; to the other they were not."""
    public = [example.tokens for example in text(tokenizer, 1, STEPS * ROWS, FEW)]
    buckets = WordBuckets(count_words(public, tokenizer, table), tokenizer, table)
    found = measure(
        trained(tokenizer, model, table, share), text(tokenizer, 2, 200, 0.3), SPEC, table=table,
        buckets=buckets,
    )  # fmt: skip
    rare, common = found.by_bucket["100 to 1000"], found.by_bucket["1000 and more"]
    assert set(found.by_bucket) == {"100 to 1000", "1000 and more"}
    assert rare.tokens >= 20
    assert common.top1 > (0.97 if fails else 0.8)
    assert rare.top1 < 0.05 if fails else rare.top1 > 0.5
    lines = lines_of(beside({"this": found}), ["this"])
    start = lines.index("right at the first guess, by how common the word is")
    told = {row[0]: row[1:] for row in (re.split(r"\s{2,}", o.strip()) for o in lines[start + 2 :])}
    assert told["100 to 1000"] == [str(rare.tokens), f"{100 * rare.top1:.1f} %"]
    assert told["1000 and more"] == [str(common.tokens), f"{100 * common.top1:.1f} %"]
    if fails:  # the total hides it
        assert found.figures.top1 > 0.85
