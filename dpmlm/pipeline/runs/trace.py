"""Following the documents of one person from stage to stage, by their ids.

Everything found is private; no name, no text and no id is among it.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from dpmlm.artifacts import Identity, SealedFolder
from dpmlm.config import RunConfig
from dpmlm.corpus import count_shards, pseudonym_of, read_shard, shard_name
from dpmlm.pipeline.context import data_order
from dpmlm.pipeline.workspace import Workspace
from dpmlm.tokens.shard import TokenShard


@dataclass
class Trace:
    """Where the documents of one person are in one workspace. Private, every figure."""

    files: dict[str, list[str]] = field(default_factory=dict)
    """Stage to its sealed files that hold text of theirs."""
    documents: int = 0
    """With text."""
    blank: int = 0
    """Rows without text."""
    unnamed: int = 0
    """Documents of the corpus that name nobody."""
    emptied: int = 0
    """Of which scrubbing or cut passages left nothing."""
    removed: int = 0
    """As duplicates."""
    kept_by_others: int = 0
    """Documents of others that stand for one of theirs, or keep a passage cut from one."""
    stands_for_others: int = 0
    """Removed documents of others for which one of theirs stands."""
    tokens: Counter[str] = field(default_factory=Counter)
    """Their documents among the tokens: train and validation."""
    copies: Counter[str] = field(default_factory=Counter)
    """The same of documents of others that keep what they said."""
    unfinished: str | None = None
    """The data stage that is under way, after which nothing is known."""

    def add(self, stage: str, name: str) -> None:
        """A file that holds text of theirs."""
        self.files.setdefault(stage, []).append(name)

    def to_json(self) -> dict[str, Any]:
        return {
            "label": "private",
            "documents": self.documents,
            "blank": self.blank,
            "unnamed": self.unnamed,
            "files": self.files,
            "emptied": self.emptied,
            "removed_as_duplicates": self.removed,
            "kept_by_others": self.kept_by_others,
            "stands_for_others": self.stands_for_others,
            "trained_on": self.tokens["train"],
            "held_out": self.tokens["validation"],
            "trained_on_through_copies": self.copies["train"],
            "held_out_through_copies": self.copies["validation"],
            "unfinished": self.unfinished,
        }


class Search:
    """Follows documents of a person through the data stages of one workspace."""

    def __init__(self, config: RunConfig, workspace: Workspace, identity: Identity) -> None:
        self._order = data_order(config)[1:]
        self._workspace, self._identity = workspace, identity
        self._own: set[str] = set()
        """Ids of their documents as the stage at hand has them."""
        self._copies: set[str] = set()
        """Ids of documents of others that keep what theirs said."""

    def trace(self, corpus: SealedFolder, pseudonym: str, key: bytes) -> Trace:
        """From the corpus stage as far as the run came."""
        trace = Trace()
        self._read(corpus, pseudonym, key, trace)
        if not self._own:
            return trace
        for stage in self._order:
            path = self._workspace.stage(stage)
            folder = SealedFolder.open(path, [self._identity]) if SealedFolder.is_at(path) else None
            if folder is None or folder.manifest is None:
                trace.unfinished = stage
                break
            if stage == "tokens":
                self._encoded(folder, trace)
            else:
                if stage == "dedup":
                    self._deduplicated(folder, trace)
                self._stay(folder, stage, trace)
        return trace

    def _read(self, folder: SealedFolder, pseudonym: str, key: bytes, trace: Trace) -> None:
        for number in range(count_shards(folder)):
            documents = read_shard(folder, number)
            # Planted canaries are nobody's, and have no such field.
            trace.unnamed += sum(document.get("person", "") is None for document in documents)
            own = [one["id"] for one in documents if one.get("person") == pseudonym]
            if own:
                trace.add("corpus", shard_name("documents", number))
            trace.documents += len(own)
            self._own.update(own)
        dropped = folder.read_json("dropped") if folder.has("dropped") else []
        named = (row["person"] for row in dropped if row["person"] is not None)
        trace.blank = sum(pseudonym_of(name, key) == pseudonym for name in named)
        if trace.blank:
            trace.add("corpus", "dropped")

    def _stay(self, folder: SealedFolder, stage: str, trace: Trace) -> None:
        """Of both sets, what is among the documents that the stage leaves."""
        there: set[str] = set()
        for number in range(count_shards(folder)):
            ids = {document["id"] for document in read_shard(folder, number)}
            if not self._own.isdisjoint(ids):
                trace.add(stage, shard_name("documents", number))
            there |= ids
        for name in folder.names("emptied"):
            gone = self._own & {document["id"] for document in folder.read_json(name)}
            if gone:
                trace.add(stage, name)
            trace.emptied += len(gone)
        self._own &= there
        self._copies &= there

    def _deduplicated(self, folder: SealedFolder, trace: Trace) -> None:
        """Follow new ids, and find who stands for what was removed or cut."""
        renamed: dict[str, str] = folder.read_json("renamed")
        own = {renamed.get(name, name) for name in self._own}
        stands: set[str] = set()
        gone: set[str] = set()
        for number in range(count_shards(folder, "removed")):
            removals = [one["removal"] for one in read_shard(folder, number, prefix="removed")]
            theirs = [one for one in removals if one["id"] in self._own]
            if theirs:
                trace.add("dedup", shard_name("removed", number))
            gone.update(one["id"] for one in theirs)
            stands.update(one["survivor"] for one in theirs)
            trace.stands_for_others += sum(
                one["survivor"] in own and one["id"] not in self._own for one in removals
            )
        trace.removed = len(gone)
        self._own = own - gone
        cuts: dict[str, list[dict[str, Any]]] = folder.read_json("cuts")
        for name in self._own | stands:
            stands.update(_flattened(cut["kept_in"] for cut in cuts.get(name, ())))
        self._copies = stands - self._own
        trace.kept_by_others = len(self._copies)

    def _encoded(self, folder: SealedFolder, trace: Trace) -> None:
        for name in folder.names("tokens-"):
            shard = TokenShard.from_bytes(folder.read_bytes(name), name=name)
            splits = dict(zip(shard.ids, shard.splits, strict=True))
            trace.tokens.update(_splits(self._own, splits))
            trace.copies.update(_splits(self._copies, splits))
            if not self._own.isdisjoint(splits):
                trace.add("tokens", name)


def _splits(ids: Collection[str], splits: dict[str, str]) -> Iterable[str]:
    return (splits[name] for name in ids if name in splits)


def _flattened(lists: Iterable[Iterable[str]]) -> Iterable[str]:
    return (item for each in lists for item in each)
