"""Where a vocabulary's pieces begin and end words, for each family of subword tokenizers.

| family | a piece continues its word when |
| --- | --- |
| WordPiece, BPE with a prefix | it starts with the continuing prefix (`##`) |
| BPE with a suffix (`</w>`) | the piece before it does not end with the suffix |
| byte-level BPE (GPT-2, RoBERTa) | it does not start with white space (`Ġ`, `Ċ`) |
| SentencePiece (Unigram or BPE) | it does not start with `▁` |
| word level | never |

These marks say "after a space", so the text of the pieces has a say too (`scripts.edges`):

* a piece without letter or digit is a word of its own and what follows begins another, though
  `word , next` and `word,next` differ; lone space marks are not, as the piece after them is their
  word;
* in scripts without spaces (Han, kana, Thai, Lao, Khmer, Myanmar) every piece is a word of its own:
  what stands between two spaces is a clause there, and the pieces are the only words known;
* a piece that begins inside a character clings to what stands before it: vowel signs and other
  combining marks, joiners, the later bytes of a character that is cut.

A piece that mixes letters and punctuation joins what stands on both sides of it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpmlm.masking.scripts import edges

_SPACE_MARK = "▁"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, eq=False)
class Pieces:
    """What each piece says of words, bool [V] each."""

    continuation: np.ndarray
    """It continues the word of the piece before it, unless that one closes."""
    closes: np.ndarray
    """What follows begins another word."""
    clings: np.ndarray
    """It belongs to the piece before it in any case."""
    known: bool
    """Whether the tokenizer marks words at all."""


@dataclass(frozen=True)
class _Family:
    continues: Callable[[str], bool]
    closes: Callable[[str], bool]
    data: Callable[[str], bytes]
    """The text of a piece without its marks."""


def describe_pieces(state: Mapping[str, Any], ordinary: Mapping[str, int], size: int) -> Pieces:
    """The words that the pieces of a tokenizer make.

    `state` is the parsed tokenizer.json, `ordinary` the pieces of the model with their ids (added
    and special tokens left out: they begin and end their own words).
    """
    family = _family_of(state, ordinary)
    nothing = np.zeros((3, size), dtype=bool)
    found = Pieces(nothing[0], nothing[1], nothing[2], known=family is not None)
    if family is None or state["model"]["type"] == "WordLevel":
        return found
    for piece, i in ordinary.items():
        at = edges(family.data(piece))
        follows = family.continues(piece)
        found.continuation[i] = follows and not at.begins
        found.closes[i] = at.closes or family.closes(piece)
        found.clings[i] = follows and at.clings
    return found


def text_of_pieces(state: Mapping[str, Any], ordinary: Mapping[str, int]) -> dict[int, str]:
    """What each piece of `describe_pieces` spells, without its marks; no decoder has a part in it.

    Bytes that are no whole character become U+FFFD.
    """
    family = _family_of(state, ordinary)
    if family is None:
        return {i: piece for piece, i in ordinary.items()}
    return {i: family.data(piece).decode(errors="replace") for piece, i in ordinary.items()}


def _family_of(state: Mapping[str, Any], ordinary: Mapping[str, int]) -> _Family | None:
    model = state["model"]
    prefix, suffix = model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")
    if model["type"] == "WordLevel":
        return _Family(_never, _never, str.encode)
    if prefix:
        return _Family(
            lambda piece: len(piece) > len(prefix) and piece.startswith(prefix),
            _never,
            lambda piece: piece.removeprefix(prefix).encode(),
        )
    if suffix:
        return _Family(
            lambda piece: True,
            lambda piece: piece.endswith(suffix),
            lambda piece: piece.removesuffix(suffix).encode(),
        )
    if _uses(state, "ByteLevel"):
        return _Family(
            lambda piece: not _bytes_of(piece)[:1].isspace(),
            _never,
            _bytes_of,
        )
    if any(piece.startswith(_SPACE_MARK) for piece in ordinary):
        return _Family(
            lambda piece: not piece.startswith(_SPACE_MARK), _never, _bytes_of_sentencepiece
        )
    return None


def _never(piece: str) -> bool:
    return False


def _uses(state: Mapping[str, Any], kind: str) -> bool:
    return any(f"'type': '{kind}'" in str(state.get(k)) for k in ("pre_tokenizer", "normalizer"))


def _byte_table() -> dict[str, int]:
    """The printable stand-in of each byte in a byte-level vocabulary (Radford et al. 2019)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(plain))
    table = {chr(byte): byte for byte in plain}
    return table | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE = _byte_table()


def _bytes_of(piece: str) -> bytes:
    """The bytes of a byte-level piece; other characters, of a piece that is none, as they are."""
    return b"".join(
        bytes([_BYTE[character]]) if character in _BYTE else character.encode()
        for character in piece
    )


def _bytes_of_sentencepiece(piece: str) -> bytes:
    """The text of a piece, or the byte that `<0xE4>` stands for."""
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes.fromhex(byte[1]) if byte else piece.replace(_SPACE_MARK, " ").encode()
