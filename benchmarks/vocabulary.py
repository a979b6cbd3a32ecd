"""Vocabularies on the newsgroup posts, one author a unit: what privacy costs in pieces a word.

    python benchmarks/vocabulary.py --data $DPMLM_DATA

Prints the table of docs/results.md. Vocabularies are trained on the authors of the training split
and measured on the posts of the others. The corpus is public, so the private draws are not charged
to a ledger.
"""

import argparse
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from dpmlm.corpus import Document, read_corpus, split_of, unit_of
from dpmlm.privacy import PartitionSelection, SecretStream
from dpmlm.tokens import (
    Encoder,
    WordHistogram,
    load_tokenizer,
    train_from_counts,
    train_tokenizer,
)
from dpmlm.tokens.wordpiece import split_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SIZE, DELTA = 8000, 1e-7
PRIVATE = ((1.0, 100), (1.0, 300), (2.0, 100), (4.0, 100), (8.0, 100))
"""Epsilon and words per unit of the private rows."""


def read(path: Path, person: str | None = None) -> list[Document]:
    """Documents with text."""
    return [item for item in read_corpus(path, person=person) if isinstance(item, Document)]


def row(name: str, words: str, tokenizer: "PreTrainedTokenizerFast", texts: list[str]) -> str:
    """A line of the table, measured on `texts`."""
    encoder = Encoder(tokenizer)
    pieces = [len(ids) for ids in encoder.encode(texts)]
    unknown = sum(int((ids == encoder.unknown_id).sum()) for ids in encoder.encode(texts))
    spoken = sum(len(split_words(text)) for text in texts)
    per_word = f"{sum(pieces) / spoken:.3f}"
    rate = f"{100 * unknown / sum(pieces):.3f} %"
    return f"| {name} | {words} | {len(tokenizer)} | {per_word} | {rate} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    data = parser.parse_args().data
    key = secrets.token_bytes(32)
    posts = read(data / "newsgroups/train.jsonl", "author")
    units = [unit_of(post, "person", key) for post in posts]
    splits = [split_of(unit, 0.05, key) for unit in units]
    train = [(u, p.text) for u, p, s in zip(units, posts, splits, strict=True) if s == "train"]
    held_out = [p.text for p, s in zip(posts, splits, strict=True) if s != "train"]
    print(f"{len({u for u, _ in train})} authors to learn from, {len(held_out)} posts of others\n")
    print("| vocabulary | words chosen | entries | tokens a word | unknown tokens |")
    print("| --- | --- | --- | --- | --- |")
    bert = load_tokenizer(data / "vocab/bert-base-uncased.txt")
    print(row("public: bert-base-uncased", "", bert, held_out))
    prose = train_tokenizer((d.text for d in read(data / "public_prose")), vocab_size=SIZE)
    print(row("public: trained on public_prose", "", prose, held_out))
    open_ = train_tokenizer((text for _, text in train), vocab_size=SIZE)
    print(row("not private: trained on the posts", "", open_, held_out), flush=True)
    for epsilon, limit in PRIVATE:
        histogram = WordHistogram(limit, key)
        for unit, text in train:
            histogram.add(unit, text)
        selection = PartitionSelection(epsilon, DELTA, limit)
        counts = selection.select(histogram.weights(), SecretStream.from_os())
        tokenizer = train_from_counts(counts, vocab_size=SIZE)
        name = f"private: epsilon {epsilon:g}, {limit} words an author"
        print(row(name, str(len(counts)), tokenizer, held_out), flush=True)
    characters = train_from_counts({}, vocab_size=SIZE)
    print(row("characters alone", "0", characters, held_out))


if __name__ == "__main__":
    main()
