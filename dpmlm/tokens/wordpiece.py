"""WordPiece tokenizers in the manner of BERT: from a `vocab.txt`, or trained on counted words.

The words are of public text, or they come out of a private selection (`dpmlm.privacy.selection`).
"""

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmlm.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PREFIX = "##"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ALPHABET = 1000
_LONGEST_WORD = 100
# Private-use code points of planes 15 and 16: one for each role of a character in training.
_FIRST_CODE = 0xF0000
_LETTERS_AND_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PRINTABLE = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
_ALWAYS = [*_PRINTABLE, *(PREFIX + character for character in _LETTERS_AND_DIGITS)]
_CONSTANT = frozenset(_ALWAYS)


def wordpiece_tokenizer(vocabulary: Mapping[str, int]) -> "PreTrainedTokenizerFast":
    """A BERT tokenizer over `vocabulary`; lower-cases text unless some piece has a capital.

    Raises UserError when a special token of BERT is missing.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    missing = [token for token in SPECIALS if token not in vocabulary]
    if missing:
        raise UserError(
            f"a vocabulary without {', '.join(missing)}",
            f"a WordPiece vocabulary has {' '.join(SPECIALS)}",
            "name a BERT vocab.txt, or a tokenizer.json",
        )
    cased = any(not _bracketed(piece) and piece != piece.lower() for piece in vocabulary)
    model = models.WordPiece(
        dict(vocabulary),
        unk_token="[UNK]",
        continuing_subword_prefix=PREFIX,
        max_input_chars_per_word=_LONGEST_WORD,
    )
    backend = Tokenizer(model)
    backend.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=PREFIX)
    return framed(backend, vocabulary)


def framed(backend: "Tokenizer", vocabulary: Mapping[str, int]) -> "PreTrainedTokenizerFast":
    """The tokenizer with the special tokens of BERT, which `vocabulary` holds, and its rows."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    roles = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIALS, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        # BERT makes its own token types and DistilBERT refuses them: do not emit any.
        model_input_names=["input_ids", "attention_mask"],
        **{f"{role}_token": token for role, token in roles.items()},
    )


def read_vocabulary(path: Path) -> dict[str, int]:
    """Pieces of a `vocab.txt`, one a line, and their ids.

    Raises UserError, with the line, for invalid UTF-8, an empty line or a piece that comes twice.
    """
    vocabulary: dict[str, int] = {}
    # Pieces may be line separators of Unicode: only \n ends a line.
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n")):
        try:
            piece = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            raise _bad_line(path, number, "it is not UTF-8") from None
        if not piece:
            raise _bad_line(path, number, "it is empty")
        if piece in vocabulary:
            raise _bad_line(path, number, f"its piece stands in line {vocabulary[piece] + 1} too")
        vocabulary[piece] = number
    return vocabulary


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, unused: int = 0
) -> "PreTrainedTokenizerFast":
    """A lower-casing WordPiece tokenizer trained on declared **public** text.

    A vocabulary reveals words of the text it was trained on: private text never comes here
    (row 10 of the claim; `train_from_counts` is for words that were selected from it). Ids: the
    five specials of BERT, `unused` tokens [unused0].. that no text produces (canaries use them),
    single characters, then pieces in the order they were merged.
    Printable ASCII is always in, so plain English never becomes [UNK].

    The vocabulary has at most `vocab_size` pieces, fewer when the text is too short. It is a
    function of the texts: no randomness, no dependence on their order or on threads.

    Raises UserError when `vocab_size` leaves no room for characters, or the text has no word.
    """
    counts = _count_words(texts)
    if not counts:
        raise UserError(
            "public text without a word",
            "a vocabulary is trained on text",
            "name another file in tokens.train",
        )
    return train_from_counts(counts, vocab_size=vocab_size, unused=unused)


def train_from_counts(
    counts: Mapping[str, int], *, vocab_size: int, unused: int = 0
) -> "PreTrainedTokenizerFast":
    """`train_tokenizer` from words and their counts alone, which may be none.

    Pieces beside the constant ones (`least_size`) are made of these words and their characters.

    Raises UserError when `vocab_size` leaves no room.
    """
    room = vocab_size - least_size(unused)
    if room < 1:
        raise UserError(
            f"a vocabulary of {vocab_size} tokens",
            f"special, unused and ASCII pieces alone are {vocab_size - room}",
            "raise its size, or lower unused",
        )
    reserved = [*SPECIALS, *(f"[unused{n}]" for n in range(unused))]
    alphabet = _alphabet(counts, min(_ALPHABET, room // 4))
    merged = _merge(counts, alphabet, vocab_size) if counts else []
    pieces = dict.fromkeys([*reserved, *_ALWAYS, *merged])
    return wordpiece_tokenizer({piece: i for i, piece in enumerate(list(pieces)[:vocab_size])})


def least_size(unused: int = 0) -> int:
    """Entries of every trained vocabulary, whatever its words: special, unused and ASCII ones."""
    return len(SPECIALS) + unused + len(_ALWAYS)


def split_words(text: str) -> list[str]:
    """The words of a text as BERT's lower-casing tokenizer splits it, punctuation among them."""
    normalizer, splitter = _splitter()
    return [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]


def is_learnable(word: str) -> bool:
    """Whether a vocabulary can gain from the word: not in it anyway, and not too long for it."""
    return word not in _CONSTANT and len(word) <= _LONGEST_WORD


@functools.cache
def _splitter() -> tuple[Any, Any]:
    from tokenizers import normalizers, pre_tokenizers

    return normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()


def _count_words(texts: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split_words(text))
    return counts


def _alphabet(counts: Mapping[str, int], limit: int) -> set[str]:
    """The `limit` commonest characters, and printable ASCII."""
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    ranked = sorted(characters, key=lambda character: (-characters[character], character))
    return {*ranked[:limit], *_PRINTABLE}


def _merge(counts: Mapping[str, int], alphabet: set[str], vocab_size: int) -> list[str]:
    """Pieces by byte-pair merging of words (as WordPiece trainers do), in order of their merge.

    The library's WordPiece trainer breaks ties by ids that depend on a hash seeded per process:
    two runs, two vocabularies. So a word is spelled with another symbol for a character inside it
    than at its start, and plain BPE, whose ids follow code points, is trained on the spellings.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    ordered = sorted(alphabet)
    first = {c: chr(_FIRST_CODE + 2 * n) for n, c in enumerate(ordered)}
    inside = {c: chr(_FIRST_CODE + 2 * n + 1) for n, c in enumerate(ordered)}
    spelled = {
        first[word[0]] + "".join(inside[c] for c in word[1:]): count
        for word, count in counts.items()
        if len(word) <= _LONGEST_WORD and alphabet.issuperset(word)
    }
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, show_progress=False)
    backend.train_from_iterator(_repeat(spelled), trainer)
    starts = {symbol: c for c, symbol in first.items()}
    meaning = starts | {symbol: c for c, symbol in inside.items()}
    learned = backend.get_vocab()
    return [
        ("" if piece[0] in starts else PREFIX) + "".join(meaning[symbol] for symbol in piece)
        for piece in sorted(learned, key=lambda piece: learned[piece])
    ]


def _repeat(spelled: Mapping[str, int], limit: int = 10_000) -> Iterator[str]:
    """Each word as often as it was counted: the trainer takes text, not counts."""
    for word, count in spelled.items():
        while count > 0:
            part = min(count, limit)
            yield " ".join([word] * part)
            count -= part


def _bracketed(piece: str) -> bool:
    return piece.startswith("[") and piece.endswith("]")


def _bad_line(path: Path, number: int, rule: str) -> UserError:
    return UserError(f"{path}, line {number + 1}", rule, "mend the vocabulary: one piece a line")
