"""Text to token ids, many documents at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpmlm.tokens.tokenizer import fast_backend

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 256


class Encoder:
    """A copy of a tokenizer set up for documents: no specials added, none read from the text.

    A document that contains the characters `[MASK]` or `</s>` must not produce those tokens: they
    steer the model, and canary and mask positions rely on them.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        from tokenizers import Tokenizer

        self._backend = Tokenizer.from_str(fast_backend(tokenizer).to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        size = max(vocabulary.values()) + 1
        self.dtype = np.dtype("<u2") if size <= 1 << 16 else np.dtype("<u4")
        """uint16 where every id fits, else uint32; little-endian."""
        self.unknown_id: int | None = tokenizer.unk_token_id
        """Id that stands for text the vocabulary cannot spell; None for byte-level ones."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Content token ids of each text, of `dtype` [N]; lone surrogates count as `?`."""
        encoded: list[np.ndarray] = []
        for first in range(0, len(texts), _BATCH):
            part = [encodable(text) for text in texts[first : first + _BATCH]]
            rows = self._backend.encode_batch_fast(part, add_special_tokens=False)
            encoded += [np.array(row.ids, dtype=self.dtype) for row in rows]
        return encoded

    def marked(
        self, texts: Sequence[str], names: Sequence[Sequence[tuple[int, int]]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """What `encode` gives of each text, and uint8 [N] beside it: 1 where one of its names
        begins, 2 inside of it, 0 elsewhere.

        `names` are characters [start, end) of each text; where they overlap they are one name. A
        token that shares a character with a name is of it, so that it makes no difference whether
        a tokenizer counts the space before a word to the word (`trim_offsets`).
        """
        found = []
        for text, spans in zip(texts, names, strict=True):
            ids, offsets = self.located(text)
            marks = np.zeros(len(ids), dtype=np.uint8)
            begin, end = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
            upto = -1
            for first, last in sorted(spans):
                inside = (begin < last) & (end > first)
                marks[inside & (marks == 0)] = 2
                if first >= upto:
                    marks[inside.nonzero()[0][:1]] = 1
                upto = max(upto, last)
            found.append((np.array(ids, dtype=self.dtype), marks))
        return found

    def located(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Content token ids of a text, and the characters (start, end) that each is made of."""
        row = self._backend.encode(encodable(text), add_special_tokens=False)
        return row.ids, row.offsets


def encodable(text: str) -> str:
    """The text as UTF-8 can hold it: a lone surrogate becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
