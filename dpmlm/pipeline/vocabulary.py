"""A vocabulary from private text: charged, drawn, and never drawn twice from one noise."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmlm.artifacts import SealedFolder, atomic_write, load_secret_key, load_signing_key
from dpmlm.config import PrivateVocabularyConfig
from dpmlm.corpus import Document, Unit, read_corpus, read_shards, unit_of
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import left_text, open_ledger
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.quarantine import LeftOut, left_out
from dpmlm.pipeline.secrets import RunSecrets
from dpmlm.pipeline.tombstones import Tombstones, file_beside, tombstones_of
from dpmlm.privacy import Ledger, PartitionSelection, SecretStream
from dpmlm.tokens import (
    WordHistogram,
    least_size,
    load_sealed_tokenizer,
    save_tokenizer,
    train_from_counts,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FOLDER = "vocabulary"
"""Folder in that of the tokens stage: finished once the vocabulary is whole."""


def selection_of(config: PrivateVocabularyConfig) -> PartitionSelection:
    """The mechanism that the run file asks for. Raises UserError where `size` has no room."""
    least = least_size(config.unused)
    if config.size <= least:
        raise UserError(
            f"a vocabulary of {config.size} entries",
            f"special, unused and ASCII pieces alone are {least}",
            "raise its size, or lower its unused entries",
        )
    return PartitionSelection(config.epsilon, config.delta, config.words_per_unit)


def private_tokenizer(run: Run, folder: SealedFolder) -> "PreTrainedTokenizerFast":
    """The run's vocabulary of its own training text, which is charged for each draw.

    A finished draw is kept in `folder` and taken up again; what an attempt left that did not
    finish is removed unread, and the next draw is charged again and has noise of its own.
    """
    config = run.config.tokens.private
    assert config is not None
    kept = SealedFolder.open_or_create(folder.path / FOLDER, [run.identity], run.own, role=FOLDER)
    if kept.manifest is None:
        for name in kept.names():
            kept.remove(name)
        histogram = WordHistogram(config.words_per_unit, run.secrets.unit_key)
        for document in read_shards(run.source("tokens")):
            if document["split"] == "train":
                histogram.add(document["unit"], document["text"])
        ledger = open_ledger(run.config.ledger, run.signing)
        drawn = draw(
            histogram, config, ledger, label=f"vocabulary of {run.config.name}",
            unit=run.config.privacy.owner, scope=run.config.dedup.scope,
        )  # fmt: skip
        save_tokenizer(kept, drawn.tokenizer)
        kept.finish({"words": drawn.words})
    return load_sealed_tokenizer(kept)


@dataclass(frozen=True)
class Drawn:
    """A vocabulary and how many words came out for it, which the selection covers."""

    tokenizer: "PreTrainedTokenizerFast"
    words: int


def draw(
    histogram: WordHistogram,
    config: PrivateVocabularyConfig,
    ledger: Ledger,
    *,
    label: str,
    unit: str,
    scope: str,
) -> Drawn:
    """Charge the selection, then draw its noise, then train on what came out and nothing else."""
    selection = selection_of(config)
    ledger.spend_selection(label, selection, unit=unit, scope=scope)
    counts = selection.select(histogram.weights(), SecretStream.from_os())
    tokenizer = train_from_counts(counts, vocab_size=config.size, unused=config.unused)
    return Drawn(tokenizer, len(counts))


@dataclass(frozen=True)
class VocabularyFile:
    """A vocabulary of `dpmlm vocab`; every figure is public or covered by its budget."""

    output: Path
    entries: int
    """Of the file."""
    words: int
    """Words that came out of the selection."""
    selection: PartitionSelection
    divergence: float
    """Charged, at the ledger's order."""
    left: dict[str, Any]
    """Of the ledger's cap: epsilon, delta and rdp."""

    def to_json(self) -> dict[str, Any]:
        return {
            "output": str(self.output),
            "entries": self.entries,
            "words": self.words,
            "selection": describe_selection(self.selection),
            "divergence": self.divergence,
            "left": self.left,
        }

    def text(self) -> str:
        return "\n".join(
            [
                f"wrote {self.output}: {self.entries} entries, from {self.words} words",
                f"selection  {selection_text(self.selection)}",
                f"charged    Renyi divergence {self.divergence:.4g}, "
                f"delta {self.selection.threshold_delta:.3g} for its threshold",
                f"left       {left_text(self.left)}",
            ]
        )


def describe_selection(selection: PartitionSelection) -> dict[str, float]:
    """Public figures of a selection as JSON values."""
    return {
        "epsilon": selection.epsilon,
        "delta": selection.delta,
        "words_per_unit": selection.words_per_unit,
        "noise_multiplier": selection.noise_multiplier,
        "threshold": selection.threshold,
    }


def selection_text(selection: PartitionSelection) -> str:
    """The same as a line, with how many units a word needs if each contributes all it may."""
    units = selection.threshold * selection.words_per_unit**0.5
    return (
        f"epsilon {selection.epsilon:g}, delta {selection.delta:g}; at most "
        f"{selection.words_per_unit} words a unit; a word needs about {units:.0f} units that "
        "contribute so many"
    )


def vocabulary_file(
    source: Path,
    output: Path,
    ledger: Path,
    config: PrivateVocabularyConfig,
    *,
    text: str,
    person: str | None,
    signing_key: Path | None = None,
    pseudonym_key: Path | None = None,
) -> VocabularyFile:
    """Write a vocab.txt of a corpus file or folder; it is covered by its budget, so it is clear.

    The unit is the person where a field names them, else the document. Persons who were forgotten
    on the ledger are left out, which takes the field and `pseudonym_key`. Raises UserError, before
    anything is charged, for an existing output, a broken corpus, and a budget over what is left.
    """
    if output.exists():
        raise UserError(f"output {output}", "it is there already", "name a new one")
    selection, account = selection_of(config), Ledger.open(ledger)
    if signing_key is not None:
        account.sign_with(load_signing_key(signing_key))
    stones = _forgotten(account, person, pseudonym_key)
    histogram = WordHistogram(config.words_per_unit, secrets.token_bytes(32))
    unit_key = secrets.token_bytes(32)
    unit: Unit = "person" if person else "document"
    kept_out = LeftOut({}) if stones is None else left_out(stones, source)
    with Progress().bar("words"):
        for document in _documents(source, text, person):
            if kept_out.holds(document.source, document.row):
                continue
            if stones is None or not stones.name(document.person):
                histogram.add(unit_of(document, unit, unit_key), document.text)
    output.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw(
        histogram, config, account, label=f"vocabulary {output.name}",
        unit=unit, scope="source corpus",
    )  # fmt: skip
    pieces = drawn.tokenizer.get_vocab()
    with atomic_write(output) as file:
        file.writelines(piece.encode() + b"\n" for piece in sorted(pieces, key=pieces.__getitem__))
    left = account.left()
    return VocabularyFile(
        output,
        len(pieces),
        drawn.words,
        selection,
        selection.divergence(account.order),
        {"epsilon": left.epsilon, "delta": left.delta, "rdp": left.rdp},
    )


def _forgotten(ledger: Ledger, person: str | None, key: Path | None) -> Tombstones | None:
    """The tombstones of a ledger; None where there are none.

    Raises UserError where there are some and nobody says whose a document is, or by which key.
    """
    file = file_beside(ledger.path)
    if ledger.tombstones is None and not file.exists():
        return None
    if person is None or key is None:
        raise UserError(
            f"ledger {ledger.path}",
            f"persons or sources of its corpus are left out ({file}), and their words stay out",
            "give --person FIELD and --pseudonym-key KEY, the run file's keys.scrub",
        )
    return tombstones_of(ledger, RunSecrets.derive(load_secret_key(key), 0))


def _documents(source: Path, text: str, person: str | None) -> Iterable[Document]:
    for item in read_corpus(source, text=text, person=person):
        if isinstance(item, Document):
            yield item
