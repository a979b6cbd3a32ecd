"""`TokenTable`: what masking has to know of a vocabulary, one entry a token id."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from dpmlm.errors import UserError
from dpmlm.masking.pieces import describe_pieces


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Per-vocabulary facts, built once from a tokenizer and kept with the tokens."""

    vocab_size: int
    """V: the largest token id plus one; ids without a token count as special."""
    mask_id: int
    """Id of the mask token."""
    pad_id: int
    """Id of the padding token."""
    cls_id: int
    """Id of the token that begins every row."""
    sep_id: int
    """Id of the token that ends every row."""
    special: np.ndarray
    """bool [V]: never masked, never drawn as a replacement (unknown token and gaps included)."""
    continuation: np.ndarray
    """bool [V]: the piece continues the word of the piece before it."""
    breaks: np.ndarray
    """bool [V]: a word of its own, and what follows begins another: punctuation, line ends."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "TokenTable":
        """The table of a fast tokenizer: WordPiece, byte-level BPE, Unigram, word level.

        Raises UserError when it is not a fast tokenizer, lacks one of the mask, padding, CLS
        and SEP tokens, or marks word boundaries in a way that is not known.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(
                f"a tokenizer of class {type(tokenizer).__name__}",
                "masking needs a fast tokenizer (one with a tokenizer.json)",
                "save it as tokenizer.json, or load it with dpmlm.tokens.load_tokenizer",
            )
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        size = max(vocabulary.values()) + 1
        added = tokenizer.added_tokens_decoder
        special = np.ones(size, dtype=bool)
        special[list(vocabulary.values())] = False
        special[[i for i, token in added.items() if token.special]] = True
        special[list(tokenizer.all_special_ids)] = True
        ordinary = {t: i for t, i in vocabulary.items() if not special[i] and i not in added}
        continuation, breaks = describe_pieces(json.loads(backend.to_str()), ordinary, size)
        mask, pad, cls_id, sep = _row_tokens(tokenizer)
        return cls(size, mask, pad, cls_id, sep, special, continuation, breaks)

    def __post_init__(self) -> None:
        if self.special.all():
            raise UserError(
                "a vocabulary of special tokens only",
                "masking needs ordinary tokens",
                "train the tokenizer on more text",
            )

    def word_starts(self, tokens: np.ndarray, maskable: np.ndarray) -> np.ndarray:
        """Where words begin, bool [..., T], in rows of `tokens` int [..., T].

        A token that is not `maskable` belongs to no word and ends the one before it; a window
        that opens inside a word opens with the rest of that word.
        """
        joined = self.continuation[tokens] & ~self.breaks[tokens]
        after = maskable & ~self.breaks[tokens]
        joined[..., 1:] &= after[..., :-1]
        joined[..., :1] = False
        return maskable & ~joined

    def to_dict(self) -> dict[str, Any]:
        """A JSON value: the scalars, and each bool array as the list of its true ids."""
        return {
            "vocab_size": self.vocab_size,
            "mask_id": self.mask_id,
            "pad_id": self.pad_id,
            "cls_id": self.cls_id,
            "sep_id": self.sep_id,
            "special": np.flatnonzero(self.special).tolist(),
            "continuation": np.flatnonzero(self.continuation).tolist(),
            "breaks": np.flatnonzero(self.breaks).tolist(),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "TokenTable":
        """The table that `to_dict` wrote; raises UserError on ids outside of the vocabulary."""
        size = int(value["vocab_size"])
        mask, pad, cls_id, sep = (int(value[f"{n}_id"]) for n in ("mask", "pad", "cls", "sep"))
        arrays = [value[name] for name in ("special", "continuation", "breaks")]
        if not all(0 <= i < size for ids in ([mask, pad, cls_id, sep], *arrays) for i in ids):
            raise UserError(
                f"a token table of {size} tokens with an id outside of them",
                "ids lie in 0..vocab_size-1",
                "build the table again from its tokenizer",
            )
        marks = np.zeros((len(arrays), size), dtype=bool)
        for mark, ids in zip(marks, arrays, strict=True):
            mark[ids] = True
        return cls(size, mask, pad, cls_id, sep, *marks)


def _row_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the mask, padding, CLS and SEP tokens."""
    ids = []
    for name in ("mask", "pad", "cls", "sep"):
        value = getattr(tokenizer, f"{name}_token_id")
        if value is None:
            raise UserError(
                f"a tokenizer without a {name} token",
                "masked language modelling needs mask, padding, CLS and SEP tokens",
                "use the tokenizer of a masked language model, or train one",
            )
        ids.append(int(value))
    return ids
