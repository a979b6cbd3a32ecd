"""The stage `evaluation`: a run's model before and after training, on its held-out documents.

What is asked is fixed by public constants (`EvaluationSpec`), not by what the run was trained with,
so that figures of two runs can be held side by side. All figures are private.
"""

import heapq
import hmac
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from dpmlm.artifacts import SealedFolder, load_model
from dpmlm.corpus import Document, Dropped, read_corpus, read_shards
from dpmlm.errors import UserError
from dpmlm.evaluation import (
    EvaluationSpec,
    Measurement,
    WordBuckets,
    beside,
    count_words,
    generalization,
    measure,
)
from dpmlm.masking import Example, TokenTable
from dpmlm.pipeline.base import initial_model
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import sample_public
from dpmlm.pipeline.earlier_text import forgotten
from dpmlm.pipeline.models import HELD_OUT, best_device, held_out_digest, planned
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.sources import standing_alone
from dpmlm.pipeline.stages import Stage
from dpmlm.release.facts import spelled
from dpmlm.tokens import Encoder, load_sealed_tokenizer

COUNTED = 5000
"""Documents of public text, from all over it, in which words are counted."""
BEFORE, AFTER = "before", "after"
FORGETTING = "forgetting"
"""File of the stage's folder, where the run file names text of an earlier domain."""


@dataclass(frozen=True)
class Asked:
    """Held-out documents as one tokenizer spells them."""

    table: TokenTable
    examples: Sequence[Example]
    buckets: WordBuckets | None
    """None where no public text is named."""
    tokenizer: Any


@dataclass(frozen=True)
class HeldOut:
    """Documents that models are asked about, as text: each model spells them its own way."""

    documents: Sequence[Document]
    units: Sequence[str]
    """Whose each of them is."""
    public: tuple[Path, str] | None
    """Public text to count words in, and its field; None where none is named."""
    groups: Mapping[str, str] | None = None
    """Group of documents by their ids."""

    @classmethod
    def of_run(cls, run: Run) -> "HeldOut":
        """Those that a run kept out of its training.

        Raises UserError if they are not those that its plan was made with.
        """
        plan, run_id = planned(run)
        locked = plan.bindings.get(HELD_OUT)
        if locked is not None and not hmac.compare_digest(
            str(locked), held_out_digest(run, run_id)
        ):
            raise UserError(
                f"held-out documents of {run.workspace.path}",
                "they are not those that the run's plan was made with",
                "put the tokens stage back as it was, or use another workspace",
            )
        rows = [d for d in read_shards(run.source("tokens")) if d["split"] == "validation"]
        sources = (run.config.tokens.train, run.config.audit.control)
        named = [(source.corpus, source.text) for source in sources if source is not None]
        return cls._of_rows(rows, named[0] if named else None)

    @classmethod
    def trained_on(cls, run: Run, count: int) -> "HeldOut":
        """So many documents of a run's training, to hold its held-out figures against.

        Names of units are keyed hashes: the first of them are as good as drawn at random.
        """
        absent = run.config.training.leave_out
        left = standing_alone(run, absent) if absent else set()
        trained = (d for d in read_shards(run.source("tokens")) if d["split"] == "train")
        rows = (d for d in trained if d["id"] not in left)
        return cls._of_rows(
            heapq.nsmallest(count, rows, lambda row: (row["unit"], row["id"])), None
        )

    @classmethod
    def _of_rows(
        cls, rows: Sequence[Mapping[str, Any]], public: tuple[Path, str] | None
    ) -> "HeldOut":
        return cls(
            [Document(row["id"], row["text"], None, "", 0) for row in rows],
            [row["unit"] for row in rows],
            public,
        )

    @classmethod
    def of_file(cls, path: Path, text: str, public: tuple[Path, str] | None) -> "HeldOut":
        """All documents of a corpus file, each a unit of its own."""
        documents = [d for d in read_corpus(path, text=text) if isinstance(d, Document)]
        return cls(documents, [document.id for document in documents], public)

    def without(self, ids: Container[str]) -> "HeldOut":
        """The others. Raises UserError where there are none."""
        kept = [place for place, one in enumerate(self.documents) if one.id not in ids]
        if not kept:
            raise UserError(
                "held-out documents of the sources that are not left out",
                "there is none, so that nothing is the same for all runs",
                "leave out fewer sources, or hold out more (split.validation)",
            )
        documents, units = [self.documents[i] for i in kept], [self.units[i] for i in kept]
        return replace(self, documents=documents, units=units)

    def asked(self, tokenizer: Any) -> Asked:
        """The documents as token ids, and the buckets of their words."""
        tokens = Encoder(tokenizer).encode([document.text for document in self.documents])
        examples = [Example(d.id, ids) for d, ids in zip(self.documents, tokens, strict=True)]
        table = TokenTable.of(tokenizer)
        buckets = buckets_of(*self.public, tokenizer, table) if self.public else None
        return Asked(table, examples, buckets, tokenizer)

    def measured(
        self, model: Any, asked: Asked, spec: EvaluationSpec, report: Report
    ) -> Measurement:
        """Ask `model`, on the best device there is."""
        nn.Module.to(model, best_device())
        return measure(
            model,
            asked.examples,
            spec,
            table=asked.table,
            buckets=asked.buckets,
            bytes_of=self.bytes_of,
            units=self.units,
            report=report,
        )

    @cached_property
    def bytes_of(self) -> Callable[[Example], int]:
        """UTF-8 bytes of a document's text."""
        sizes = {d.id: len(d.text.encode("utf-8", "replace")) for d in self.documents}
        return lambda example: sizes[example.id]


def grouped_by(run: Run, held_out: HeldOut, field: str) -> HeldOut:
    """A run's documents with the groups that a field of its corpus names, as `grouped`."""
    corpus = run.config.corpus
    fields = {"text": corpus.text, "id": corpus.id, "person": corpus.person}
    renamed = run.folder("dedup").read_json("renamed")
    return grouped(held_out, corpus.path, field, fields, renamed)


def grouped(
    held_out: HeldOut,
    path: Path,
    field: str,
    fields: Mapping[str, Any],
    renamed: Mapping[str, str] | None = None,
) -> HeldOut:
    """The documents with the groups that a field of their corpus names.

    `fields` are those that their ids were made with (text, id, person); `renamed` has the ids that
    deduplication gave since. A text that several documents have is in the group of the one that
    stayed. Raises UserError as `read_corpus` does, for a field that is missing among others.
    """
    now = renamed or {}
    group_fields = {**fields, "person": field}
    pairs = zip(read_corpus(path, **fields), read_corpus(path, **group_fields), strict=True)
    groups = {}
    for item, grouped_item in pairs:
        if not isinstance(item, Dropped) and not isinstance(grouped_item, Dropped):
            groups[now.get(item.id, item.id)] = grouped_item.person
    return replace(held_out, groups={id: group for id, group in groups.items() if group})


def buckets_of(path: Path, text: str, tokenizer: Any, table: TokenTable) -> WordBuckets:
    """Buckets by the words of a public corpus, `COUNTED` documents of it."""
    texts = [document.text for document in sample_public(path, text, COUNTED)]
    counts = count_words(Encoder(tokenizer).encode(texts), tokenizer, table)
    return WordBuckets(counts, tokenizer, table)


def _evaluation(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    held_out, spec = HeldOut.of_run(run), EvaluationSpec(run.config.tokens.window)
    tokenizer = load_sealed_tokenizer(run.folder("tokens"))
    trained, _ = load_model(run.folder("training"))
    models = {BEFORE: initial_model(run, tokenizer), AFTER: trained}
    asked = held_out.asked(tokenizer)
    measured = {
        name: held_out.measured(model, asked, spec, report) for name, model in models.items()
    }
    plan, _ = planned(run)
    drawn = sum(steps * batch for steps, batch in plan.plateaus)
    known = HeldOut.trained_on(run, len(held_out.documents))
    fitted = known.measured(trained, known.asked(tokenizer), spec, report)
    figures = {
        "label": "private",
        "asked": asked_of(spec),
        **beside(measured),
        "trained_on": generalization(fitted, measured[AFTER], drawn / plan.units),
    }
    found = forgotten(run.config, plan.bindings, (models[BEFORE], trained), tokenizer, report)
    if found is not None:
        folder.write_json(FORGETTING, found.to_json())
    folder.write_json("evaluation", spelled(figures))
    return {}


def asked_of(spec: EvaluationSpec) -> dict[str, Any]:
    """What of the spec a reader needs to ask the same."""
    return {
        "window": spec.window,
        "strategy": spec.masking.strategy,
        "ratio": spec.masking.ratio,
        "rows_per_document": spec.rows_per_document,
    }


EVALUATION = Stage("evaluation", ("training", "tokens"), lambda run: {}, _evaluation)
