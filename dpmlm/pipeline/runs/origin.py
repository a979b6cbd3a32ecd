"""Where a text came from, and whether its source still holds it: `dpmlm runs origin`.

Each document carries a keyed digest of its text as the source held it, beside source, row and id.
Source files are read again and held to these digests, so that the pseudonym key of the run file is
needed, and the key that opens the workspace. Everything found is private; no text and no id is
among it.
"""

import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dpmlm.artifacts import SealedFolder, load_identity, load_secret_key
from dpmlm.config import RunConfig
from dpmlm.corpus import Document, read_corpus, read_shards, record_of
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.pipeline.context import data_order
from dpmlm.pipeline.data import PERSONS
from dpmlm.pipeline.planted import NAMES
from dpmlm.pipeline.secrets import RunSecrets, key_check
from dpmlm.pipeline.tombstones import tombstones_of
from dpmlm.pipeline.workspace import Workspace, deciding_settings
from dpmlm.tokens.shard import TokenShard

Row = tuple[str, int]
"""Source and row of a record."""


@dataclass(frozen=True)
class Place:
    """A record that was read. Private, every field."""

    source: str
    row: int
    state: str
    """Of its row today: unchanged, moved (its text stands in another row), changed or gone."""
    stages: list[str]
    """Finished stages that hold it."""
    split: str | None
    """train or validation where it is among the tokens."""

    def text(self) -> str:
        among = f", {self.split}" if self.split else ""
        return (
            f"{self.source} row {self.row}: {self.state}; reached {', '.join(self.stages)}{among}"
        )


@dataclass(frozen=True)
class Origin:
    """Where a text came from. Private as a whole."""

    places: list[Place]
    SCHEMA: ClassVar[str] = "dpmlm.origin/1"

    @property
    def held(self) -> bool:
        """Whether each of its rows says today what was read."""
        return all(place.state == "unchanged" for place in self.places)

    def to_json(self) -> dict[str, Any]:
        return {"label": "private", "places": [vars(place) for place in self.places]}

    def text(self) -> str:
        if not self.places:
            return "no document of this run says that, as it was read or as a stage left it"
        return "\n".join(place.text() for place in self.places)


@dataclass(frozen=True)
class Sources:
    """What source files hold today of what was read. Private, every count."""

    SCHEMA: ClassVar[str] = "dpmlm.sources/1"
    by_source: dict[str, Counter[str]]
    """File to how many of its rows are unchanged, moved, changed, gone, or added since."""
    tokens: Counter[str] | None
    """Documents among the tokens: traced to a record, without a digest (planted, or in a set of
    texts), or astray, with a digest that no record has; None before there are tokens."""

    @property
    def held(self) -> bool:
        """Whether the files hold what was read and nothing else, and no document is astray."""
        astray = self.tokens is not None and self.tokens["astray"]
        files = self.by_source.values()
        return not astray and all(set(counts) == {"unchanged"} for counts in files)

    def to_json(self) -> dict[str, Any]:
        tokens = None if self.tokens is None else dict(self.tokens)
        files = {name: dict(counts) for name, counts in self.by_source.items()}
        return {"label": "private", "held": self.held, "sources": files, "tokens": tokens}

    def text(self) -> str:
        lines = [f"{name}: {_said(counts)}" for name, counts in self.by_source.items()]
        if self.tokens is not None:
            lines.append(f"documents among the tokens: {_said(self.tokens)}")
        return "\n".join(lines)


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))


def read_text(file: str) -> str:
    """The text in a file, on standard input for "-"; raises UserError, with none of it, for text
    that is blank or no UTF-8."""
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""  # not from within: that exception holds the bytes
    if text.strip():
        return text
    raise UserError(
        f"--text-file {file}", "it is blank, or not UTF-8", "give the text as a stage holds it"
    )


def origin(config: RunConfig, text: str, *, identity: Path | None = None) -> Origin:
    """The records that a text came from: as they were read, or as a data stage left them.

    A line end behind the text makes no difference. Raises UserError where the workspace cannot be
    looked into, or was made before records had digests.
    """
    records = _Records(config, identity)
    spelled = {text, text.removesuffix("\n"), text.removesuffix("\r\n")}
    says = {one["id"] for _, one in records.documents() if one["text"] in spelled}
    says |= {before for before, after in records.renamed.items() if after in says}
    rows = {row: name for row, (name, _) in records.rows.items() if name in says}
    if not rows:
        return Origin([])
    reached: dict[str, list[str]] = {name: [] for name in says}
    for stage, one in records.documents():
        if one["id"] in reached:
            reached[one["id"]].append(stage)
    splits = {name: split for name, split, _ in records.tokens() or ()}
    states, _ = _compared(records)

    def place(row: Row, name: str) -> Place:
        after = records.renamed.get(name, name)
        stages = [*reached[name], *(reached.get(after, []) if after != name else [])]
        split = splits.get(after)
        return Place(*row, states[row], [*stages, *(["tokens"] if split else [])], split)

    return Origin([place(row, name) for row, name in sorted(rows.items())])


def sources(config: RunConfig, *, identity: Path | None = None) -> Sources:
    """Hold every source file to what was read of it, and the tokens to the records.

    Rows of persons who were forgotten since are not among those added. Raises UserError as
    `origin` does, and for a corpus that cannot be read.
    """
    records = _Records(config, identity)
    states, added = _compared(records)
    by_source: dict[str, Counter[str]] = {}
    for (source, _), state in states.items():
        by_source.setdefault(source, Counter())[state] += 1
    for source, count in added.items():
        by_source.setdefault(source, Counter())["added"] += count
    known = {record for _, record in records.rows.values()}
    tokens = records.tokens()
    traced = None if tokens is None else Counter(_traced(record, known) for *_, record in tokens)
    return Sources(dict(sorted(by_source.items())), traced)


def _traced(record: str, known: Collection[str]) -> str:
    if not record:
        return "without a digest"
    return "traced" if record in known else "astray"


class _Records:
    """What the data stages of one workspace hold, by source and row."""

    def __init__(self, config: RunConfig, identity: Path | None) -> None:
        self._opener = load_identity(identity or config.keys.identity)
        self.secrets = RunSecrets.derive(load_secret_key(config.keys.scrub), config.seed)
        self.config, self._workspace = config, Workspace(config.workspace)
        there = self._workspace.check(config.name, deciding_settings(config))
        if not there or not SealedFolder.is_at(self._workspace.stage("corpus")):
            raise _refused(config, "nothing was read yet", "run the corpus stage first")
        corpus = self._folder("corpus")
        if corpus is None or not corpus.has(PERSONS):
            raise _refused(config, "its corpus is not read to its end", "run it again")
        if corpus.read_json(PERSONS)["persons"] != key_check(self.secrets.unit_key):
            raise UserError(
                f"keys.scrub {config.keys.scrub}",
                f"the records of {self._workspace.path} were read under another pseudonym key",
                "give the key that the run was made with",
            )
        self.rows: dict[Row, tuple[str, str]] = {}
        """Source and row of each record, with its id and its digest."""
        for one in read_shards(corpus):
            if one["id"].startswith(NAMES) and not one["source"]:
                continue  # planted canaries are of no source
            if "record" not in one:
                rule = "it was made before records had digests"
                raise _refused(config, rule, "run it again in a new workspace")
            self.rows[one["source"], one["row"]] = one["id"], one["record"]
        dedup = self._folder("dedup")
        self.renamed: dict[str, str] = {} if dedup is None else dedup.read_json("renamed")

    def _folder(self, stage: str) -> SealedFolder | None:
        """A finished stage."""
        path = self._workspace.stage(stage)
        folder = SealedFolder.open(path, [self._opener]) if SealedFolder.is_at(path) else None
        return folder if folder is not None and folder.manifest is not None else None

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Of each finished stage that holds text, in the order of the run."""
        for stage in data_order(self.config)[:-1]:
            if (folder := self._folder(stage)) is None:
                return
            for document in read_shards(folder):
                yield stage, document

    def tokens(self) -> list[tuple[str, str, str]] | None:
        """Id, split and digest ("" without one) of each document among the tokens."""
        if (folder := self._folder("tokens")) is None:
            return None
        found: list[tuple[str, str, str]] = []
        for name in folder.names("tokens-"):
            shard = TokenShard.from_bytes(folder.read_bytes(name), name=name)
            records = shard.records or ("",) * len(shard)
            found += zip(shard.ids, shard.splits, records, strict=True)
        return found


def _compared(records: _Records) -> tuple[dict[Row, str], Counter[str]]:
    """What became of the row of each record, and how many rows each file has beside them.

    A text that stands in no row of a record is one that moved, as often as it stands there.
    """
    today = dict(_today(records))
    same = {row for row, (_, record) in records.rows.items() if today.get(row) == record}
    elsewhere = Counter(record for row, record in today.items() if row not in same)
    states: dict[Row, str] = {}
    for row, (_, record) in records.rows.items():
        if row in same:
            states[row] = "unchanged"
        elif elsewhere[record]:
            elsewhere[record] -= 1
            states[row] = "moved"
        else:
            states[row] = "changed" if row in today else "gone"
    moved = Counter(record for row, (_, record) in records.rows.items() if states[row] == "moved")
    added: Counter[str] = Counter()
    for row, record in today.items():
        if row in same:
            continue
        if moved[record]:
            moved[record] -= 1
        elif states.get(row) != "changed":
            added[row[0]] += 1
    return states, added


def _today(records: _Records) -> Iterator[tuple[Row, str]]:
    """Source, row and digest of each text of the corpus as it is now."""
    config, secrets = records.config, records.secrets
    kept_out = None
    if config.ledger.path.is_file():
        kept_out = tombstones_of(open_ledger(config.ledger), secrets)
    named = config.corpus
    for one in read_corpus(named.path, text=named.text, id=named.id, person=named.person):
        if isinstance(one, Document):
            row = one.source, one.row
            if row in records.rows or kept_out is None or not kept_out.name(one.person):
                yield row, record_of(one.text, secrets.unit_key)


def _refused(config: RunConfig, rule: str, step: str) -> UserError:
    return UserError(f"workspace {config.workspace}", rule, step)
