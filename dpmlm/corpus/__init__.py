"""Documents with their provenance: readers, units, splits and sealed shards.

`reading.py` is the way in: one iterator of documents and of rows that were dropped, whatever
the format. `units.py` says who is protected and what is held out. `shards.py` is how every data
stage keeps its documents on disk.
"""

from dpmlm.corpus.document import Document, Dropped
from dpmlm.corpus.reading import corpus_files, read_corpus, read_documents
from dpmlm.corpus.shards import (
    count_shards,
    read_shard,
    read_shards,
    shard_name,
    write_shard,
    write_shards,
)
from dpmlm.corpus.units import (
    Split,
    Unit,
    pseudonym_of,
    record_of,
    split_of,
    stage_document,
    unit_of,
)

__all__ = [
    "Document",
    "Dropped",
    "Split",
    "Unit",
    "corpus_files",
    "count_shards",
    "pseudonym_of",
    "read_corpus",
    "read_documents",
    "read_shard",
    "read_shards",
    "record_of",
    "shard_name",
    "split_of",
    "stage_document",
    "unit_of",
    "write_shard",
    "write_shards",
]
