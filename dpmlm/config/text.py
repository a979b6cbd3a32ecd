"""Sections of the run file about text: where it comes from, and what becomes of it until tokens."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from dpmlm.config.section import Section, speed


class CorpusConfig(Section):
    """Where text comes from and which fields carry it."""

    path: Path
    """A .jsonl, .csv, .parquet or .txt file, or a folder of those."""
    text: str = "text"
    """Field with the text."""
    id: str | None = None
    """Field with a unique id; null makes one from person and text."""
    person: str | None = None
    """Field that names the person a document belongs to; needed for unit person."""
    per_shard: int = Field(2000, ge=1, le=1_000_000)
    """Documents in a shard, which is what one of several workers does at a time."""
    broken_characters: float = speed(0.01, ge=0, le=1)
    """Largest share, in any shard, of characters that only a broken file or a wrong encoding
    leaves; above it the run stops before its budget is reserved. 1 lets everything through."""


class SplitConfig(Section):
    """Held-out units, chosen by keyed hash of the unit."""

    validation: float = Field(0.05, ge=0, le=0.5)
    """Share of the units kept out of training."""


class ScrubConfig(Section):
    """What is removed from the text."""

    policy: str = "default"
    """Name of a shipped policy or path of a YAML file."""
    processes: int | None = speed(None, ge=1, le=1024)
    """Worker processes; null takes one a core."""
    gold: Path | None = speed(None)
    """Documents whose identifiers were marked by hand; recall on them is measured, sealed, and may
    be asked for by a release policy. It may be named or changed after the training."""


class NearConfig(Section):
    """Near-duplicates by MinHash, every pair verified by exact Jaccard."""

    threshold: float = Field(0.8, ge=0.5, le=1)
    """Jaccard similarity of word 5-shingles from which two texts are duplicates."""


class PassagesConfig(Section):
    """Passages that many documents have word for word: signatures, notices, quoted mails."""

    words: int = Field(50, ge=10, le=10_000)
    """Words in a row, whatever their case and punctuation, from which it is one."""
    documents: int = Field(3, ge=1)
    """It counts where more documents than this have it."""
    cut: bool = False
    """Cut it out of all documents but one; false only reports it."""


DedupMode = Literal["stable", "quality"]
Scope = Literal["source corpus", "deduplicated corpus"]


class DedupConfig(Section):
    """What is removed as said twice.

    Where nothing near is removed and nothing cut, equal texts alone go, in the form that keeps
    the claim on the source corpus; else the claim is about the deduplicated corpus.
    """

    near: NearConfig | None = NearConfig(threshold=0.8)
    """null removes exact duplicates only."""
    keep: Literal["first", "longest", "least_identifiers"] = "first"
    """Which document of a cluster stays: the smallest id, the most characters, or the fewest
    identifiers replaced by scrubbing."""
    passages: PassagesConfig | None = None
    """null looks for none."""
    before_scrub: bool = False
    """Deduplicate before scrubbing. After it, texts that differ in names alone are alike."""

    @model_validator(mode="after")
    def _keep_can_choose(self) -> Self:
        if self.keep != "first" and self.mode == "stable":
            raise ValueError("dedup.keep chooses among near-duplicates; near is null here")
        if self.keep == "least_identifiers" and self.before_scrub:
            raise ValueError("dedup.keep: least_identifiers needs scrubbing to come first")
        return self

    @property
    def mode(self) -> DedupMode:
        """Quality where one record decides over others."""
        cuts = self.passages is not None and self.passages.cut
        return "quality" if self.near is not None or cuts else "stable"

    @property
    def scope(self) -> Scope:
        """Which corpus the privacy claim is about."""
        return "source corpus" if self.mode == "stable" else "deduplicated corpus"


class PublicCorpusConfig(Section):
    """Public text: declared as such by whoever writes the run file."""

    corpus: Path
    """A file or folder as in `corpus.path`."""
    text: str = "text"
    """Field with the text."""


class VocabularyConfig(PublicCorpusConfig):
    """A vocabulary trained on public text."""

    kind: Literal["wordpiece", "bpe", "unigram"] = "wordpiece"
    """WordPiece in lower case; byte-level BPE, which knows no unknown token; or Unigram."""
    size: int = Field(8000, ge=64, le=200_000)
    """Entries, special tokens included."""
    unused: int = Field(0, ge=0, le=200_000)
    """Extra entries that stand for nothing yet."""


class PrivateVocabularyConfig(Section):
    """A WordPiece vocabulary from words of the private training text, charged to the ledger.

    It has no other kind: what is selected with noise are words, and BPE and Unigram count more.
    """

    size: int = Field(8000, ge=64, le=200_000)
    """Entries at most, special tokens included."""
    epsilon: float = Field(gt=0, le=150)
    """Of choosing the words, beside the training's."""
    delta: float = Field(gt=0, lt=0.5)
    """Of choosing the words: half is the chance that a word of one unit alone comes out."""
    words_per_unit: int = Field(100, ge=1, le=100_000)
    """Most different words that one unit contributes."""
    unused: int = Field(128, ge=0, le=200_000)
    """Extra entries that stand for nothing yet: canaries need some, however few words come out."""


ONE_VOCABULARY = "name exactly one of tokens.vocabulary, tokens.train and tokens.private"


class TokensConfig(Section):
    """How text becomes tokens."""

    vocabulary: str | None = None
    """vocab.txt, tokenizer.json, a folder, or a hub name; that of the release that
    `model.continues` names where none is named."""
    train: VocabularyConfig | None = None
    """Train a vocabulary on public text instead."""
    private: PrivateVocabularyConfig | None = None
    """Train a vocabulary on the private text with differential privacy, charged to the ledger."""
    window: int = Field(128, ge=8, le=8192)
    """Tokens a row, special tokens included."""
    stride: int = Field(128, ge=1, le=8192)
    """Windows start at multiples of this many tokens."""
    unknown_tokens: float = speed(0.2, ge=0, le=1)
    """Largest share, in any shard, of tokens that are not in the vocabulary; above it the run stops
    before its budget is reserved. 1 lets everything through."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.sources > 1:
            raise ValueError(ONE_VOCABULARY)
        return self

    @property
    def sources(self) -> int:
        """How many vocabularies are named; one, or none beside `model.continues`."""
        return 3 - [self.vocabulary, self.train, self.private].count(None)
