"""Deduplicating a file of one's own."""

from collections import Counter
from pathlib import Path

from dpmlm.config import DedupConfig
from dpmlm.dedup import Held
from dpmlm.pipeline.duplicates import settle
from dpmlm.pipeline.outputs import Done, Output, read_documents
from dpmlm.pipeline.progress import Progress


def dedup_file(
    source: Path, output: Output, *, rules: DedupConfig, text: str, identity: Path | None = None
) -> Done:
    """Deduplicate a corpus file or folder, or a sealed one that `identity` opens, into `output`."""
    output.check()
    documents, dropped = read_documents(source, text, identity=identity)
    rows = [
        {"id": document.id, "text": document.text, "unit": "", "split": "train"}
        for document in documents
    ]
    with Progress().bar("dedup"):
        # In the stable mode a person's equal texts are kept once, each surviving record as it
        # was: that is what is wanted here, so all records are one person's.
        outcome = settle(Held(rows), rules, unit="person", key=b"")
        kept = [{"id": d["id"], "text": d["text"]} for d in outcome.staying()]
    found = outcome.counts()
    counts = Counter({f"removed: {why}": number for why, number in found.pop("removed").items()})
    counts.update({name: number for name, number in found.items() if name != "cross_split_pairs"})
    counts.update(f"dropped: {item.reason}" for item in dropped)
    left_out = [item.as_dict() for item in dropped]
    beside = {"dropped": left_out, **outcome.beside()}
    output.write("deduplicated", kept, removed=outcome.going(), **beside)
    return Done(output.path, len(kept), dict(counts))
