"""Public text in which a grid counts words: a word's bucket says how common it is there.

Never text that is asked about. Counted with the rest, a word that stands nowhere else would pass
for a known one, and no word would be in the bucket of those that never occur.
"""

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dpmlm.config.text import PublicCorpusConfig
from dpmlm.corpus import Document, read_shards
from dpmlm.evaluation import WordBuckets, count_words
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import sample_public
from dpmlm.pipeline.evaluation import COUNTED, Asked, HeldOut
from dpmlm.pipeline.planted import planted_ids
from dpmlm.tokens import Encoder

PUBLIC_TEXTS = 200
"""Documents of the declared public text that are asked about, at most."""


def trained_texts(run: Run) -> list[str]:
    """Of a public corpus: the documents that are held out of no training, `COUNTED` from all over
    them.

    As they were before any tokens, and whatever sources a cell leaves out: the same for all cells.
    """
    planted = planted_ids(run, "tokens")
    rows = (
        row
        for row in read_shards(run.source("tokens"))
        if row["split"] == "train" and row["id"] not in planted
    )
    chosen = heapq.nsmallest(
        COUNTED, rows, key=lambda row: hashlib.sha256(row["id"].encode()).digest()
    )
    return [row["text"] for row in chosen]


def parted(source: PublicCorpusConfig) -> tuple[list[Document], list[str]]:
    """Documents of a public text to ask about, and the texts of others to count words in.

    At most half of them are asked about, so that something is left to count in; a text that is
    asked about is counted under no other id.
    """
    documents = sample_public(source.corpus, source.text, PUBLIC_TEXTS + COUNTED)
    count = min(PUBLIC_TEXTS, (len(documents) + 1) // 2)
    asked, others = documents[:count], documents[count:]
    known = {document.text for document in asked}
    return asked, [one.text for one in others if one.text not in known]


def asked_by(held_out: HeldOut, texts: Sequence[str], tokenizer: Any) -> Asked:
    """The documents as token ids, with buckets of words by their counts in `texts`; without
    buckets where there are none."""
    asked = replace(held_out, public=None).asked(tokenizer)
    if not texts:
        return asked
    counts = count_words(Encoder(tokenizer).encode(list(texts)), tokenizer, asked.table)
    return replace(asked, buckets=WordBuckets(counts, tokenizer, asked.table))
