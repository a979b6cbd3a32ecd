"""Shards that hold something else than text, found before anything is spent on them.

Two shares are computed of each shard of the corpus: of characters that only broken files and wrong
decoding leave, in the text as it was read, and of unknown tokens, in the text as it is trained on.
Both are private and sealed. The answer stops a run while its budget is not reserved, never later:
an end that depends on the text, once steps are drawn, would be a release of its own.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

from dpmlm.artifacts import SealedFolder
from dpmlm.corpus import read_shard, shard_name
from dpmlm.corpus.soundness import broken_characters
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.tokens import TokenStore

FILE = "soundness"
"""Sealed JSON in the folder of the plan."""


@dataclass(frozen=True)
class ShardSoundness:
    """Private figures of one shard."""

    shard: str
    rows: str
    """Where its documents stand in what was read."""
    documents: int
    characters: int
    broken: int
    """Characters that are no text."""
    tokens: int = 0
    """After scrubbing and deduplication."""
    unknown: int = 0

    @property
    def broken_share(self) -> float:
        return self.broken / max(1, self.characters)

    @property
    def unknown_share(self) -> float:
        return self.unknown / max(1, self.tokens)


def refuse_spoiled(run: Run, folder: SealedFolder) -> None:
    """Leave the figures of every shard in `folder`, sealed.

    Raises UserError with the name and the rows of the first shard that is above a limit of the run
    file; by how much it does not say.
    """
    found = list(shards_of(run))
    rows = [asdict(one) for one in found]
    folder.write_json(FILE, {"label": "private", "shards": rows})
    limits = run.config.corpus.broken_characters, run.config.tokens.unknown_tokens
    for one in found:
        if one.broken_share > limits[0]:
            raise _spoiled(
                run, one, f"more than {limits[0]:g} of its characters are no text: it was cut, or "
                "read in another encoding than it was written in", "corpus.broken_characters",
            )  # fmt: skip
        if one.unknown_share > limits[1]:
            raise _spoiled(
                run, one, f"more than {limits[1]:g} of its tokens are not in the vocabulary: it is "
                "in another language, or no text", "tokens.unknown_tokens",
            )  # fmt: skip


def shards_of(run: Run) -> Iterator[ShardSoundness]:
    """Every shard of the corpus stage, in order."""
    tokens, unknown = _tokens_by_document(run)
    corpus = run.folder("corpus")
    for number in count():
        if not corpus.has(shard_name("documents", number)):
            return
        documents = read_shard(corpus, number)
        yield ShardSoundness(
            shard=shard_name("documents", number),
            rows=_rows(documents),
            documents=len(documents),
            characters=sum(len(document["text"]) for document in documents),
            broken=sum(broken_characters(document["text"]) for document in documents),
            tokens=sum(tokens[document["id"]] for document in documents),
            unknown=sum(unknown[document["id"]] for document in documents),
        )


def _tokens_by_document(run: Run) -> tuple[Counter[str], Counter[str]]:
    """Tokens and unknown ones by the id of their document."""
    store = TokenStore.open(run.folder("tokens"))
    entry = store.tokenizer.unk_token_id
    tokens: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for number in range(len(store)):
        ids, name = store.tokens(number), store.id(number)
        tokens[name] += len(ids)
        unknown[name] += 0 if entry is None else int((ids == entry).sum())
    return tokens, unknown


def _rows(documents: list[dict[str, Any]]) -> str:
    first, last = documents[0], documents[-1]
    ends = [f"{one['source']} row {one['row']}" for one in (first, last)]
    return f"{ends[0]} to {ends[1]}"


def _spoiled(run: Run, one: ShardSoundness, rule: str, field: str) -> UserError:
    return UserError(
        f"shard {one.shard} of the corpus ({one.rows})",
        rule,
        f"mend or leave out these rows and begin in a new workspace; if they are meant to be so, "
        f"raise {field}. Nothing is charged yet",
    )
