"""Pseudo-log-likelihood against one forward pass a token."""

import copy
import math

import numpy as np
import pytest
import torch

from dpmlm.evaluation import EvaluationSpec, pseudo_likelihood
from dpmlm.masking import Example

WIDE = EvaluationSpec(window=12, rows_per_document=8)


def one_by_one(model, examples, table, window, rows):
    """Nats and tokens of all examples, hiding one token at a time in the row it stands in."""
    nats, tokens = 0.0, 0
    for example in examples:
        ids = example.tokens.tolist()
        for begin in range(0, len(ids), window - 2)[:rows]:
            row = [table.cls_id, *ids[begin : begin + window - 2], table.sep_id]
            for place in range(1, len(row) - 1):
                if table.special[row[place]]:
                    continue
                hidden = [*row]
                hidden[place] = table.mask_id
                with torch.no_grad():
                    logits = model(torch.tensor([hidden])).logits[0, place].double()
                nats -= float(logits.log_softmax(-1)[row[place]])
                tokens += 1
    return nats, tokens


def test_it_equals_one_pass_a_token(model, examples, table):
    examples = examples[:12]
    found = pseudo_likelihood(model, examples, WIDE, table=table, documents=100)
    nats, tokens = one_by_one(model, examples, table, 12, 8)
    assert found.documents == sum(len(e.tokens) > 0 for e in examples)
    assert found.tokens == tokens
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert found.bits_per_byte is None


def test_bits_per_byte_of_a_uniform_model_are_exact(model, examples, table, tokenizer):
    uniform = copy.deepcopy(model)
    with torch.no_grad():
        for param in uniform.parameters():
            param.zero_()
    plain = [e for e in examples if not table.special[e.tokens].any()]
    found = pseudo_likelihood(
        uniform, plain, WIDE, table=table, documents=2, bytes_of=lambda e: 3 * len(e.tokens)
    )
    assert found.perplexity == pytest.approx(len(tokenizer), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(math.log2(len(tokenizer)) / 3, rel=1e-6)
    assert found.documents == 2


def test_documents_hidden_in_part_have_no_bits_per_byte(model, table):
    long = Example("long", np.full(30, 5))
    spec = EvaluationSpec(window=12, rows_per_document=2)
    found = pseudo_likelihood(model, [long], spec, table=table, documents=1, bytes_of=lambda e: 120)
    assert (found.tokens, found.bytes, found.bits_per_byte) == (20, 0, None)


def test_the_same_documents_are_chosen_whatever_their_order(model, examples, table):
    first = pseudo_likelihood(model, examples, WIDE, table=table, documents=4)
    again = pseudo_likelihood(model, examples[::-1], WIDE, table=table, documents=4)
    assert first.tokens == again.tokens
    assert first.nats == pytest.approx(again.nats, rel=1e-6)


def test_nothing_to_hide_has_no_perplexity(model, table):
    unknown = [Example("a", np.zeros(0, dtype=np.int64)), Example("b", np.array([1, 1]))]
    found = pseudo_likelihood(model, unknown, WIDE, table=table, documents=9)
    assert (found.tokens, found.perplexity, found.bits_per_byte) == (0, None, None)
