"""Scrubbing on files of one's own: scrub one, measure recall on one, draw a sample from one."""

import random
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpmlm.artifacts import load_secret_key
from dpmlm.errors import UserError
from dpmlm.pipeline.outputs import Done, Output, read_documents
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.wording import misses_text, recall_text
from dpmlm.scrub import RecallReport, Scrubber, load_policy, measure_recall
from dpmlm.scrub.gold import annotation_of, read_gold
from dpmlm.scrub.scrubber import cores


def scrub_file(
    source: Path,
    output: Output,
    *,
    policy: str,
    pseudonym_key: Path | None,
    text: str,
    person: str | None = None,
    processes: int | None,
    identity: Path | None = None,
) -> Done:
    """Scrub a corpus file or folder, or a sealed one that `identity` opens, into `output`.

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
    documents, dropped = read_documents(source, text, person, identity=identity)
    counts.update(f"dropped: {item.reason}" for item in dropped)
    kept: list[dict[str, Any]] = []
    emptied: list[dict[str, Any]] = []
    with Scrubber(rules, pseudonym_key=key) as scrubber, Progress().bar("scrub") as report:
        results = scrubber.scrub_many(
            [d.text for d in documents],
            persons=[d.person for d in documents],
            processes=processes or cores(),
        )
        pairs = zip(documents, results, strict=True)
        for done, (document, scrubbed) in enumerate(pairs, start=1):
            target = kept if scrubbed.text.strip() else emptied
            target.append({"id": document.id, "text": scrubbed.text})
            counts.update(decision.entity for decision in scrubbed.decisions)
            spans = [asdict(decision) for decision in scrubbed.decisions]
            decisions.append({"id": document.id, "spans": spans})
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


def measure(gold: Path, policy: str) -> "Measured":
    """Recall and precision of a policy on a file of gold spans."""
    rows = read_gold(gold)
    with (
        Scrubber(load_policy(policy), pseudonym_key=bytes(32)) as scrubber,
        Progress().bar("scrub") as report,
    ):
        measured = measure_recall(scrubber, rows, processes=cores(), progress=report)
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
    source: Path,
    output: Path,
    *,
    count: int,
    policy: str,
    text: str,
    prefill: bool = False,
    identity: Path | None = None,
) -> Done:
    """Draw `count` documents and write them as gold rows for a person to mark.

    Their spans are null until somebody has read them: what a scrubber found catches the eye, and
    what it missed is then missed by the reader as well. With `prefill` they hold what the policy
    finds, and say so. Documents are drawn by the operating system's randomness, each text as
    likely as any other. The file is in clear, for its owner alone to read.
    """
    if output.exists():
        raise UserError(f"output {output}", "it is there already", "name a new one")
    documents, _ = read_documents(source, text, identity=identity)
    texts = list({document.text: document for document in documents}.values())
    drawn = random.SystemRandom().sample(texts, min(count, len(texts)))
    rows: list[dict[str, Any]] = [
        {"id": document.id, "prefilled": prefill, "text": document.text, "spans": None}
        for document in drawn
    ]
    counts: Counter[str] = Counter()
    if prefill:
        with Scrubber(load_policy(policy), pseudonym_key=bytes(32)) as scrubber:
            results = scrubber.scrub_many([d.text for d in drawn], processes=cores())
            for row, scrubbed in zip(rows, results, strict=True):
                found = scrubbed.decisions
                row["spans"] = [{"start": d.start, "end": d.end, "type": d.entity} for d in found]
                counts.update(decision.entity for decision in found)
    Output(output, [], plaintext=True).write("sample", rows)
    return Done(output, len(rows), dict(counts))
