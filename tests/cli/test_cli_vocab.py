"""`dpmlm vocab`: a file that is covered by its budget, or nothing charged."""

import json

import pytest

from dpmlm.privacy import Ledger
from dpmlm.tokens import load_tokenizer, tokenizer_digest


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"text": f"the harbour was quiet today secret{n}", "author": f"a{n % 200}"}
        for n in range(400)
    ]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Ledger.register(tmp_path / "ledger.jsonl", epsilon=20, delta=1e-3, corpus="notes")
    return tmp_path


ASK = ("vocab", "notes.jsonl", "out/vocab.txt", "--ledger", "ledger.jsonl", "--epsilon", "4",
       "--delta", "1e-5", "--words-per-unit", "10", "--person", "author")  # fmt: skip


def test_it_writes_a_vocabulary_and_says_what_it_cost(corpus, call):
    called = call(*ASK, "--json")
    assert called.status == 0, called.err
    said = json.loads(called.out)
    assert said["schema"] == "dpmlm.vocab/1"
    (entry,) = [e for e in Ledger.open("ledger.jsonl").entries if e["kind"] == "select"]
    assert said["divergence"] == entry["divergence"]
    assert said["selection"]["words_per_unit"] == 10
    assert said["left"]["delta"] == pytest.approx(1e-4 - 5e-6)
    pieces = (corpus / "out/vocab.txt").read_text().splitlines()
    assert said["entries"] == len(pieces) == len(load_tokenizer("out/vocab.txt"))
    assert said["words"] == 5
    assert {"harbour", "quiet", "today", "[MASK]", "[unused127]"} <= set(pieces)
    assert not any(piece.startswith("secret") for piece in pieces)


def test_in_words(corpus, call):
    called = call(*ASK)
    assert "from 5 words" in called.out
    assert "at most 10 words a unit" in called.out


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"--epsilon": "0"}, "epsilon is above 0"),
        ({"--delta": "0.7"}, "delta between 0 and 0.5"),
        ({"--delta": "1e-3"}, "are left"),
        ({"--epsilon": "100"}, "are left"),
        ({"--ledger": "none.jsonl"}, "there is no such file"),
        ({"--size": "100"}, "a vocabulary of 100 entries"),
        ({"--person": "nobody"}, "nobody"),
    ],
)
def test_what_cannot_be_charges_nothing(corpus, refused, changed, named):
    words = list(ASK)
    for option, value in changed.items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    assert named in refused(*words)
    assert len(Ledger.open("ledger.jsonl").entries) == 1
    assert not (corpus / "out/vocab.txt").exists()


def test_an_output_that_is_there_is_kept_and_charges_nothing(corpus, refused):
    (corpus / "out").mkdir()
    (corpus / "out/vocab.txt").write_text("mine")
    assert "it is there already" in refused(*ASK)
    assert (corpus / "out/vocab.txt").read_text() == "mine"
    assert len(Ledger.open("ledger.jsonl").entries) == 1


PUBLIC = ("vocab", "notes.jsonl", "out/made.json", "--public", "--size", "700")


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_public_text_takes_any_kind_and_charges_nothing(corpus, call, kind):
    called = call(*PUBLIC, "--kind", kind, "--json")
    assert called.status == 0, called.err
    said = json.loads(called.out)
    assert (said["schema"], said["kind"]) == ("dpmlm.public-vocab/1", kind)
    tokenizer = load_tokenizer("out/made.json")
    assert said["entries"] == len(tokenizer)
    assert said["digest"] == tokenizer_digest(tokenizer)
    assert type(tokenizer.backend_tokenizer.model).__name__.lower() == kind
    assert len(Ledger.open("ledger.jsonl").entries) == 1
    (corpus / "out/made.json").unlink()
    assert said["digest"] in call(*PUBLIC, "--kind", kind).out


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ((*PUBLIC, "--kind", "bytes"), "wordpiece, bpe or unigram"),
        ((*ASK, "--kind", "bpe"), "of these only WordPiece is made"),
        (("vocab", "notes.jsonl", "vocab.txt", "--public", "--kind", "bpe"), "tokenizer.json"),
        (("vocab", "none.jsonl", "made.json", "--public"), "none.jsonl"),
        ((*PUBLIC, "--epsilon", "1"), "--public takes no --epsilon"),
        (("vocab", "notes.jsonl", "vocab.txt"), "or --public"),
    ],
)
def test_what_public_text_and_private_text_do_not_take(corpus, refused, given, named):
    assert named in refused(*given)
    assert not (corpus / "out").exists()
