"""Tokens: vocabularies, encoding, and documents packed into sealed shards.

Reading order: `tokenizer` (which one), `wordpiece` (BERT's, also trained here), `subwords` (all
kinds that are trained on public text) and `unigram` (how one of them is), `histogram` (words of a
private corpus, for a private selection), `encoder`, `shard` (the format), `store` (a corpus of
shards). Windows are drawn at training time, by dpmlm.masking.
"""

from dpmlm.tokens.encoder import Encoder
from dpmlm.tokens.histogram import WordHistogram
from dpmlm.tokens.shard import TokenShard
from dpmlm.tokens.store import TokenStore
from dpmlm.tokens.subwords import train_subwords
from dpmlm.tokens.tokenizer import (
    load_sealed_tokenizer,
    load_tokenizer,
    save_tokenizer,
    tokenizer_digest,
)
from dpmlm.tokens.wordpiece import least_size, train_from_counts, train_tokenizer

__all__ = [
    "Encoder",
    "TokenShard",
    "TokenStore",
    "WordHistogram",
    "least_size",
    "load_sealed_tokenizer",
    "load_tokenizer",
    "save_tokenizer",
    "tokenizer_digest",
    "train_from_counts",
    "train_subwords",
    "train_tokenizer",
]
