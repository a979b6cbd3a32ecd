"""The probes: features, the linear classifier, area under the curve, F1 of entities."""

import itertools

import numpy as np
import pytest
import torch

from dpmlm.errors import UserError
from dpmlm.evaluation.entities import (
    Sentence,
    _f1,
    _first_pieces,
    entities_of,
    entity_f1,
    read_conll,
    word_features,
)
from dpmlm.evaluation.features import Linear, features_of
from dpmlm.evaluation.sentiment import (
    area_under_curve,
    pooled,
    refuse_unfit_labels,
    sentiment,
)
from dpmlm.tokens import Encoder


def hidden_by_hand(model, tokens, table):
    row = torch.tensor([[table.cls_id, *tokens.tolist(), table.sep_id]])
    with torch.no_grad():
        return model.bert(row).last_hidden_state[0, 1:-1].numpy()


def test_features_are_the_last_hidden_layer_of_each_row_alone(model, table):
    rows = [np.array([5, 6, 7]), np.array([8]), np.array([9, 1, 10, 11, 12]), np.zeros(0, int)]
    found = features_of(model, rows, table)
    for mine, tokens in zip(found, rows, strict=True):
        np.testing.assert_allclose(mine, hidden_by_hand(model, tokens, table), atol=1e-5)


def test_a_document_is_the_mean_of_its_first_rows(model, table):
    long = np.tile(np.arange(5, 15), 6)
    documents = [long, np.array([7, 8]), np.zeros(0, dtype=int)]
    found = pooled(model, documents, table, window=12)
    rows = [hidden_by_hand(model, long[a : a + 10], table) for a in (0, 10, 20, 30)]
    np.testing.assert_allclose(found[0], np.concatenate(rows).mean(axis=0), atol=1e-5)
    short = hidden_by_hand(model, documents[1], table).mean(axis=0)
    np.testing.assert_allclose(found[1], short, atol=1e-5)
    assert not found[2].any()


def test_a_model_whose_encoder_hides_nothing_is_refused(table):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.base_model = torch.nn.Identity()

    with pytest.raises(UserError, match="no finite hidden state"):
        features_of(Odd(), [np.array([5])], table)


def test_the_classifier_stands_at_the_minimum_of_its_loss():
    """By another way: central differences of the naive loss are 0 where it stopped."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    linear = Linear(x, y, 3)
    standard = (x - x.mean(0)) / (x.std(0) + 1e-6)

    def naive(flat):
        w = flat.reshape(4, 3)
        total = 0.0
        for row, label in zip(standard, y):
            scores = [sum(row[i] * w[i][c] for i in range(3)) + w[3][c] for c in range(3)]
            total -= scores[label] - np.log(sum(np.exp(s) for s in scores))
        return (total + 0.5 * (w[:3] ** 2).sum()) / len(y)

    found = linear._weights.ravel()
    here = naive(found)
    for place in range(12):
        step = np.zeros(12)
        step[place] = 1e-3
        slope = (naive(found + step) - naive(found - step)) / 2e-3
        assert abs(slope) < 2e-4
    assert here < naive(np.zeros(12))


def test_area_equals_the_share_of_pairs():
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 6, 40).astype(float)
    positive = rng.random(40) < 0.4
    often = rng.integers(0, 3, 40)
    pairs = list(itertools.product(np.flatnonzero(positive), np.flatnonzero(~positive)))

    def won(a, b):
        return 1.0 if scores[a] > scores[b] else 0.5 if scores[a] == scores[b] else 0.0

    plain = np.mean([won(a, b) for a, b in pairs])
    assert area_under_curve(scores, positive) == pytest.approx(plain)
    weighted = sum(often[a] * often[b] * won(a, b) for a, b in pairs)
    total = sum(often[a] * often[b] for a, b in pairs)
    assert area_under_curve(scores, positive, often) == pytest.approx(weighted / total)
    assert np.isnan(area_under_curve(scores, np.ones(40, dtype=bool)))


def test_sentiment_tells_features_that_hold_the_label_from_noise():
    rng = np.random.default_rng(5)
    labels = ["pos" if i % 2 else "neg" for i in range(100)]
    texts = [f"text {i}" for i in range(100)]
    noise = rng.normal(size=(100, 5))
    told = noise + 2 * np.array([label == "pos" for label in labels])[:, None]
    found, change = sentiment({"noise": noise, "told": told}, labels, texts)
    assert found["told"].value > 0.95
    assert found["noise"].low < 0.5 < found["noise"].high
    assert change.told_apart
    assert change.value == pytest.approx(found["told"].value - found["noise"].value)
    alone, none = sentiment({"told": told}, labels, texts)
    assert alone["told"] == found["told"]
    assert none is None


def test_equal_texts_do_not_stand_on_both_sides():
    """A hundred copies of ten texts: noise cannot be learnt by heart."""
    rng = np.random.default_rng(6)
    features = np.repeat(rng.normal(size=(10, 30)), 10, axis=0)
    labels = ["a" if i // 10 % 2 else "b" for i in range(100)]
    found, _ = sentiment({"m": features}, labels, [f"text {i // 10}" for i in range(100)])
    assert found["m"].value < 0.95


@pytest.mark.parametrize(
    "labels",
    [[], ["a"] * 20, ["a"] * 20 + ["b"] * 4, ["a"] * 9 + ["b"] * 9 + ["c"] * 9, ["a"] * 9 + [None]],
)
def test_labels_that_cannot_be_told_are_refused(labels):
    with pytest.raises(UserError, match="one of two labels"):
        refuse_unfit_labels(labels, "reviews.jsonl")
    refuse_unfit_labels(["a"] * 5 + ["b"] * 5, "reviews.jsonl")


def naive_entities(tags):
    """Entities by asking of every stretch whether it is one."""
    found = set()
    kinds = [tag[2:] if tag != "O" else None for tag in tags]
    for begin in range(len(tags)):
        for end in range(begin + 1, len(tags) + 1):
            kind = kinds[begin]
            if kind is None or set(kinds[begin:end]) != {kind}:
                continue
            opens = begin == 0 or kinds[begin - 1] != kind or tags[begin][0] == "B"
            closes = end == len(tags) or kinds[end] != kind or tags[end][0] == "B"
            inside = any(tags[place][0] == "B" for place in range(begin + 1, end))
            if opens and closes and not inside:
                found.add((begin, end, kind))
    return found


def test_entities_equal_their_naive_twin():
    rng = np.random.default_rng(7)
    for _ in range(300):
        tags = rng.choice(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], rng.integers(0, 8)).tolist()
        assert entities_of(tags) == naive_entities(tags), tags
    assert entities_of(["I-PER", "I-PER", "B-PER", "O"]) == {(0, 2, "PER"), (2, 3, "PER")}


def write(folder, text):
    path = folder / "ner.conll"
    path.write_text(text)
    return path


GOOD = "Ann I-PER\nsleeps O\n\nin X O\nRome B-LOC\n\n\n" * 3


def test_conll_is_read_by_its_first_and_last_columns(tmp_path):
    sentences = read_conll(write(tmp_path, GOOD))
    assert len(sentences) == 6
    assert sentences[0] == Sentence(("Ann", "sleeps"), ("I-PER", "O"))
    assert sentences[1] == Sentence(("in", "Rome"), ("O", "B-LOC"))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "5 sentences or more"),
        ("Ann O\n\n" * 9, "with entities in them"),
        ("Ann I-PER\n\n" * 4, "5 sentences or more"),
        (GOOD + "alone\n", "a word and a tag"),
        (GOOD + "Ann PER\n", "a word and a tag"),
        (GOOD + "Ann I-\n", "a word and a tag"),
    ],
)
def test_odd_conll_is_refused(tmp_path, text, rule):
    with pytest.raises(UserError, match=rule):
        read_conll(write(tmp_path, text))


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_conll(tmp_path / "none.conll")
    (tmp_path / "bytes.conll").write_bytes(b"\xff\xfe I-PER\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_conll(tmp_path / "bytes.conll")


def test_a_word_has_the_features_of_its_first_piece(model, table, tokenizer):
    """Over several rows, with words of several pieces, unknown ones and one that vanishes."""
    words = ("the", "glaciers", "zebra", "\u200d", "was", "thawing") * 3
    sentence = Sentence(words, ("O",) * len(words))
    located = Encoder(tokenizer).located
    (found,) = word_features(model, [sentence], located, table, window=12)
    assert found.shape == (18, 16)
    ids, place = [], []
    for word in words:
        place.append(len(ids))
        ids += tokenizer(word, add_special_tokens=False)["input_ids"]
    rows = [hidden_by_hand(model, np.array(ids[a : a + 10]), table) for a in range(0, len(ids), 10)]
    every = np.concatenate(rows)
    for number, word in enumerate(words):
        if word == "\u200d":
            assert not found[number].any()
        else:
            np.testing.assert_allclose(found[number], every[place[number]], atol=1e-5)


def test_a_piece_that_holds_the_space_alone_is_no_word():
    """As byte-level tokenizers spell it: before the word, in its first piece, or as a piece."""
    words = ("a", "bc")
    assert _first_pieces(words, [(0, 1), (2, 3), (3, 4)]) == [0, 1]
    assert _first_pieces(words, [(0, 1), (1, 3), (3, 4)]) == [0, 1]
    assert _first_pieces(words, [(0, 1), (1, 2), (2, 4)]) == [0, 2]
    assert _first_pieces(words, [(2, 4)]) == [None, 0]


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    precision, recall = 2 / 4, 2 / 5
    assert _f1((4, 2, 5)) == pytest.approx(2 * precision * recall / (precision + recall))
    assert _f1((3, 0, 5)) == 0
    assert np.isnan(_f1((0, 0, 0)))


def test_features_that_hold_the_tag_find_the_entities_and_noise_does_not():
    rng = np.random.default_rng(8)
    names = ["O", "I-PER", "I-LOC"]
    sentences, told, noise = [], [], []
    for _ in range(60):
        tags = rng.choice(names, 6, p=[0.6, 0.2, 0.2]).tolist()
        sentences.append(Sentence(("w",) * 6, tuple(tags)))
        told.append(np.eye(3)[[names.index(tag) for tag in tags]] * 4 + rng.normal(size=(6, 3)))
        noise.append(rng.normal(size=(6, 3)))
    found, change = entity_f1({"noise": noise, "told": told}, sentences)
    assert found["told"].value > 0.9
    assert found["noise"].value < 0.3
    assert change.told_apart
    assert found["told"].low <= found["told"].value <= found["told"].high
