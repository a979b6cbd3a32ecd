"""Which source files the documents that are trained on came from. Private, names among it."""

import hashlib
from collections import defaultdict
from collections.abc import Collection

from dpmlm.artifacts import SealedFolder
from dpmlm.corpus import read_shards
from dpmlm.errors import UserError, visible
from dpmlm.pipeline.context import Run


def sources_of(corpus: SealedFolder) -> dict[str, str]:
    """Each source of a corpus stage with a digest of its texts, whatever their order."""
    texts: dict[str, list[bytes]] = defaultdict(list)
    for document in read_shards(corpus):
        if "source" in document:
            data = document["text"].encode("utf-8", "surrogatepass")
            texts[document["source"]].append(hashlib.sha256(data).digest())
    return {name: hashlib.sha256(b"".join(sorted(own))).hexdigest() for name, own in texts.items()}


def origins_of(run: Run) -> dict[str, set[str]]:
    """Sources of each document by its id after deduplication, those of copies of it among them.

    A document that comes from no file, such as a planted canary, has none.
    """
    came_from = {one["id"]: one.get("source") for one in read_shards(run.folder("corpus"))}
    dedup = run.folder("dedup")
    renamed: dict[str, str] = dedup.read_json("renamed")
    found: dict[str, set[str]] = defaultdict(set)

    def note(target: str, original: str) -> None:
        source = came_from.get(original)
        if source:
            found[target].add(source)

    for original in came_from:
        note(renamed.get(original, original), original)
    for one in read_shards(dedup, prefix="removed"):
        removal = one["removal"]
        note(removal["survivor"], removal["id"])
    return dict(found)


def standing_alone(run: Run, sources: Collection[str]) -> set[str]:
    """Ids of documents whose text stands in these sources and in no other.

    Raises UserError for a source that the corpus does not have.
    """
    known = origins_of(run)
    every = {source for of in known.values() for source in of}
    for source in sources:
        if source not in every:
            raise UserError(
                f"source {visible(source)}",
                "no document that came so far is of a file with this name",
                "name one as `dpmlm runs shards --show-private` does",
            )
    left_out = set(sources)
    return {id for id, of in known.items() if of <= left_out}
