"""`dpmlm runs quarantine`: keep a source out of later runs, let it in, say what is in force."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dpmlm.artifacts import load_signing_key
from dpmlm.config import RunConfig
from dpmlm.corpus import Document, Dropped, corpus_files, read_corpus
from dpmlm.errors import UserError, visible
from dpmlm.pipeline.quarantine import LeftOut, Rows, bytes_of, declared, name_of, rows_of
from dpmlm.pipeline.tombstones import Tombstones, check_ticket, opened
from dpmlm.privacy import Ledger

_ROWS = re.compile("([0-9]{1,15})-([0-9]{1,15})")
NOT_REACHED = (
    "models that were trained with it, released or not: `dpmlm runs postmortem` names them",
    "a file that was changed and renamed: it is another one, and is read",
    "the same text in other files, and rows given to `dpmlm.Trainer`, which come from no file",
)
"""What a quarantine does not do, a line each."""


@dataclass(frozen=True)
class Quarantined:
    """What `dpmlm runs quarantine` did, or what `--list` found. Names of files are private."""

    file: str
    """The tombstone file."""
    lines: list[dict[str, Any]]
    """In force: `line`, `source` (null where no file here is it), `rows`, `reason`, `basis`,
    `time`."""
    changed: bool | None
    """Whether a line was written; None where nothing was asked for."""
    head: str
    documents: int | None = field(default=None, repr=False)
    """Rows of the corpus that were named. Private: for a terminal alone."""

    def to_json(self) -> dict[str, Any]:
        return {
            "label": "private",
            "file": self.file,
            "in_force": self.lines,
            "changed": self.changed,
            "head": self.head,
            "not_reached": list(NOT_REACHED),
        }

    def text(self) -> str:
        rows = [f"{self.file}: {len(self.lines)} lines in force", f"head   {self.head}"]
        for line in self.lines:
            part = "" if line["rows"] is None else " rows {}-{}".format(*line["rows"])
            name = "a file that is not in this corpus" if line["source"] is None else line["source"]
            rows.append(
                f"  {line['line']}. {visible(name)}{part}: {line['reason']}, {line['basis']} "
                f"grounds, {line['time']}"
            )
        if self.changed is None:
            return "\n".join(rows)
        if self.documents is not None:
            rows.append(f"rows of the corpus that it names (private): {self.documents}")
        rows.append("written" if self.changed else "it stood so already; nothing was written")
        if any(line["basis"] == "private" for line in self.lines):
            rows.append(
                "on private grounds: the ledger holds an uncharged choice, and rule ledger.choices "
                "fails for every run on this corpus unless it is waived"
            )
        rows += ["this does not reach:", *(f"  - {line}" for line in NOT_REACHED)]
        return "\n".join(rows)


def quarantine(
    config: RunConfig,
    source: str,
    reason: str,
    basis: str,
    *,
    rows: Rows | None = None,
    lift: bool = False,
) -> Quarantined:
    """Keep a source of the run file's corpus out of every later run on its ledger, or let it in.

    The same again is no change; a lift takes away every line in force about the source, or those
    about the `rows`. Raises UserError for a reason that is no ticket number, a source that is not
    in the corpus (or, for a lift, in no line), and rows that are not in it.
    """
    check_ticket(reason)
    if basis not in ("public", "private"):
        raise UserError(
            f"--basis {basis}",
            "it is `public` where nothing computed from private text led to it, else `private`",
            "say which",
        )
    ledger, stones = opened(config)
    if ledger.key_id is not None:
        ledger.sign_with(load_signing_key(config.keys.signing))
    why = {"reason": reason, "basis": basis}
    if lift:
        count, changed = None, _lift(config, stones, source, rows, why)
    else:
        count = _count(config, source, rows)
        changed = _add(config, stones, source, rows, why)
    _note(ledger, stones)
    return _shown(config, stones, changed, count)


def parse_rows(text: str) -> Rows:
    """Rows from A-B; UserError for anything else."""
    found = _ROWS.fullmatch(text)
    if found is None:
        raise UserError(f"--rows {visible(text):.40}", "it is two numbers, A-B", "e.g. 120-480")
    return int(found[1]), int(found[2])


def quarantined(config: RunConfig) -> Quarantined:
    """What is in force."""
    return _shown(config, opened(config)[1], None)


def _add(
    config: RunConfig, stones: Tombstones, source: str, rows: Rows | None, why: Mapping[str, str]
) -> bool:
    file = {name: path for path, name in corpus_files(config.corpus.path)}[source]
    line = {
        "source": name_of(stones, source),
        "file": bytes_of(stones, file),
        "rows": rows and [*rows],
    }

    def known() -> bool:
        return any(
            all(old[name] == line[name] for name in line) for old in stones.quarantines.values()
        )

    return stones.write("quarantine", {**line, **why}, known=known)


def _lift(
    config: RunConfig, stones: Tombstones, source: str, rows: Rows | None, why: Mapping[str, str]
) -> bool:
    """By the name that the lines know, or by the bytes of a file that has another one by now."""
    files = {name: path for path, name in corpus_files(config.corpus.path)}
    data = bytes_of(stones, files[source]) if source in files else None
    about = {
        number: rows_of(line)
        for number, line in stones.quarantines.items()
        if line["source"] == name_of(stones, source) or line["file"] == data
    }
    meant = [number for number, named in about.items() if rows is None or named == rows]
    if about and not meant:
        there = ", ".join("all" if r is None else f"{r[0]}-{r[1]}" for r in about.values())
        raise UserError(
            f"--rows {rows and f'{rows[0]}-{rows[1]}'}",
            f"no line in force is about just these rows; those about the file name rows {there}",
            "give the rows of one of them, or leave --rows out to lift them all",
        )
    if not meant and source not in files:
        raise UserError(
            f"--source {visible(source)}",
            "no file of the corpus has this name, and no line in force is about it",
            "`dpmlm runs quarantine RUN.yaml --list` says what is in force",
        )
    changed = False
    for number in meant:

        def lifted(line: int = number) -> bool:
            return line not in stones.quarantines

        changed |= stones.write("lift", {"of": number, **why}, known=lifted)
    return changed


def _count(config: RunConfig, source: str, rows: Rows | None) -> int:
    """Rows of the corpus that are named; UserError at none."""
    corpus = config.corpus
    if rows is not None and not 1 <= rows[0] <= rows[1]:
        raise UserError(
            f"--rows {rows[0]}-{rows[1]}", "rows are counted from 1, the first before the last",
            "for example --rows 120-480",
        )  # fmt: skip
    names = [name for _, name in corpus_files(corpus.path)]
    if source not in names:
        raise UserError(
            f"--source {visible(source)}",
            f"no file of {corpus.path} has this name",
            f"name one of its {len(names)} as `dpmlm runs shards --show-private` does",
        )
    here, count = LeftOut({source: [rows]}), 0
    for item in read_corpus(corpus.path, text=corpus.text, id=corpus.id, person=corpus.person):
        document: Document = item.document if isinstance(item, Dropped) else item
        count += here.holds(document.source, document.row)
    if not count:
        raise UserError(
            f"--source {visible(source)}", "no row of it is among the rows given", "check --rows"
        )
    return count


def _note(ledger: Ledger, stones: Tombstones) -> None:
    """In the ledger, also where nothing was written: a kill may have come between the two."""
    while declared(ledger) < stones.private_lines:
        ledger.choose([], label="private")
    ledger.note_tombstones(stones.record["lines"], stones.record["head"])


def _shown(
    config: RunConfig, stones: Tombstones, changed: bool | None, count: int | None = None
) -> Quarantined:
    names: dict[str, str] = {}
    for file, source in corpus_files(config.corpus.path):
        names[name_of(stones, source)] = source
        if stones.quarantines:
            names[bytes_of(stones, file)] = source
    lines = [
        {
            "line": line["number"],
            "source": names.get(line["file"], names.get(line["source"])),
            **{name: line[name] for name in ("rows", "reason", "basis", "time")},
        }
        for line in stones.quarantines.values()
    ]
    record = stones.record
    head = f"{record['lines']}:{record['head']}"
    return Quarantined(str(stones.path), lines, changed, head, count)
