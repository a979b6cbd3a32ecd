"""How often words occur in public text, and which of its buckets a word falls in.

Rare words are what a private model learns last. The counts come from text declared public, so that
the buckets are the same for every model and depend on nobody's text.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from transformers import PreTrainedTokenizerBase

from dpmlm.masking import TokenTable

EDGES = (0.0, 1.0, 10.0, 100.0, 1000.0)
"""Occurrences a million words at which a bucket begins, beside 0: words that never occur."""
BUCKETS = ("never", "below 1", "1 to 10", "10 to 100", "100 to 1000", "1000 and more")
"""Names, by rising frequency, a million words of the public text."""


class WordBuckets:
    """Buckets of whole words by their public counts; every piece is in its word's bucket."""

    def __init__(
        self, counts: Mapping[str, int], tokenizer: PreTrainedTokenizerBase, table: TokenTable
    ) -> None:
        """`counts` is what `count_words` returned, with this or another tokenizer."""
        self._counts, self._tokenizer, self._table = counts, tokenizer, table
        self._million = sum(counts.values()) / 1e6
        self._known: dict[tuple[int, ...], int] = {}

    def of(self, tokens: np.ndarray) -> np.ndarray:
        """Index into `BUCKETS` of each token's word, int8 [N]; tokens of no word are in 0."""
        found = np.zeros(len(tokens), dtype=np.int8)
        for begin, end in _words(tokens, self._table):
            key = tuple(tokens[begin:end].tolist())
            if key not in self._known:
                word = _spelled(self._tokenizer, key)
                self._known[key] = self._bucket(self._counts.get(word, 0))
            found[begin:end] = self._known[key]
        return found

    def _bucket(self, count: int) -> int:
        if count == 0:
            return 0
        return int(np.searchsorted(EDGES, count / self._million, side="right"))


def count_words(
    documents: Iterable[np.ndarray], tokenizer: PreTrainedTokenizerBase, table: TokenTable
) -> Counter[str]:
    """How often each word occurs in documents of token ids, without regard to case."""
    pieces: Counter[tuple[int, ...]] = Counter()
    for tokens in documents:
        pieces.update(tuple(tokens[a:b].tolist()) for a, b in _words(tokens, table))
    words: Counter[str] = Counter()
    for key, count in pieces.items():
        words[_spelled(tokenizer, key)] += count
    return words


def _words(tokens: np.ndarray, table: TokenTable) -> list[tuple[int, int]]:
    """[begin, end) of each word; special tokens and unknown ones are of none."""
    if not len(tokens):
        return []
    ordinary = ~table.special[tokens]
    starts = np.flatnonzero(table.word_starts(tokens, ordinary))
    stops = np.flatnonzero(~ordinary)
    ends = np.append(starts[1:], len(tokens))
    if len(stops):  # a word ends before the next special token, too
        next_stop = np.append(stops, len(tokens))[np.searchsorted(stops, starts)]
        ends = np.minimum(ends, next_stop)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _spelled(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...]) -> str:
    text = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
    return str(text).strip().casefold()
