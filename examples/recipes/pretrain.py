"""A base model from public text, which nothing is charged for: `model.from` of a private run.

    python examples/recipes/pretrain.py --corpus public_prose --corpus reviews.jsonl --out base

Trains a vocabulary and a model of one of the smaller BERTs' sizes without noise and without
clipping; whatever is named here must be text that anybody may read. Killed, the same command goes
on from its last checkpoint. Where a model of the language is to be had (`bert-base-uncased`), start
from that instead: it has seen far more text.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress as Bars
from rich.progress import track
from scipy import sparse

from dpmlm.corpus import Document, read_corpus
from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskedBatch, MaskingSpec, TokenTable, counter_rng, make_batch
from dpmlm.tokens import Encoder, load_tokenizer, train_tokenizer
from dpmlm.training import new_model
from dpmlm.training.model import SIZES
from dpmlm.training.schedules import learning_rate_at

SCALE = 0.05
"""Standard deviation of the first embeddings."""
BETAS = (0.9, 0.98)
"""Of AdamW. With torch's 0.999 a tiny model still guessed by how common pieces are after 4,200
steps; with 0.98 it learnt to look at the others after 1,750."""
KEEP_EVERY = 500
"""Steps between checkpoints."""
SEED = b"public pre-training".ljust(32, b"\0")
"""Of windows and masks: public, as the text is."""


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
    places = torch.from_numpy(np.stack([both.row, both.col]))
    matrix = torch.sparse_coo_tensor(
        places, torch.from_numpy(information), both.shape, check_invariants=True
    )
    rank = min(width, entries)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same each time
        rows, sizes, _ = torch.svd_lowrank(matrix.coalesce(), q=rank, niter=4)
    found = np.pad((rows * sizes.sqrt()).numpy(), ((0, 0), (0, width - rank)))
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


class Rows:
    """Batches of rows of public text: every row once, in an order of its own each time."""

    def __init__(
        self, ids: Sequence[np.ndarray], table: TokenTable, asked: argparse.Namespace
    ) -> None:
        room = asked.window - 2
        self._rows = [
            Example(f"{document}/{begin}", tokens[begin : begin + room])
            for document, tokens in enumerate(ids)
            for begin in range(0, len(tokens), room)
        ]
        self._table, self._asked = table, asked
        self._spec = MaskingSpec(strategy="token", ratio=asked.ratio)

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, step: int) -> MaskedBatch:
        """A function of the step alone, so that a killed training goes on as if it had not been."""
        size, count = self._asked.batch, len(self._rows)
        places = range(step * size, (step + 1) * size)
        return make_batch(
            [self._rows[order_of(place // count, count)[place % count]] for place in places],
            [place // count for place in places], seed=SEED, table=self._table, spec=self._spec,
            window=self._asked.window,
        )  # fmt: skip


@lru_cache(maxsize=2)
def order_of(turn: int, count: int) -> np.ndarray:
    """The rows' order the `turn`-th time round."""
    return counter_rng(SEED, "rows", turn).permutation(count)


def loss_of(model: Any, batch: MaskedBatch) -> torch.Tensor:
    """Mean over the masked tokens of the batch, nats."""
    labels = torch.full_like(batch.input_ids, -100)
    row, slot = (batch.masked_weights > 0).nonzero(as_tuple=True)
    labels[row, batch.masked_positions[row, slot]] = batch.masked_labels[row, slot]
    device = model.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        found = model(
            input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device),
            labels=labels.to(device),
        )  # fmt: skip
    return found.loss


def checkpoint_of(out: Path) -> Path:
    """Beside what is made of it."""
    return out.with_name(f"{out.name}.pretraining.pt")


def learn(model: Any, rows: Rows, asked: argparse.Namespace) -> float:
    """Train in place, from the last checkpoint where there is one: the last steps' mean loss.

    Dropout is off, as it is in private training: a small model has none to spare.
    """
    kept = checkpoint_of(asked.out)
    settings = str([*sorted(vars(asked).items()), len(rows)])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=asked.learning_rate, betas=BETAS, weight_decay=0.01
    )
    done, losses = 0, []
    state = torch.load(kept, map_location=model.device) if kept.is_file() else {}
    if state.get("settings") == settings:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    with Bars(transient=True) as bars:
        bar = bars.add_task("pre-training", total=asked.steps, completed=done)
        for step in range(done, asked.steps):
            optimizer.param_groups[0]["lr"] = learning_rate_at(
                step, steps=asked.steps, peak=asked.learning_rate, warmup=0.03, shape="wsd"
            )
            optimizer.zero_grad()
            loss = loss_of(model, rows.batch(step))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses = [*losses[-199:], loss.detach()]
            if (step + 1) % KEEP_EVERY == 0:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                mean = float(torch.stack(losses).mean())
                state |= {"step": step + 1, "settings": settings, "loss": mean}
                torch.save(state, f"{kept}.next")
                os.replace(f"{kept}.next", kept)
                bars.update(bar, description=f"pre-training, loss {mean:.2f}")
            bars.update(bar, completed=step + 1)
    return float(torch.stack(losses).mean()) if losses else state["loss"]


def pretrain(asked: argparse.Namespace) -> None:
    """Train vocabulary and model, and save both in the form of transformers."""
    texts = list(track(texts_of(asked.corpus, asked.text), "reading"))
    if asked.vocabulary is None:
        tokenizer = train_tokenizer(texts, vocab_size=asked.vocab_size, unused=asked.unused)
    else:
        tokenizer = load_tokenizer(asked.vocabulary)
    ids = Encoder(tokenizer).encode(texts)
    rows = Rows(ids, TokenTable.of(tokenizer), asked)
    model = begin(new_model(asked.size, tokenizer, asked.window, asked.seed), ids)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    loss = learn(model, rows, asked)
    model.cpu().save_pretrained(asked.out)
    tokenizer.save_pretrained(asked.out)
    checkpoint_of(asked.out).unlink(missing_ok=True)
    print(
        f"{asked.out}: {len(tokenizer)} entries, {asked.steps} steps of {asked.batch} rows of "
        f"{asked.window} tokens, from {len(texts)} public documents of {len(rows)} rows; "
        f"loss {loss:.2f} nats a masked token"
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
    parser.add_argument("--window", type=int, default=64, help="tokens a row")
    parser.add_argument("--ratio", type=float, default=0.15, help="share of tokens to guess")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=128, help="rows a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    least = {"window": 8, "steps": 1, "batch": 1, "vocab_size": asked.unused + 100}
    for name, value in least.items():
        if getattr(asked, name) < value:
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{option} {getattr(asked, name)}: give at least {value}")
    try:
        pretrain(asked)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
