"""BPE and Unigram beside WordPiece: trained alike every time, framed alike, and masked by words."""

import itertools
import json
import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskingSpec, TokenTable, make_batch
from dpmlm.tokens import Encoder, load_tokenizer, tokenizer_digest, train_subwords
from dpmlm.tokens.unigram import _best_of_parts, _expected, unigram_pieces

KINDS = ("wordpiece", "bpe", "unigram")
WORDS = "harbour kitchen letter lantern market morning shadow window garden winter".split()
TEXTS = [
    f"The {a} near the {b} was unbelievable, and (in {c}) nobody re-examined it." * 2
    for a, b, c in itertools.permutations(WORDS, 3)
][:300]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(kind):
    return train_subwords(kind, TEXTS, vocab_size=500, unused=30)


def test_special_and_unused_entries_come_first_and_no_text_makes_them(tokenizer):
    vocabulary = tokenizer.get_vocab()
    first = sorted(vocabulary, key=vocabulary.get)[:35]
    assert first == [*SPECIALS, *(f"[unused{n}]" for n in range(30))]
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert 150 < len(vocabulary) <= 500
    texts = [f"see {name} and{name}" for name in first]
    assert all(ids.min() >= 35 for ids in Encoder(tokenizer).encode(texts))
    table = TokenTable.of(tokenizer)
    assert table.special.sum() == 5
    row = tokenizer("the harbour [MASK]")["input_ids"]
    assert [row[0], row[-1], 4 in row] == [2, 3, True]


def test_words_are_masked_whole(tokenizer, kind):
    table, text = TokenTable.of(tokenizer), "The unbelievable harbour, (in winter) re-examined."
    words = ["the", "unbelievable", "harbour", ",", "(", "in", "winter", ")", "re", "-",
             "examined", "."]  # fmt: skip
    [ids] = Encoder(tokenizer).encode([text])
    starts = table.word_starts(ids[None].astype(np.int64), ~table.special[ids][None])[0]
    assert table.marks_words
    if kind == "unigram":  # SentencePiece's words may hold the punctuation that touches them
        pieces = tokenizer.convert_ids_to_tokens(ids.tolist())
        assert all(begins for begins, piece in zip(starts, pieces) if piece.startswith("\u2581"))
    else:
        assert int(starts.sum()) == len(words)
    spec = MaskingSpec(strategy="whole_word", ratio=0.3)
    batch = make_batch(
        [Example("a", ids), Example("b", ids[:4])], [0, 0],
        seed=b"m" * 32, table=table, spec=spec, window=32,
    )  # fmt: skip
    special = {0, 2, 3}
    for b in range(2):
        used = batch.masked_weights[b] > 0
        assert used.any()
        assert not special & set(batch.masked_labels[b][used].tolist())
    assert (batch.input_ids[1] == 0).sum() == (batch.attention_mask[1] == 0).sum() > 0


CODE = """
import json, random, sys
from dpmlm.tokens import tokenizer_digest, train_subwords
texts = json.load(sys.stdin)
random.Random(int(sys.argv[1])).shuffle(texts)
for kind in ("bpe", "unigram"):
    print(tokenizer_digest(train_subwords(kind, texts, vocab_size=450, unused=3)))
"""


@pytest.mark.full
def test_another_process_and_another_order_make_the_same():
    texts = json.dumps(TEXTS[:120])
    found = {
        subprocess.run(
            [sys.executable, "-c", CODE, seed], input=texts, capture_output=True, text=True,
            check=True, env={**os.environ, "TOKENIZERS_PARALLELISM": parallel},
        ).stdout
        for seed, parallel in (("1", "true"), ("2", "false"))
    }  # fmt: skip
    assert len(found) == 1


def segmentations(word, pieces):
    if not word:
        yield ()
    for end in range(1, len(word) + 1):
        if word[:end] in pieces:
            yield from ((word[:end], *rest) for rest in segmentations(word[end:], pieces))


def test_expectations_equal_their_naive_twin():
    draw = random.Random(3)
    for _ in range(30):
        words = [("".join(draw.choices("abc", k=draw.randint(1, 6))), draw.randint(1, 5))
                 for _ in range(4)]  # fmt: skip
        every = {w[i:j] for w, _ in words for i in range(len(w)) for j in range(i + 1, len(w) + 1)}
        pieces = {p: math.log(draw.uniform(0.01, 1)) for p in every if draw.random() < 0.7 or
                  len(p) == 1}  # fmt: skip
        twin = dict.fromkeys(pieces, 0.0)
        for word, count in words:
            ways = list(segmentations(word, pieces))
            chances = [math.exp(sum(pieces[p] for p in way)) for way in ways]
            for way, chance in zip(ways, chances):
                for piece in way:
                    twin[piece] += count * chance / sum(chances)
        assert _expected(words, pieces) == pytest.approx(twin)
        for piece in pieces:
            others = [sum(pieces[p] for p in way) for way in segmentations(piece, pieces)
                      if way != (piece,)]  # fmt: skip
            assert _best_of_parts(piece, pieces) == pytest.approx(max(others, default=-math.inf))


def test_pieces_are_so_many_and_repeated_words_become_one():
    counts = {"\u2581harbour": 50, "\u2581kitchen": 40, "\u2581x": 1, "\u2581\u6771": 9}
    letters = sorted(set("".join(counts)) - {"\u6771"})
    found = dict(unigram_pieces(counts, size=len(letters) + 2, alphabet=letters))
    assert set(found) == {*letters, "\u2581harbour", "\u2581kitchen"}
    assert found["\u2581harbour"] > found["\u2581kitchen"] > found["x"]
    with pytest.raises(ValueError, match="do not fit"):
        unigram_pieces(counts, size=3, alphabet=letters)


def test_what_leaves_no_room_or_has_no_word_is_refused(kind):
    with pytest.raises(UserError, match="raise its size"):
        train_subwords(kind, TEXTS, vocab_size=130, unused=100)
    with pytest.raises(UserError, match="without a word"):
        train_subwords(kind, ["", "  \n"], vocab_size=600)


def test_a_tokenizer_json_alone_is_read_back_with_its_roles(tokenizer, tmp_path):
    tokenizer.backend_tokenizer.save(str(tmp_path / "made.json"))
    again = load_tokenizer(tmp_path / "made.json")
    assert tokenizer_digest(again) == tokenizer_digest(tokenizer)
    assert (again.mask_token_id, again.pad_token_id, again.unk_token_id) == (4, 0, 1)
