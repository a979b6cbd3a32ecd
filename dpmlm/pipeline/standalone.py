"""Single stages on a file of one's own: scrub it, deduplicate it, measure recall."""

import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SealedFolder, atomic_write, load_recipient, load_secret_key
from dpmlm.config import DedupConfig
from dpmlm.corpus import Document, Dropped, read_corpus, write_shards
from dpmlm.dedup import Held
from dpmlm.errors import UserError
from dpmlm.pipeline.duplicates import settle
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.wording import misses_text, recall_text
from dpmlm.scrub import RecallReport, Scrubber, load_policy, measure_recall
from dpmlm.scrub.gold import annotation_of, read_gold

TRAINER = Path("keys/trainer.pub")
"""Whom output is sealed to where nobody is named, relative to the current folder."""


@dataclass(frozen=True)
class Output:
    """Where a stage's text goes: sealed to public keys, or explicitly in clear."""

    path: Path
    to: Sequence[Path]
    plaintext: bool

    @property
    def keys(self) -> Sequence[Path]:
        """Who may open it: those asked for, else the trainer whose keys lie in this folder."""
        if self.to or self.plaintext:
            return self.to
        return [TRAINER] if TRAINER.is_file() else []

    def check(self) -> None:
        """Refuse before any work is done."""
        if bool(self.keys) == self.plaintext:
            raise UserError(
                f"output {self.path}",
                "text at rest is sealed unless you ask for clear",
                f"make {TRAINER} with dpmlm keys new, give --to PUBLIC_KEY, or --plaintext",
            )
        if self.path.exists():
            raise UserError(f"output {self.path}", "it is there already", "name a new one")
        for key in self.keys:
            load_recipient(key)

    def write(
        self,
        role: str,
        documents: Iterable[Mapping[str, Any]],
        *,
        removed: Iterable[Mapping[str, Any]] = (),
        **beside: Any,
    ) -> None:
        """The documents, those that were removed, and what else belongs to them (sealed output
        alone keeps that)."""
        if self.plaintext:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path, mode=0o600) as file:
                for document in documents:
                    file.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")
            return
        recipients = [load_recipient(key) for key in self.keys]
        folder = SealedFolder.create(self.path, recipients, role=role)
        write_shards(folder, documents)
        write_shards(folder, removed, prefix="removed")
        for name, value in beside.items():
            folder.write_json(name, value)
        folder.finish({"stage": role})


@dataclass(frozen=True)
class Done:
    """What a single stage did; the counts are private and shown to whoever ran it."""

    output: Path
    documents: int
    counts: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return {"output": str(self.output), "documents": self.documents, "counts": self.counts}

    def text(self) -> str:
        rows = [f"wrote {self.output}: {self.documents} documents"]
        rows += [f"  {name:<24}{count:>8}" for name, count in sorted(self.counts.items())]
        return "\n".join(rows)


def scrub_file(
    source: Path,
    output: Output,
    *,
    policy: str,
    pseudonym_key: Path | None,
    text: str,
    person: str | None = None,
    processes: int | None,
) -> Done:
    """Scrub a corpus file or folder into `output`.

    Rows without text, and texts of which scrubbing left nothing, are counted and sealed apart.
    """
    output.check()
    key = load_secret_key(pseudonym_key) if pseudonym_key else None
    rules = load_policy(policy)
    if rules.needs_key and key is None:
        raise UserError(
            f"scrub policy {rules.name} without --pseudonym-key",
            "its pseudonyms need a secret key",
            "make one with `dpmlm keys new FOLDER` and give --pseudonym-key FOLDER/pseudonym.key",
        )
    counts: Counter[str] = Counter()
    decisions: list[dict[str, Any]] = []
    documents, dropped = _read(source, text, person)
    counts.update(f"dropped: {item.reason}" for item in dropped)
    kept: list[dict[str, Any]] = []
    emptied: list[dict[str, Any]] = []
    with Scrubber(rules, pseudonym_key=key) as scrubber, Progress().bar("scrub") as report:
        results = scrubber.scrub_many(
            [d.text for d in documents],
            persons=[d.person for d in documents],
            processes=processes or os.cpu_count() or 1,
        )
        for done, (document, scrubbed) in enumerate(zip(documents, results, strict=True), start=1):
            target = kept if scrubbed.text.strip() else emptied
            target.append({"id": _place(document), "text": scrubbed.text})
            counts.update(decision.entity for decision in scrubbed.decisions)
            spans = [asdict(decision) for decision in scrubbed.decisions]
            decisions.append({"id": _place(document), "spans": spans})
            report(done, len(documents))
    if emptied:
        counts["emptied"] = len(emptied)
    output.write(
        "scrubbed",
        kept,
        decisions=decisions,
        dropped=[item.as_dict() for item in dropped],
        emptied=emptied,
    )
    return Done(output.path, len(kept), dict(counts))


def dedup_file(source: Path, output: Output, *, rules: DedupConfig, text: str) -> Done:
    """Deduplicate a corpus file or folder into `output`."""
    output.check()
    documents, dropped = _read(source, text)
    # Of equal rows the first one stays, in the order of files and rows: digits as many as it takes.
    digits = len(str(max((d.row for d in documents), default=0)))
    rows = [
        {"id": f"{d.source}:{d.row:0{digits}}", "text": d.text, "unit": "", "split": "train"}
        for d in documents
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


def _place(document: Document) -> str:
    """Names a document in the output: its own id is a hash of the text as it was before."""
    return f"{document.source}:{document.row}"


def _read(
    source: Path, text: str, person: str | None = None
) -> tuple[list[Document], list[Dropped]]:
    documents: list[Document] = []
    dropped: list[Dropped] = []
    for item in read_corpus(source, text=text, person=person):
        if isinstance(item, Dropped):
            dropped.append(item)
        else:
            documents.append(item)
    return documents, dropped


def measure(gold: Path, policy: str) -> "Measured":
    """Recall and precision of a policy on a file of gold spans."""
    rows = read_gold(gold)
    with (
        Scrubber(load_policy(policy), pseudonym_key=bytes(32)) as scrubber,
        Progress().bar("scrub") as report,
    ):
        measured = measure_recall(scrubber, rows, processes=os.cpu_count() or 1, progress=report)
    return Measured(measured, rows)


@dataclass(frozen=True)
class Measured:
    """Recall on a gold file, and the file's rows: private text."""

    report: RecallReport
    rows: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return {**self.report.to_json(), "annotation": annotation_of(self.rows)}

    def text(self) -> str:
        return recall_text(self.report, annotation_of(self.rows))

    def misses(self) -> str:
        return misses_text(self.report, self.rows)


def sample_file(
    source: Path, output: Path, *, count: int, policy: str, text: str, prefill: bool = False
) -> Done:
    """Draw `count` documents and write them as gold rows for a person to mark.

    Their spans are null until somebody has read them: what a scrubber found catches the eye, and
    what it missed is then missed by the reader as well. With `prefill` they hold what the policy
    finds, and say so. Documents are drawn by the operating system's randomness, each text as
    likely as any other. The file is in clear, for its owner alone to read.
    """
    if output.exists():
        raise UserError(f"output {output}", "it is there already", "name a new one")
    documents, _ = _read(source, text)
    texts = list({document.text: document for document in documents}.values())
    drawn = random.SystemRandom().sample(texts, min(count, len(texts)))
    rows: list[dict[str, Any]] = [
        {"id": _place(document), "prefilled": prefill, "text": document.text, "spans": None}
        for document in drawn
    ]
    counts: Counter[str] = Counter()
    if prefill:
        with Scrubber(load_policy(policy), pseudonym_key=bytes(32)) as scrubber:
            results = scrubber.scrub_many([d.text for d in drawn], processes=os.cpu_count() or 1)
            for row, scrubbed in zip(rows, results, strict=True):
                found = scrubbed.decisions
                row["spans"] = [{"start": d.start, "end": d.end, "type": d.entity} for d in found]
                counts.update(decision.entity for decision in found)
    Output(output, [], plaintext=True).write("sample", rows)
    return Done(output, len(rows), dict(counts))
