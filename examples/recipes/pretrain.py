"""A base model from public text, which nothing is charged for: `model.from` of a private run.

    python examples/recipes/pretrain.py --corpus public_prose --corpus reviews.jsonl --out base

Trains a vocabulary and a model of one of the smaller BERTs' sizes without noise and without
clipping; whatever is named here must be text that anybody may read. Killed, the same command goes
on from its last checkpoint. Where a model of the language is to be had (`bert-base-uncased`), start
from that instead: it has seen far more text.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress as Bars
from rich.progress import track
from scipy import sparse
from scipy.sparse.linalg import svds

from dpmlm.artifacts import Identity, create_keys, load_identity
from dpmlm.canonical import digest
from dpmlm.corpus import Document, read_corpus
from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskingSpec, TokenTable
from dpmlm.privacy import PrivacyPlan, make_plan
from dpmlm.tokens import Encoder, load_tokenizer, train_tokenizer
from dpmlm.training import Checkpoints, PublicText, Recipe, new_model, train
from dpmlm.training.model import SIZES
from dpmlm.training.units import View

SCALE = 0.05
SEED = b"public pre-training".ljust(32, b"\0")
"""Of windows and masks: public, as the text is."""


class PublicRows:
    """Every row of the text as a unit: a long document is drawn as often as it has rows."""

    def __init__(self, examples: Sequence[Example], room: int) -> None:
        self._rows = [
            Example(f"{example.id}/{begin}", example.tokens[begin : begin + room])
            for example in examples
            for begin in range(0, len(example.tokens), room)
        ]
        self.names: Sequence[str] = [row.id for row in self._rows]

    def views(self, index: int, step: int, count: int) -> Sequence[View]:
        return [View(self._rows[index], step * count + row) for row in range(count)]


def texts_of(corpora: Sequence[Path], field: str) -> Iterator[str]:
    """Every text of the corpora, in their order."""
    for corpus in corpora:
        for item in read_corpus(corpus, text=field):
            if isinstance(item, Document):
                yield item.text


def word_vectors(ids: Sequence[np.ndarray], entries: int, width: int) -> np.ndarray:
    """First embeddings from which pieces stand together, float32 [entries, width].

    The best approximation of positive pointwise mutual information within four pieces (Levy and
    Goldberg 2014). A small model learns nothing but how common pieces are in its first thousands of
    steps; where that ends is unmeasured for the settings of this script.
    """
    together = sparse.csr_matrix((entries, entries))
    for apart in range(1, 5):
        long = [one.astype(np.int64) for one in ids if len(one) > apart]
        left = np.concatenate([one[:-apart] for one in long])
        right = np.concatenate([one[apart:] for one in long])
        weights = np.full(len(left), 1 / apart)
        together += sparse.csr_matrix((weights, (left, right)), shape=(entries, entries))
    both = (together + together.T).tocoo()
    alone = np.asarray(both.sum(axis=1)).ravel()
    smooth = alone**0.75  # rare contexts would count too much
    expected = alone[both.row] * smooth[both.col] / smooth.sum()
    information = np.log(both.data / expected).clip(min=0)
    matrix = sparse.csr_matrix((information, (both.row, both.col)), shape=both.shape)
    rows, sizes, _ = svds(matrix, k=min(width, entries - 1), random_state=0)
    found = rows * np.sqrt(sizes)
    return (found - found.mean(axis=0)) * (SCALE / found.std())


def begin(model: Any, ids: Sequence[np.ndarray]) -> Any:
    """`model` with word vectors for its embeddings, and its bias at how common pieces are."""
    embeddings = model.get_input_embeddings().weight
    counts = np.bincount(np.concatenate(ids).astype(np.int64), minlength=len(embeddings)) + 0.1
    vectors = word_vectors(ids, *embeddings.shape)
    with torch.no_grad():
        embeddings.copy_(torch.from_numpy(vectors))
        model.get_output_embeddings().bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    return model


def without_noise(rows: int, batch: int, steps: int) -> PrivacyPlan:
    """A plan that promises nothing, as there is nobody to protect."""
    return make_plan(
        epsilon=math.inf, delta=1e-9, units=rows, unit="sequence", expected_batch_size=batch,
        steps=steps, max_grad_norm=math.inf,
    )  # fmt: skip


def key_of(folder: Path) -> Identity:
    """The key of the checkpoints, which lies beside them: they are as public as the text."""
    if not (folder / "keys/trainer.key").is_file():
        create_keys(folder / "keys")
    return load_identity(folder / "keys/trainer.key")


def pretrain(asked: argparse.Namespace) -> None:
    """Train vocabulary and model, and save both in the form of transformers."""
    texts = list(track(texts_of(asked.corpus, asked.text), "reading"))
    if asked.vocabulary is None:
        tokenizer = train_tokenizer(texts, vocab_size=asked.vocab_size, unused=asked.unused)
    else:
        tokenizer = load_tokenizer(asked.vocabulary)
    ids = Encoder(tokenizer).encode(texts)
    rows = PublicRows([Example(str(n), one) for n, one in enumerate(ids)], asked.window - 2)
    plan = without_noise(len(rows.names), asked.batch, asked.steps)
    model, table = (
        new_model(asked.size, tokenizer, asked.window, asked.seed),
        TokenTable.of(tokenizer),
    )
    recipe = Recipe(
        table=table, masking=MaskingSpec(strategy="token", ratio=asked.ratio), window=asked.window,
        stride=asked.window, mask_seed=SEED, learning_rate=asked.learning_rate, warmup=0.05,
        weight_decay=0.01, physical_batch_size=4 * asked.batch, checkpoint_minutes=5,
    )  # fmt: skip
    work = asked.out.with_name(f"{asked.out.name}.pretraining")
    key, begun = key_of(work), digest([plan.digest, digest(tokenizer.get_vocab()), asked.seed])
    with Bars(transient=True) as bars:
        bar = bars.add_task("pre-training", total=asked.steps)
        train(
            model, rows, plan, recipe, charges=PublicText(),
            checkpoints=Checkpoints(work / "checkpoints", key, [key.recipient], begun),
            report=lambda done, total: bars.update(bar, completed=done),
        )  # fmt: skip
    model.save_pretrained(asked.out)
    tokenizer.save_pretrained(asked.out)
    print(
        f"{asked.out}: {len(tokenizer)} entries, {asked.steps} steps of {asked.batch} rows of "
        f"{asked.window} tokens, from {len(texts)} public documents of {len(rows.names)} rows"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--corpus",
        type=Path,
        action="append",
        required=True,
        help="public text: a file or folder; may be given several times",
    )
    parser.add_argument("--text", default="text", help="field with the text")
    parser.add_argument("--out", type=Path, required=True, help="folder for model and tokenizer")
    parser.add_argument("--vocabulary", help="vocab.txt or folder instead of training one")
    parser.add_argument("--vocab-size", type=int, default=2400)
    parser.add_argument("--unused", type=int, default=400, help="entries kept for canaries")
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--window", type=int, default=32, help="tokens a row")
    parser.add_argument("--ratio", type=float, default=0.15, help="share of tokens to guess")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=32, help="expected rows a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    try:
        pretrain(parser.parse_args())
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
