"""`TokenTable`: what masking has to know of a vocabulary, one entry a token id."""

import json
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from dpmlm.errors import UserError
from dpmlm.masking.pieces import describe_pieces
from dpmlm.masking.spec import MaskingSpec


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
    """bool [V]: the piece continues the word of the piece before it, unless that one closes."""
    closes: np.ndarray
    """bool [V]: what follows begins another word: punctuation, line ends, Han."""
    clings: np.ndarray | None = None
    """bool [V]: the piece belongs to the one before it in any case: it begins inside a character.
    None: no piece does."""
    weights: np.ndarray | None = None
    """float64 [V], above 0: how readily each token is chosen beside the others, from public text.
    None: all alike."""
    marks_words: bool = True
    """Whether words can be told from pieces; without, only strategy token is right."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "TokenTable":
        """The table of a fast tokenizer: WordPiece, BPE, Unigram, word level.

        Raises UserError when it is not a fast tokenizer, or lacks one of the mask, padding, CLS
        and SEP tokens.
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
        words = describe_pieces(json.loads(backend.to_str()), ordinary, size)
        mask, pad, cls_id, sep = _row_tokens(tokenizer)
        return cls(
            size,
            mask,
            pad,
            cls_id,
            sep,
            special,
            words.continuation,
            words.closes,
            words.clings,
            marks_words=words.known,
        )

    def __post_init__(self) -> None:
        if self.special.all():
            raise UserError(
                "a vocabulary of special tokens only",
                "masking needs ordinary tokens",
                "train the tokenizer on more text",
            )

    def refuse_unfit(self, spec: MaskingSpec) -> None:
        """Raise UserError where `spec` masks words and the tokenizer does not mark any."""
        if spec.strategy != "token" and not self.marks_words:
            raise UserError(
                f"masking strategy {spec.strategy} with a tokenizer that marks neither word starts "
                "nor continuations",
                "whole words must be told from their pieces",
                "use masking.strategy: token, or WordPiece, byte-level BPE or SentencePiece",
            )

    def word_starts(self, tokens: np.ndarray, maskable: np.ndarray) -> np.ndarray:
        """Where words begin, bool [..., T], in rows of `tokens` int [..., T].

        A token that is not `maskable` belongs to no word and ends the one before it; a window
        that opens inside a word opens with the rest of that word.
        """
        before = np.zeros_like(maskable)
        before[..., 1:] = maskable[..., :-1]
        closed = self.closes[tokens]
        joined = self.continuation[tokens]
        if self.clings is not None and (inside := self.clings[tokens] & before).any():
            # A character in several pieces closes its word if its first piece does.
            place = np.where(inside, 0, np.arange(tokens.shape[-1]))
            head = np.maximum.accumulate(place, axis=-1)
            closed |= np.take_along_axis(closed, head, axis=-1)
        else:
            inside = np.zeros_like(maskable)
        joined[..., 1:] &= ~closed[..., :-1]
        return maskable & ~((joined & before) | inside)


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
