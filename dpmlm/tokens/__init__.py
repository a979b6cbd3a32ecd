"""Tokens: vocabularies, encoding, and documents packed into sealed shards.

Reading order: `tokenizer` (which one), `wordpiece` (BERT's, also trained here), `encoder`, `shard`
(the format), `store` (a corpus of shards). Windows are drawn at training time, by dpmlm.masking.
"""

from dpmlm.tokens.encoder import Encoder
from dpmlm.tokens.shard import TokenShard
from dpmlm.tokens.store import TokenStore
from dpmlm.tokens.tokenizer import (
    load_sealed_tokenizer,
    load_tokenizer,
    save_tokenizer,
    tokenizer_digest,
)
from dpmlm.tokens.wordpiece import train_tokenizer

__all__ = [
    "Encoder",
    "TokenShard",
    "TokenStore",
    "load_sealed_tokenizer",
    "load_tokenizer",
    "save_tokenizer",
    "tokenizer_digest",
    "train_tokenizer",
]
