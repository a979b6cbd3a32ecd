"""`TokenStore`: a corpus as token ids, sealed, found by document and by unit."""

import copy
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dpmlm.errors import IntegrityError, UserError
from dpmlm.tokens.encoder import Encoder
from dpmlm.tokens.shard import TokenShard, pack
from dpmlm.tokens.tokenizer import (
    TOKENIZER_FILE,
    load_sealed_tokenizer,
    save_tokenizer,
    tokenizer_digest,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from dpmlm.artifacts import SealedFolder

NamesOf = Callable[[str], Sequence[tuple[int, int]]]
"""Where the names of a text stand."""
PER_SHARD = 2000
"""Documents in a full shard unless the caller says otherwise."""
_PREFIX = "tokens-"


class TokenStore:
    """The documents of a finished tokens folder, numbered in the order they were given.

    The ids stay in memory, two or four bytes a token: a Poisson sample touches all shards.
    """

    def __init__(self, folder: "SealedFolder", shards: Iterable[TokenShard]) -> None:
        """Use `open`."""
        self._folder = folder
        self._shards = list(shards)
        self._place = [(s, i) for s, shard in enumerate(self._shards) for i in range(len(shard))]
        self._documents: dict[str, list[int]] = defaultdict(list)
        self._split: dict[str, str] = {}
        for number, (s, i) in enumerate(self._place):
            unit, split = self._shards[s].units[i], self._shards[s].splits[i]
            self._documents[unit].append(number)
            self._split[unit] = split
        self._tokenizer: PreTrainedTokenizerFast | None = None

    @staticmethod
    def build(
        folder: "SealedFolder",
        documents: Iterable[Mapping[str, Any]],
        tokenizer: "PreTrainedTokenizerBase",
        *,
        per_shard: int = PER_SHARD,
        progress: Callable[[int, int], None] | None = None,
        names: NamesOf | None = None,
    ) -> dict[str, Any]:
        """Encode stage documents ("id", "text", "unit", "split", "record" if there is one) into
        sealed shards.

        Returns what belongs into the folder's manifest, which is the caller's to `finish`: the
        tokenizer's digest and vocabulary size (public), and private counts of documents, empty
        documents, tokens, unknown tokens, and the rate of these. The tokenizer is saved beside the
        shards. `progress` is told (done, done) after each shard. With `names`, which finds the
        characters [start, end) of each name in a text, the tokens of names are marked.

        Resumable: repeat the call with the same documents, and shards that are there already are
        kept; those of other ids, units, splits, records or another tokenizer are written again. As
        they are encoded, texts are not compared: empty the folder before documents of the same ids
        that say something else.
        Special tokens are neither added nor read from the text.

        Raises UserError when a unit stands in two splits, when there is no document, or when the
        tokenizer is not a fast one.
        """
        digest = _keep_tokenizer(folder, tokenizer)
        encoder = Encoder(tokenizer)
        counts = {"documents": 0, "empty_documents": 0, "tokens": 0, "unknown_tokens": 0}
        split_of_unit: dict[str, str] = {}
        number = 0
        for number, part in enumerate(_parts(documents, per_shard), start=1):
            _check_splits(part, split_of_unit)
            shard = _shard(folder, f"{_PREFIX}{number - 1:05d}", part, encoder, digest, names)
            counts["documents"] += len(shard)
            counts["empty_documents"] += int((shard.offsets[1:] == shard.offsets[:-1]).sum())
            counts["tokens"] += len(shard.tokens)
            counts["unknown_tokens"] += shard.unknown
            if progress is not None:
                progress(counts["documents"], counts["documents"])
        if number == 0:
            raise UserError(
                "no documents",
                "a token store holds at least one",
                "look at what the earlier stages dropped",
            )
        for name in folder.names(_PREFIX)[number:]:
            folder.remove(name)
        rate = counts["unknown_tokens"] / max(1, counts["tokens"])
        facts = {"tokenizer": digest, "vocab_size": len(tokenizer)}
        return {**facts, **counts, "unknown_rate": rate}

    @classmethod
    def open(cls, folder: "SealedFolder") -> "TokenStore":
        """Read every shard of a finished folder.

        Raises UserError when the folder is unfinished or holds no tokens, IntegrityError when a
        shard is broken or was made by another tokenizer than the first.
        """
        names = folder.names(_PREFIX)
        if folder.manifest is None or not names or not folder.has(TOKENIZER_FILE):
            raise UserError(
                f"token folder {folder.path}",
                "it is unfinished, or holds no tokens",
                "run the tokens stage to its end",
            )
        shards = [TokenShard.from_bytes(folder.read_bytes(name), name=name) for name in names]
        for name, shard in zip(names, shards, strict=True):
            if shard.tokenizer != shards[0].tokenizer:
                raise IntegrityError(
                    f"token shard {name}",
                    "another tokenizer made it than the shards before it",
                    "run the tokens stage again",
                )
        return cls(folder, shards)

    def __len__(self) -> int:
        """How many documents there are; private."""
        return sum(map(len, self._documents.values()))

    def without(self, ids: Container[str]) -> "TokenStore":
        """The same store but for some documents, and units that have no others."""
        found = copy.copy(self)
        kept = {
            unit: [number for number in numbers if self.id(number) not in ids]
            for unit, numbers in self._documents.items()
        }
        found._documents = defaultdict(list, {unit: some for unit, some in kept.items() if some})
        found._split = {unit: self._split[unit] for unit in found._documents}
        return found

    def units(self, split: str) -> list[str]:
        """The units of "train" or "validation", sorted: an order no document has a part in."""
        return sorted(unit for unit, where in self._split.items() if where == split)

    def documents_of(self, unit: str) -> list[int]:
        """Numbers of a unit's documents, ascending; raises KeyError for an unknown unit."""
        if unit not in self._split:
            raise KeyError(unit)
        return list(self._documents[unit])

    def tokens(self, i: int) -> np.ndarray:
        """Content token ids of document i, uint16 or uint32 [N], a read-only view; N may be 0."""
        s, row = self._place[i]
        return self._shards[s].document(row)

    def names(self, i: int) -> np.ndarray | None:
        """Of each token of document i: 1 where a name begins, 2 inside of one, 0 elsewhere, uint8
        [N]; None where names were not looked for."""
        s, row = self._place[i]
        return self._shards[s].names_of(row)

    def id(self, i: int) -> str:
        """Stable id of document i."""
        s, row = self._place[i]
        return self._shards[s].ids[row]

    def unit(self, i: int) -> str:
        """Unit of document i."""
        s, row = self._place[i]
        return self._shards[s].units[row]

    @property
    def tokenizer(self) -> "PreTrainedTokenizerFast":
        """The tokenizer that made the ids, from the folder.

        Raises IntegrityError when its digest is not the one the shards name.
        """
        if self._tokenizer is None:
            tokenizer = load_sealed_tokenizer(self._folder)
            if tokenizer_digest(tokenizer) != self.tokenizer_digest:
                raise IntegrityError(
                    f"tokenizer in {self._folder.path}",
                    "it is not the one that made the tokens",
                    "run the tokens stage again",
                )
            self._tokenizer = tokenizer
        return self._tokenizer

    @property
    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer that made the ids."""
        return self._shards[0].tokenizer


def _keep_tokenizer(folder: "SealedFolder", tokenizer: "PreTrainedTokenizerBase") -> str:
    """Save the tokenizer unless an equal one is there; returns its digest."""
    digest = tokenizer_digest(tokenizer)
    there = folder.has(TOKENIZER_FILE)
    if not there or tokenizer_digest(load_sealed_tokenizer(folder)) != digest:
        save_tokenizer(folder, tokenizer)
    return digest


def _parts(
    documents: Iterable[Mapping[str, Any]], per_shard: int
) -> Iterator[list[Mapping[str, Any]]]:
    stream = iter(documents)
    while part := list(islice(stream, per_shard)):
        yield part


def _check_splits(part: list[Mapping[str, Any]], split_of_unit: dict[str, str]) -> None:
    for document in part:
        if split_of_unit.setdefault(document["unit"], document["split"]) != document["split"]:
            raise UserError(
                "a unit with documents in two splits",
                "all documents of a unit are in one split",
                "split by unit: dpmlm.corpus.split_of(unit, ...)",
            )


def _shard(
    folder: "SealedFolder",
    name: str,
    part: list[Mapping[str, Any]],
    encoder: Encoder,
    digest: str,
    names: NamesOf | None,
) -> TokenShard:
    """The shard of `part`: the one an interrupted build left, if it is of these documents."""
    ids, units, splits = (tuple(d[field] for d in part) for field in ("id", "unit", "split"))
    records = tuple(document.get("record", "") for document in part)
    if folder.has(name):
        kept = TokenShard.from_bytes(folder.read_bytes(name), name=name)
        found = kept.ids, kept.units, kept.splits, kept.records, kept.tokenizer
        same = found == (ids, units, splits, records, digest)
        if same and (kept.names is None) == (names is None):
            return kept
    texts = [document["text"] for document in part]
    marks = None
    if names is None:
        encoded = encoder.encode(texts)
    else:
        both = encoder.marked(texts, [names(text) for text in texts])
        encoded, marks = [row for row, _ in both], [mark for _, mark in both]
    shard = pack(
        ids,
        units,
        splits,
        encoded,
        tokenizer=digest,
        unknown_id=encoder.unknown_id,
        names=marks,
        records=records,
    )
    folder.write_bytes(name, shard.to_bytes())
    return shard
