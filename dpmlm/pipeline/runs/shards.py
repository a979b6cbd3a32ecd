"""Which file of a corpus made a run worse: `dpmlm runs shards`.

Each source, or each range of rows of one, is held against the others: how hard its words are to
guess for the run's model and for another one, how much of it is no word of the vocabulary, how
much stands in no other part, how much repeats itself. Every figure is computed from private text
and private, the order of the parts too. Nothing is charged for looking; what is done about it may
be a choice that no claim covers (`dpmlm runs quarantine --basis private`).
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from dpmlm.config import RunConfig, load_config, names_run_file
from dpmlm.corpus import Document, read_shards
from dpmlm.errors import UserError, visible
from dpmlm.evaluation import EvaluationSpec
from dpmlm.evaluation.suspects import (
    FEWEST_PARTS,
    Score,
    limit,
    scores,
    suspicious,
    worst,
)
from dpmlm.pipeline.base import initial_model
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.evaluation import HeldOut
from dpmlm.pipeline.models import best_device
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.sources import sources_of
from dpmlm.pipeline.subjects import Subject, of_run, opened_model
from dpmlm.pipeline.workspace import deciding_settings

DOCUMENTS = 60
"""Of a part that are looked at; which ones follows from their ids."""
FLOORS = {"loss": 0.05, "loss_against": 0.05, "unknown": 0.01, "new_words": 0.03, "repeated": 0.03}
"""Differences of a figure that are never told apart, in its own unit."""
SAYS = {
    "loss": "loss under this run (nats a hidden token)",
    "loss_against": "loss under the other model",
    "unknown": "share of tokens that are not in the vocabulary",
    "new_words": "share of words that stand in no other part",
    "repeated": "share of four-word passages that repeat an earlier one of the document",
}


@dataclass(frozen=True)
class Part:
    """One source, or some rows of one; private."""

    name: str
    documents: int
    """That were trained on or held out."""
    state: str | None
    """Beside the corpus of the other run: new, changed or same; None without one."""
    figures: Mapping[str, Score]
    suspect: tuple[str, ...]
    """Figures above the limit."""

    @property
    def score(self) -> float:
        """Of the figure in which it lies farthest from the others."""
        return self.figures[worst(self.figures)].score

    def to_json(self) -> dict[str, Any]:
        figures = {name: asdict(score) for name, score in self.figures.items()}
        own = {"part": self.name, "documents": self.documents, "state": self.state}
        return {**own, "score": self.score, "suspect": list(self.suspect), "figures": figures}


@dataclass(frozen=True)
class Ranking:
    """All parts, the most unlike first; private as a whole."""

    run: str
    against: str
    parts: Sequence[Part] = field(repr=False)
    gone: Sequence[str] = field(repr=False)
    """Sources of the other run's corpus that this one has no more."""
    limit: float
    """Score above which a part is a suspect."""

    @property
    def suspects(self) -> list[str]:
        return [part.name for part in self.parts if part.suspect]

    def to_json(self, *, private: bool = False) -> dict[str, Any]:
        told = {
            "suspects": self.suspects,
            "limit": self.limit,
            "parts": [part.to_json() for part in self.parts],
            "gone": list(self.gone),
        }
        known = {"run": self.run, "against": self.against, "label": "private"}
        return {**known, "private": told if private else None}

    def text(self, *, private: bool = False) -> str:
        head = f"{self.run}, beside {self.against}: parts of its corpus"
        if not private:
            return f"{head}, which is private; --show-private prints them"
        lines = [f"{head}, the most unlike the others first (private)"]
        for number, part in enumerate(self.parts, start=1):
            state = f", {part.state}" if part.state else ""
            mark = "SUSPECT" if part.suspect else "       "
            lines.append(
                f"{number:>3}. {mark} {visible(part.name)}: {part.documents} documents{state}, "
                f"score {part.score:.1f}"
            )
            lines += [f"       {_line(name, part.figures[name])}" for name in part.suspect]
        lines += [f"gone: {visible(name)}" for name in self.gone]
        return "\n".join([*lines, self._verdict()])

    def _verdict(self) -> str:
        if len(self.parts) < FEWEST_PARTS:
            return (
                f"fewer than {FEWEST_PARTS} parts: an order, and no finding; --rows N parts files"
            )
        if not self.suspects:
            return f"no part stands out: none has a score above {self.limit:.1f}"
        return (
            f"above {self.limit:.1f} is more than chance; `dpmlm runs quarantine` leaves a suspect "
            "out of the next run"
        )


def rank_parts(
    config: RunConfig,
    against: Path | None = None,
    *,
    rows: int | None = None,
    identity: Path | None = None,
    trusted_keys: Path | None = None,
) -> Ranking:
    """Rank the parts of a trained run's corpus by how unlike the others they are.

    `against` is what `dpmlm evaluate --against` takes, else the model before training; `rows`
    parts each file into ranges of so many. Raises UserError for an untrained run, and a model that
    cannot be opened.
    """
    run = Run.load(config, Progress(quiet=True))
    run.workspace.check(config.name, deciding_settings(config))
    this = of_run(run)
    if against is None:
        start = initial_model(run, this.tokenizer)
        nn.Module.to(start, best_device())
        other, name = Subject(start, this.tokenizer, this.window, True), "the model before training"
    else:
        other = opened_model(against, identity=identity, trusted_keys=trusted_keys)
        name = str(against)
    states, gone = _states(run, against)
    parts = _documents_by_part(run, rows)
    found = _figures({"loss": this, "loss_against": other}, parts)
    bar = limit(len(parts), len(FLOORS))
    ranked = []
    for place, (source, part) in enumerate(parts):
        own = {figure: scored[place] for figure, scored in found.items()}
        above = tuple(f for f, score in own.items() if suspicious(score, bar))
        ranked.append(Part(part, len(parts[source, part]), states.get(source), own, above))
    ranked.sort(key=lambda part: (not part.suspect, -part.score))
    return Ranking(config.name, name, ranked, gone, bar)


def _states(run: Run, against: Path | None) -> tuple[dict[str, str], list[str]]:
    """New, changed or same by source, and what is gone; nothing unless the other is a run."""
    if against is None or not names_run_file(against):
        return {}, []
    other = Run.load(load_config(against), Progress(quiet=True))
    now, then = sources_of(run.folder("corpus")), sources_of(other.folder("corpus"))
    kinds = {True: "same", False: "changed"}
    states = {n: kinds[then[n] == now[n]] if n in then else "new" for n in now}
    return states, sorted(then.keys() - now.keys())


def _documents_by_part(run: Run, rows: int | None) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Documents as they are trained on, by source and name of their part, in order."""
    if rows is not None and rows < 1:
        raise UserError(f"--rows {rows}", "a part has a row or more", "for example --rows 500")
    dedup = run.folder("dedup")
    renamed = dedup.read_json("renamed") if dedup.has("renamed") else {}
    places: dict[str, tuple[str, str]] = {}
    for document in read_shards(run.folder("corpus")):
        if "source" not in document:
            continue
        source, first = document["source"], 0
        name = source
        if rows is not None:
            first = (document["row"] - 1) // rows * rows + 1
            name = f"{source} rows {first}-{first + rows - 1}"
        places[renamed.get(document["id"], document["id"])] = source, name
    parts: dict[tuple[str, str], list[dict[str, Any]]] = {
        place: [] for place in dict.fromkeys(places.values())
    }
    for document in read_shards(run.source("tokens")):
        if document["id"] in places:
            parts[places[document["id"]]].append(document)
    return parts


def _figures(
    models: Mapping[str, Subject], parts: Mapping[Any, Sequence[Mapping[str, Any]]]
) -> dict[str, list[Score]]:
    """Every figure of every part, from a sample of its documents."""
    chosen = [sorted(own, key=_place)[:DOCUMENTS] for own in parts.values()]
    values: dict[str, list[np.ndarray]] = {}
    for name, subject in models.items():
        values[name], unknown = _asked(subject, chosen)
        values.setdefault("unknown", unknown)
    words = [Counter(w for d in own for w in set(_words(d))) for own in chosen]
    everywhere = Counter(word for own in words for word in own)  # in how many parts
    values["new_words"] = [
        np.array([np.mean([everywhere[w] == 1 for w in _words(d)]) for d in own if _words(d)])
        for own in chosen
    ]
    values["repeated"] = [np.array([_repeated(_words(d)) for d in own]) for own in chosen]
    return {name: scores(values[name], FLOORS[name]) for name in FLOORS}


def _asked(
    subject: Subject, chosen: Sequence[Sequence[Mapping[str, Any]]]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Loss and share of unknown tokens of each document, by part."""
    flat = [Document(d["id"], d["text"], None, "", 0) for own in chosen for d in own]
    held = HeldOut(flat, [document.id for document in flat], None)
    asked = held.asked(subject.tokenizer)
    with Progress().bar("parts of the corpus") as report:
        found = held.measured(subject.model, asked, EvaluationSpec(subject.window), report)
    counts = np.bincount(found.document, minlength=len(flat))
    losses = np.bincount(found.document, found.loss, len(flat)) / np.maximum(counts, 1)
    entry = subject.tokenizer.unk_token_id
    unknown = np.array([np.mean(np.asarray(e.tokens) == entry) for e in asked.examples])
    ends = np.cumsum([len(own) for own in chosen])[:-1]
    pieces = zip(np.split(losses, ends), np.split(counts, ends), strict=True)
    return [loss[n > 0] for loss, n in pieces], np.split(unknown, ends)


def _line(name: str, score: Score) -> str:
    ends = "" if score.low is None else f" ({score.low:.3f} to {score.high:.3f})"
    return f"{SAYS[name]}: {score.value:.3f}{ends}, score {score.score:.1f}"


def _place(document: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(document["id"].encode()).digest()


def _words(document: Mapping[str, Any]) -> list[str]:
    return str(document["text"]).lower().split()


def _repeated(words: Sequence[str]) -> float:
    passages = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1 - len(set(passages)) / len(passages) if passages else 0.0
