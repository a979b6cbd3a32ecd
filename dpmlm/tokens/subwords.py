"""Tokenizers of three kinds from declared **public** text: WordPiece, byte-level BPE, Unigram.

A vocabulary reveals words of the text it was trained on: private text never comes here (row 10 of
the claim). Each is a function of the texts, in any order and with any number of threads. All have
BERT's special tokens as their first entries, then `unused` ones that no text produces, and frame a
row alike, so that a model of any size takes any of them.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from dpmlm.errors import UserError
from dpmlm.tokens.unigram import unigram_pieces
from dpmlm.tokens.wordpiece import SPECIALS, framed, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Kind = Literal["wordpiece", "bpe", "unigram"]
_BYTES = 256
_ALPHABET = 1000
_PRINTABLE = [chr(code) for code in range(33, 127)]
_SPACE_MARK = "\u2581"
_NEVER = -1e4
"""Score of an entry that no text is to produce: any spelling by characters is likelier."""


def train_subwords(
    kind: Kind, texts: Iterable[str], *, vocab_size: int, unused: int = 0
) -> "PreTrainedTokenizerFast":
    """A tokenizer of at most `vocab_size` entries; fewer where the text is too short.

    `wordpiece` lower-cases and strips accents, as BERT does; `bpe` keeps every byte, and knows no
    unknown token; `unigram` keeps case, folds compatible characters (NFKC), and joins white space.

    Raises UserError when `vocab_size` leaves no room, or the text has no word.
    """
    if kind == "wordpiece":
        return train_tokenizer(texts, vocab_size=vocab_size, unused=unused)
    return {"bpe": _bpe, "unigram": _unigram}[kind](texts, vocab_size, unused)


def _bpe(texts: Iterable[str], vocab_size: int, unused: int) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    reserved = _reserved(unused, _BYTES, vocab_size, "bytes")
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = splitter
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(reserved),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    seen = [0]
    trained.train_from_iterator(_counted(texts, seen), trainer)
    _refuse_nothing(seen[0])
    learned = json.loads(trained.to_str())["model"]
    pieces = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    vocabulary = {piece: i for i, piece in enumerate([*reserved, *pieces])}
    backend = Tokenizer(models.BPE(vocabulary, [(a, b) for a, b in learned["merges"]]))
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.ByteLevel()
    return framed(backend, vocabulary)


def _unigram(texts: Iterable[str], vocab_size: int, unused: int) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    always = [_SPACE_MARK, *_PRINTABLE]
    reserved = _reserved(unused, len(always), vocab_size, "characters")
    normalizer = normalizers.NFKC()
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(w for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    _refuse_nothing(len(counts))
    room = vocab_size - len(reserved)
    alphabet = _commonest(counts, min(_ALPHABET, (room - len(always)) // 4))
    learned = unigram_pieces(counts, size=room, alphabet=[*always, *alphabet])
    taken = set(reserved)
    entries = [(piece, _NEVER) for piece in reserved]
    entries += [(piece, score) for piece, score in learned if piece not in taken]
    backend = Tokenizer(models.Unigram(entries, unk_id=SPECIALS.index("[UNK]")))
    backend.normalizer = normalizer
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.Metaspace()
    return framed(backend, {piece: i for i, (piece, _) in enumerate(entries)})


def _reserved(unused: int, constant: int, vocab_size: int, what: str) -> list[str]:
    names = [*SPECIALS, *(f"[unused{n}]" for n in range(unused))]
    least = len(names) + constant
    if vocab_size <= least:
        raise UserError(
            f"a vocabulary of {vocab_size} tokens",
            f"special and unused entries and {what} alone are {least}",
            "raise its size, or lower unused",
        )
    return names


def _commonest(counts: Counter[str], limit: int) -> list[str]:
    letters: Counter[str] = Counter()
    for word, count in counts.items():
        for letter in word:
            letters[letter] += count
    return sorted(letters, key=lambda letter: (-letters[letter], letter))[:limit]


def _counted(texts: Iterable[str], seen: list[int]) -> Iterable[str]:
    for text in texts:
        seen[0] += bool(text.strip())
        yield text


def _refuse_nothing(words: int) -> None:
    if not words:
        raise UserError(
            "public text without a word",
            "a vocabulary is trained on text",
            "name another file in tokens.train",
        )
