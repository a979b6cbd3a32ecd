"""Which pieces of a vocabulary continue a word, for each family of subword tokenizers.

| family | a piece continues its word when |
| --- | --- |
| WordPiece, BPE with a prefix | it starts with the continuing prefix (`##`) |
| byte-level BPE (GPT-2, RoBERTa) | it does not start with white space (`Ġ`, `Ċ`) |
| SentencePiece (Unigram or BPE) | it does not start with `▁` |
| word level | never |

In the second and third families the mark says "after a space", so punctuation and what follows it
carry none: `word , next` and `word,next` differ. A piece without any letter or digit therefore
*breaks*: it is a word of its own and the piece after it begins another. Lone space marks do not
break, as the piece after them is their word. A piece that mixes letters and punctuation joins what
stands on both sides of it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dpmlm.errors import UserError

_SPACE_MARK = "▁"


def describe_pieces(
    state: Mapping[str, Any], ordinary: Mapping[str, int], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(continuation, breaks), each bool [size].

    `state` is the parsed tokenizer.json, `ordinary` the pieces of the model with their ids (added
    and special tokens left out: they begin and end their own words). Raises UserError when the
    model marks no word boundaries.
    """
    model = state["model"]
    prefix = model.get("continuing_subword_prefix")
    continues: Callable[[str], bool]
    breaking: Callable[[str], bool] = _never
    if model["type"] == "WordLevel":
        continues = _never
    elif prefix:
        continues = lambda piece: len(piece) > len(prefix) and piece.startswith(prefix)  # noqa: E731
    elif _uses(state, "ByteLevel"):
        continues, breaking = _byte_continues, _byte_breaks
    elif any(piece.startswith(_SPACE_MARK) for piece in ordinary):
        continues = lambda piece: not piece.startswith(_SPACE_MARK)  # noqa: E731
        breaking = _mark_breaks
    else:
        raise UserError(
            f"a {model['type']} tokenizer that marks neither word starts nor continuations",
            "whole words must be told from their pieces",
            "use WordPiece, byte-level BPE or a SentencePiece model",
        )
    continuation, breaks = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    for piece, i in ordinary.items():
        breaks[i] = breaking(piece)
        continuation[i] = not breaks[i] and continues(piece)
    return continuation, breaks


def _never(piece: str) -> bool:
    return False


def _uses(state: Mapping[str, Any], kind: str) -> bool:
    return any(f"'type': '{kind}'" in str(state.get(k)) for k in ("pre_tokenizer", "normalizer"))


def _bytes_of_characters() -> dict[str, int]:
    """The printable stand-in of each byte in a byte-level vocabulary (Radford et al. 2019)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(plain))
    table = {chr(byte): byte for byte in plain}
    return table | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE = _bytes_of_characters()


def _text_of(piece: str) -> str | None:
    """The text of a byte-level piece; None when it is no whole UTF-8 text."""
    try:
        return bytes(_BYTE[character] for character in piece).decode()
    except (KeyError, UnicodeDecodeError):
        return None


def _byte_continues(piece: str) -> bool:
    text = _text_of(piece)
    return text is None or not text[:1].isspace()


def _byte_breaks(piece: str) -> bool:
    text = _text_of(piece)
    return text is not None and text.strip(" ") != "" and not _has_word_character(text)


def _mark_breaks(piece: str) -> bool:
    text = piece.replace(_SPACE_MARK, "")
    return text != "" and not _has_word_character(text)


def _has_word_character(text: str) -> bool:
    return re.search(r"[^\W_]", text) is not None
