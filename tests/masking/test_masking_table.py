"""Word boundaries of every tokenizer family, from tiny tokenizers trained here."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskingSpec, TokenTable, make_batch
from dpmlm.masking.pieces import describe_pieces

TEXT = [
    "The patient took aspirin daily, and improved; re-examined on Monday.\nNo fever (38.1) since.",
    'She said "unbelievable" results\nneed confirmation, don\'t they? Yes: patients improve.',
    "Ünïcode café naïve résumé über straße",
] * 3
SPECIALS = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}


def finish(backend: Tokenizer) -> PreTrainedTokenizerFast:
    roles = {f"{role}_token": token for role, token in SPECIALS.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def byte_level() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=list(SPECIALS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    return finish(backend)


def unigram() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=90,
        special_tokens=list(SPECIALS.values()),
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    return finish(backend)


def sentencepiece_bpe() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=120, special_tokens=list(SPECIALS.values()), show_progress=False
    )
    backend.train_from_iterator([" ".join(text.split()) for text in TEXT], trainer)
    return finish(backend)


def wordpiece() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=110, special_tokens=list(SPECIALS.values()), show_progress=False
    )
    backend.train_from_iterator(TEXT, trainer)
    return finish(backend)


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte_level": byte_level,
    "unigram": unigram,
    "sentencepiece_bpe": sentencepiece_bpe,
    "wordpiece": wordpiece,
}
SENTENCE = "The patients improved, unbelievable (aspirin)\nNo re-examined results."
WORDS = [
    "the", "patients", "improved", ",", "unbelievable", "(", "aspirin", ")",
    "no", "re", "-", "examined", "results", ".",
]  # fmt: skip


def words_of(tokenizer: PreTrainedTokenizerFast, table: TokenTable, text: str) -> list[str]:
    """The words that the table sees, as text."""
    ids = np.array(tokenizer.encode(text, add_special_tokens=False))
    starts = table.word_starts(ids[None], ~table.special[ids][None])[0]
    words: list[str] = []
    ids, starts = ids[~table.special[ids]], starts[~table.special[ids]]
    for token, begins in zip(tokenizer.convert_ids_to_tokens(ids.tolist()), starts):
        piece = token.replace("Ġ", "").replace("Ċ", "").replace("▁", "").removeprefix("##")
        if begins:
            words.append(piece)
        else:
            words[-1] += piece
    return [word.lower() for word in words if word]


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_those_a_reader_sees(family: str) -> None:
    tokenizer = FAMILIES[family]()
    table = TokenTable.of(tokenizer)
    words = words_of(tokenizer, table, SENTENCE)
    if family == "sentencepiece_bpe":  # it learned a piece with letters and a hyphen in it
        words = [w for word in words for w in re.split(r"(-)", word)]
    assert words == WORDS
    pieces = tokenizer.encode(SENTENCE, add_special_tokens=False)
    assert len(pieces) > len(WORDS) + 5, "the vocabulary is too large to test continuation"


def test_a_piece_of_letters_and_punctuation_joins_what_stands_on_both_sides() -> None:
    """`'s` and `'t` are pieces of byte-level vocabularies; a comma is a piece without letters."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(SPECIALS.values()), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    text = "the patient's arm didn't hurt, then it did"
    backend.train_from_iterator([text] * 20, trainer)
    tokenizer = finish(backend)
    assert {"'s", "'t"} <= set(tokenizer.tokenize(text))
    found = words_of(tokenizer, TokenTable.of(tokenizer), text)
    assert found == ["the", "patient's", "arm", "didn't", "hurt", ",", "then", "it", "did"]


@pytest.mark.parametrize("family", FAMILIES)
def test_special_ids(family: str) -> None:
    tokenizer = FAMILIES[family]()
    table = TokenTable.of(tokenizer)
    assert table.vocab_size == len(tokenizer)
    assert sorted(np.flatnonzero(table.special)) == sorted(tokenizer.all_special_ids)
    assert not (table.special & table.continuation).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_masking_whole_words_of_real_text(family: str) -> None:
    tokenizer = FAMILIES[family]()
    table = TokenTable.of(tokenizer)
    ids = np.array(tokenizer.encode(SENTENCE, add_special_tokens=False))
    spec = MaskingSpec("whole_word", 0.4, mask_fraction=0.0, random_fraction=1.0)
    examples = [Example(str(i), ids) for i in range(40)]
    batch = make_batch(examples, [0] * 40, seed=b"s", table=table, spec=spec, window=128)
    starts = table.word_starts(ids[None], ~table.special[ids][None])[0]
    word = np.where(table.special[ids], -1, np.cumsum(starts) - 1)
    for b in range(40):
        used = batch.masked_weights[b].bool()
        hit = set((batch.masked_positions[b][used] - 1).tolist())
        touched = {w for i in hit if sum(word == (w := int(word[i]))) <= 6}  # longer ones in parts
        assert hit >= {i for i in range(len(ids)) if int(word[i]) in touched}
    seen = batch.input_ids.gather(1, batch.masked_positions)[batch.masked_weights.bool()]
    assert not table.special[seen.numpy()].any()


def test_gaps_and_added_special_tokens_are_special() -> None:
    vocabulary = {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "<mask>": 4, "a": 5, "b": 30}
    tokenizer = finish(Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    tokenizer.add_tokens(["plain"])
    tokenizer.add_tokens([AddedToken("<hidden>", special=True)], special_tokens=True)
    table = TokenTable.of(tokenizer)
    ordinary = [5, 30, tokenizer.convert_tokens_to_ids("plain")]
    assert sorted(np.flatnonzero(~table.special)) == sorted(ordinary)
    assert not table.continuation.any()


@pytest.mark.parametrize(
    ("model", "pre_tokenizer", "pieces"),
    [
        # piece: (continues, closes, clings)
        (
            {"type": "BPE"},
            "ByteLevel",
            {"Ġ": "", "ĠĠ": "", "Ċ": " ^", "Ġa": "", "a": "c", ".": " ^", "Ġ(": " ^"}
            | {"Ã": "c", "Ã¼": "c", "âĢĵ": " ^", "_": " ^", "e-": "c"}
            # 今 whole and cut; a later byte; ส of Thai, its block, its first byte alone
            | {"ä»Ĭ": "^", "Ġä»Ĭ": "^", "ä»": "^", "Ĭ": "c+", "à¸ª": "^", "à¸": "^", "à": "c"}
            # ि of Hindi, an accent, an emoji cut after three bytes, 。
            | {"à¤¿": "c+", "ÌĢ": "c+", "Ì": "c+", "ðŁĺ": "^", "ãĢĤ": "^"},
        ),
        (
            {"type": "Unigram"},
            "Metaspace",
            {"▁": "", "▁▁": "", "▁a": "", "a": "c", ".": "^", "▁(": "^", "天": "^", "天気": "^"}
            | {"▁天": "^", "の": "^", "a天": "c^", "天a": "", "ि": "c+", "िल": "c+", "한": "c"}
            | {"\u200d": "c+", "❤️": "^", "️": "c+", "<0xE4>": "^", "<0x8A>": "c+", "ส": "^"},
        ),
        (
            {"type": "WordPiece", "continuing_subword_prefix": "##"},
            "BertPreTokenizer",
            {"a": "", "##a": "c", ",": "^", "##の": "^", "天": "^", "##ि": "c+", "ि": "", "##": ""},
        ),
        (
            {"type": "BPE", "end_of_word_suffix": "</w>"},
            "BertPreTokenizer",
            {"a": "c", "a</w>": "c^", ",</w>": "^", "天": "^", "ि</w>": "c+^"},
        ),
        ({"type": "WordLevel"}, "Whitespace", {"a": "", "天": "", ".": ""}),
    ],
)
def test_pieces_one_by_one(
    model: dict[str, Any], pre_tokenizer: str, pieces: dict[str, str]
) -> None:
    """c: continues; ^: what follows begins a word; +: clings."""
    state = {"model": model, "pre_tokenizer": {"type": pre_tokenizer}}
    ids = {piece: i for i, piece in enumerate(pieces)}
    made = describe_pieces(state, ids, len(ids))
    marks = [(made.continuation, "c"), (made.clings, "+"), (made.closes, "^")]
    found = {p: "".join(mark for at, mark in marks if at[i]) for p, i in ids.items()}
    assert found == {piece: mark.strip() for piece, mark in pieces.items()}
    assert made.known


def test_refused_tokenizers() -> None:
    backend = Tokenizer(
        models.BPE({"a": 0, **{t: i + 1 for i, t in enumerate(SPECIALS.values())}}, [])
    )
    table = TokenTable.of(finish(backend))
    row = {"seed": b"s", "table": table, "window": 8}
    rows = [Example("a", np.zeros(4, dtype=int))]
    assert int(make_batch(rows, [0], spec=MaskingSpec(), **row).masked_weights.sum()) == 1
    for strategy in ("whole_word", "span", "entity"):
        with pytest.raises(UserError, match=r"marks neither word starts"):
            make_batch(rows, [0], spec=MaskingSpec(strategy), **row)  # type: ignore[arg-type]
    only = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(UserError, match="mask token"):
        TokenTable.of(PreTrainedTokenizerFast(tokenizer_object=only, unk_token="<unk>"))
    with pytest.raises(UserError, match="fast tokenizer"):
        TokenTable.of(object())  # type: ignore[arg-type]
    specials = {token: i for i, token in enumerate(SPECIALS.values())}
    with pytest.raises(UserError, match="special tokens only"):
        TokenTable.of(finish(Tokenizer(models.WordLevel(specials, unk_token="<unk>"))))
