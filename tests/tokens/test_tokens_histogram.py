"""Words of private units: bounded a unit, independent of other units, and nothing beside them."""

import hashlib
import math
import random
import re

import pytest

from dpmlm.errors import UserError
from dpmlm.privacy.selection import SCALE, unit_weight
from dpmlm.tokens import WordHistogram, least_size, train_from_counts
from dpmlm.tokens.wordpiece import SPECIALS

KEY = b"k" * 32
WORDS = "river stone Market lantern winter garden window Letter harbour kitchen village".split()


def corpus(units: int = 12, seed: int = 4) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    rows = [
        (f"unit-{rng.randrange(units)}", " ".join(rng.choices(WORDS, k=rng.randint(1, 9))) + ", a.")
        for _ in range(40)
    ]
    rows.append(("empty", "... ! a b c"))
    return rows


def weights(rows, limit=5) -> dict[str, int]:
    histogram = WordHistogram(limit, KEY)
    for unit, text in rows:
        histogram.add(unit, text)
    return histogram.weights()


def naive(rows, limit=5) -> dict[str, int]:
    total: dict[str, int] = {}
    for unit in {unit for unit, _ in rows}:
        words = {w for u, text in rows if u == unit for w in re.findall("[a-z]{2,}", text.lower())}

        def place(word, unit=unit):
            return hashlib.blake2b(f"{unit}\0{word}".encode(), key=KEY, digest_size=16).digest()

        chosen = sorted(words, key=place)[:limit]
        for word in chosen:
            share = math.floor(SCALE / math.sqrt(len(chosen)))
            total[word] = total.get(word, 0) + share
    return total


@pytest.mark.parametrize("limit", [1, 3, 5, 100])
def test_the_histogram_equals_its_naive_twin_in_any_order(limit):
    rows = corpus()
    expected = naive(rows, limit)
    assert weights(rows, limit) == expected
    assert weights(rows[::-1], limit) == expected
    assert weights(rows + rows, limit) == expected, "how often a unit says a word counts nothing"


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_one_unit_more_moves_the_histogram_by_a_norm_of_one_and_few_words(limit):
    for seed in range(20):
        rows = corpus(seed=seed)
        gone = rows[0][0]
        with_it, without = weights(rows, limit), weights([r for r in rows if r[0] != gone], limit)
        moved = [with_it.get(w, 0) - without.get(w, 0) for w in {*with_it, *without}]
        assert sum(step**2 for step in moved) <= SCALE**2
        assert 0 < sum(step != 0 for step in moved) <= limit
        assert min(moved) >= 0


def test_which_words_a_unit_contributes_depends_on_the_key():
    rows = [("one", " ".join(WORDS))]
    other = WordHistogram(3, b"x" * 32)
    other.add(*rows[0])
    assert other.weights().keys() != weights(rows, 3).keys()
    assert set(weights(rows, 3).values()) == {unit_weight(3)}


def test_what_a_vocabulary_holds_anyway_takes_no_place():
    assert weights([("one", "A b, c! 1 [MASK] " + "x" * 101)]) == {"mask": SCALE}


def test_text_that_utf8_cannot_hold_is_read_as_a_question_mark():
    assert set(weights([("one", "stone\ud800 river")])) == {"stone", "river"}


def test_a_vocabulary_is_made_of_the_words_that_came_out_alone():
    tokenizer = train_from_counts({"lantern": 40, "große": 30, "river": 20}, vocab_size=400)
    pieces = set(tokenizer.get_vocab())
    assert {"lantern", "river", "große"} <= pieces
    constant = set(train_from_counts({}, vocab_size=400).get_vocab())
    assert len(constant) == least_size()
    spelled = "lantern große river"
    for piece in pieces - constant:
        assert piece.removeprefix("##") in spelled
    assert tokenizer.tokenize("Lantern stone") == ["lantern", "s", "##t", "##o", "##n", "##e"]


def test_no_word_at_all_leaves_a_vocabulary_of_characters():
    tokenizer = train_from_counts({}, vocab_size=300, unused=50)
    assert len(tokenizer) == least_size(50)
    assert tokenizer.tokenize("ab") == ["a", "##b"]
    assert tokenizer.all_special_tokens
    assert set(SPECIALS) <= set(tokenizer.get_vocab())


def test_a_vocabulary_without_room_is_refused():
    with pytest.raises(UserError, match="raise its size"):
        train_from_counts({"river": 3}, vocab_size=least_size(20), unused=20)
