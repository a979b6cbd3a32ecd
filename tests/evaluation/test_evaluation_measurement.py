"""One pass over held-out text, against a model asked row by row, with its whole head."""

import copy
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import FNetConfig, FNetForMaskedLM

from dpmlm.errors import UserError
from dpmlm.evaluation import BUCKETS, EvaluationSpec, WordBuckets, count_words, measure, measurement
from dpmlm.masking import Example, MaskingSpec, make_batch

PUBLIC = "the the the the . . was was river glaciers The"


def naive(model, examples, spec, table):
    """(document, loss, first, five, confidence, bucket place) of each masked token, by loops."""
    found = []
    for number, example in enumerate(examples):
        for row in range(spec.rows_per_document):
            begin = row * (spec.window - 2)
            tokens = example.tokens[begin : begin + spec.window - 2]
            if len(tokens) == 0:
                continue
            one = Example(f"{example.id}/{begin}", tokens)
            batch = make_batch(
                [one], [0], seed=spec.seed, table=table, spec=spec.masking, window=spec.window
            )
            with torch.no_grad():
                logits = model(batch.input_ids, batch.attention_mask).logits[0].double()
            for k, weight in enumerate(batch.masked_weights[0].tolist()):
                if not weight:
                    continue
                place = int(batch.masked_positions[0, k])
                label = int(batch.masked_labels[0, k])
                p = logits[place].softmax(-1)
                order = p.argsort(descending=True).tolist()
                found.append(
                    (
                        number,
                        -math.log(p[label]),
                        order[0] == label,
                        label in order[:5],
                        float(p.max()),
                        begin + place - 1,
                    )
                )
    return found


def test_a_measurement_equals_its_naive_twin(model, examples, spec, table, tokenizer):
    ours = measure(model, examples, spec, table=table)
    truth = naive(model, examples, spec, table)
    assert ours.figures.tokens == len(truth) > 50
    assert ours.figures.loss == pytest.approx(np.mean([row[1] for row in truth]), rel=1e-5)
    assert ours.figures.top1 == pytest.approx(np.mean([row[2] for row in truth]), abs=1e-12)
    assert ours.figures.top5 == pytest.approx(np.mean([row[3] for row in truth]), abs=1e-12)
    assert 0 < ours.figures.top1 < ours.figures.top5 < 1
    assert ours.figures.perplexity == pytest.approx(math.exp(ours.figures.loss))
    mine = sorted(zip(ours.document.tolist(), ours.loss.round(4), ours.confidence.round(4)))
    theirs = sorted((row[0], round(row[1], 4), round(row[4], 4)) for row in truth)
    np.testing.assert_allclose(np.array(mine), np.array(theirs), atol=2e-4)


def test_parts_add_up(model, examples, spec, table):
    whole = measure(model, examples, spec, table=table, bytes_of=lambda e: 5 * len(e.tokens))
    parts = [
        measure(model, part, spec, table=table, bytes_of=lambda e: 5 * len(e.tokens))
        for part in (examples[:9], examples[9:])
    ]
    joined = parts[0] + parts[1]
    assert joined.documents == whole.documents
    assert joined.figures.tokens == whole.figures.tokens
    assert joined.figures.loss == pytest.approx(whole.figures.loss, rel=1e-6)
    assert joined.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-6)
    np.testing.assert_array_equal(
        np.bincount(joined.document, minlength=24), np.bincount(whole.document, minlength=24)
    )


def test_another_training_ratio_asks_nothing_else(model, examples, table):
    """What a model is asked depends on the spec alone: two specs alike ask the same tokens."""
    first = measure(model, examples, EvaluationSpec(12), table=table)
    again = measure(model, list(reversed(examples)), EvaluationSpec(12), table=table)
    assert first.figures.tokens == again.figures.tokens
    assert first.figures.loss == pytest.approx(again.figures.loss, rel=1e-6)
    other = measure(model, examples, EvaluationSpec(12, MaskingSpec(ratio=0.4)), table=table)
    assert other.figures.tokens > 2 * first.figures.tokens


def naive_buckets(text, public, tokenizer):
    """Bucket of each token of `text`, from words cut at spaces and full stops."""
    words = public.lower().split()
    counts, million = Counter(words), len(words) / 1e6
    found = []
    for word in text.lower().split():
        rate = counts[word] / million
        edges = [rate > 0, rate >= 1, rate >= 10, rate >= 100, rate >= 1000]
        pieces = tokenizer.tokenize(word)
        known = pieces != ["[UNK]"]
        found += [sum(edges) if known else 0] * len(pieces)
    return found


def counted(tokenizer, table, text=PUBLIC, times=1):
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])
    return count_words([ids] * times, tokenizer, table)


def test_words_are_counted_whole_and_without_case(tokenizer, table):
    expected = {"the": 5, ".": 2, "was": 2, "river": 1, "glaciers": 1}
    assert counted(tokenizer, table) == expected
    unknown = counted(tokenizer, table, "the zebra the glac")
    assert unknown == {"the": 2, "glac": 1}


def test_buckets_equal_their_naive_twin(tokenizer, table):
    common = " ".join(["the"] * 4000 + ["."] * 300 + ["was"] * 30 + ["glaciers"] * 3)
    text = "the glaciers glacial . was zebra winter thawing the"
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])
    buckets = WordBuckets(counted(tokenizer, table, common), tokenizer, table)
    assert buckets.of(ids).tolist() == naive_buckets(text, common, tokenizer)
    # 250 times the words, one of them once: one occurrence in 1.08 millions is below 1 a million.
    rare = counted(tokenizer, table, common, times=250)
    rare["river"] = 1
    river = np.array(tokenizer("river", add_special_tokens=False)["input_ids"])
    assert BUCKETS[int(WordBuckets(rare, tokenizer, table).of(river)[0])] == "below 1"


def test_a_bucket_begins_at_its_edge(tokenizer, table):
    river = np.array(tokenizer("river", add_special_tokens=False)["input_ids"])
    for count, name in ((1, "10 to 100"), (100, "1000 and more"), (99, "100 to 1000")):
        buckets = WordBuckets({"river": count, "the": 100_000 - count}, tokenizer, table)
        assert BUCKETS[int(buckets.of(river)[0])] == name


def test_a_word_at_the_head_of_a_sentence_is_the_same_word(table):
    class Cased:
        def decode(self, ids, **_):
            return " The" if ids == [5] else "the"

    assert count_words([np.array([5, 6])], Cased(), table) == {"the": 2}


def test_figures_by_bucket_equal_their_naive_twin(model, examples, spec, table, tokenizer):
    buckets = WordBuckets(counted(tokenizer, table), tokenizer, table)
    ours = measure(model, examples, spec, table=table, buckets=buckets).by_bucket
    truth = naive(model, examples, spec, table)
    for name, figures in ours.items():
        rows = [r for r in truth if BUCKETS[buckets.of(examples[r[0]].tokens)[r[5]]] == name]
        assert figures.tokens == len(rows)
        assert figures.top1 == pytest.approx(np.mean([row[2] for row in rows]))
        assert figures.loss == pytest.approx(np.mean([row[1] for row in rows]), rel=1e-4)
    assert sum(figures.tokens for figures in ours.values()) == len(truth)
    assert set(ours) == {"never", "1000 and more"}


def test_bits_per_byte_of_a_uniform_model_are_exact(model, examples, spec, table, tokenizer):
    uniform = copy.deepcopy(model)
    with torch.no_grad():
        for param in uniform.parameters():
            param.zero_()
    found = measure(uniform, examples, spec, table=table, bytes_of=lambda e: 3 * len(e.tokens) + 1)
    tokens = sum(len(e.tokens) for e in examples)
    bits = math.log2(len(tokenizer)) * tokens / (3 * tokens + len(examples))
    # Without a byte there is no such figure.
    assert found.bits_per_byte == pytest.approx(bits, rel=1e-6)
    assert measure(model, examples, spec, table=table).bits_per_byte is None


def test_losses_beyond_any_number_are_kept(model, examples, spec, table):
    found = measure(model, examples, spec, table=table)
    lost = replace(found, loss=np.full_like(found.loss, 800.0))
    assert lost.figures.perplexity == math.inf
    none = replace(found, loss=np.full_like(found.loss, math.nan))
    assert math.isnan(none.figures.loss)
    assert math.isnan(none.figures.perplexity)


def test_nothing_to_ask_is_no_figure(model, table, spec):
    empty = [Example("a", np.zeros(0, dtype=np.int64)), Example("b", np.array([1, 1]))]
    for examples in ([], empty):
        found = measure(model, examples, spec, table=table)
        assert found.figures is None
        assert found.by_bucket == {}
        assert found.bits_per_byte is None


def test_odd_specs_are_refused():
    with pytest.raises(UserError, match="a window of 2 tokens") as refusal:
        EvaluationSpec(window=2)
    assert "run file" not in str(refusal.value), "there need not be one"
    with pytest.raises(UserError, match="rows_per_document 0"):
        EvaluationSpec(window=12, rows_per_document=0)


def test_the_model_keeps_its_mode_and_its_gradients(model, examples, spec, table):
    model.train()
    try:
        measure(model, examples, spec, table=table)
        assert model.training
        assert all(param.grad is None for param in model.parameters())
    finally:
        model.eval()


def test_rows_beside_a_row_change_nothing_where_padding_reaches_others(
    monkeypatch, tokenizer, examples, spec, table
):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}
    mixing = FNetForMaskedLM(
        FNetConfig(vocab_size=len(tokenizer), max_position_embeddings=spec.window, **sizes)
    )
    found = []
    for rows in (1, 64):
        monkeypatch.setattr(measurement, "ROWS", rows)
        found.append(measure(mixing, examples, spec, table=table).figures)
    assert found[0].tokens == found[1].tokens > 50
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-6)


def test_a_tokenizer_of_another_model_is_refused_before_it_is_measured(
    model, examples, spec, table
):
    fewer = copy.deepcopy(model)
    fewer.resize_token_embeddings(table.vocab_size - 1)
    with pytest.raises(UserError, match="not a pair"):
        measure(fewer, examples, spec, table=table)
