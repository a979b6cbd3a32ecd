"""Correlated against independent noise on the newsgroup posts, at equal epsilon, one author a unit.

    python benchmarks/correlated.py --data $DPMLM_DATA --steps 100 --seeds 1 --epsilons 8

Trains a tiny BERT from the same initial weights with each number of bands and prints the table of
docs/results.md: held-out loss and top-1 after training. The corpus is public, so that the figures
may be shown; ledgers, workspaces and keys are thrown away.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpmlm import Trainer, make_plan
from dpmlm.artifacts import create_keys
from dpmlm.corpus import Document, read_corpus
from dpmlm.evaluation import EvaluationSpec, measure
from dpmlm.masking import Example, MaskingSpec, TokenTable
from dpmlm.privacy import PrivacyPlan, error_of_sums
from dpmlm.tokens import Encoder, train_tokenizer
from dpmlm.training import new_model

BANDS = (1, 4, 16)
EPSILONS = (2.0, 8.0)
RATES = (1e-3, 4e-3)
WINDOW, VOCABULARY, HELD_OUT = 64, 8000, 600
DELTA, UNITS, BATCH = 1e-6, 6500, 256
MASKING = MaskingSpec(strategy="whole_word", ratio=0.15)


@dataclass(frozen=True)
class Trained:
    """One training."""

    epsilon: float
    bands: int
    seed: int
    learning_rate: float
    noise_multiplier: float
    noise_of_sums: float
    """noise_multiplier times `error_of_sums`."""
    loss: float
    """Held out, nats a masked token."""
    top1: float
    seconds: float


def read(path: Path, person: str | None = None) -> list[Document]:
    """Documents with text."""
    return [item for item in read_corpus(path, person=person) if isinstance(item, Document)]


def split(posts: Sequence[Document]) -> tuple[list[dict[str, Any]], list[str]]:
    """Posts to train on, and texts of every twentieth author, none of whom is among the former."""
    authors = sorted({post.person or post.id for post in posts})
    apart = set(authors[::20])
    train = [
        {"id": post.id, "text": post.text, "person": post.person or post.id}
        for post in posts
        if (post.person or post.id) not in apart
    ]
    return train, [post.text for post in posts if (post.person or post.id) in apart][:HELD_OUT]


def plan_of(epsilon: float, bands: int, steps: int) -> PrivacyPlan:
    """The same promise with noise over so many bands."""
    return make_plan(
        epsilon=epsilon, delta=DELTA, units=UNITS, unit="person", expected_batch_size=BATCH,
        steps=steps, max_grad_norm=1.0, accountant="pld", bands=bands,
    )  # fmt: skip


def train_one(
    plan: PrivacyPlan,
    rate: float,
    seed: int,
    documents: list[dict[str, Any]],
    texts: list[str],
    tokenizer: Any,
) -> Trained:
    """Train from the initial weights of `seed` and evaluate."""
    model = new_model("tiny", tokenizer, WINDOW, seed)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        create_keys(Path(folder) / "keys")
        Trainer(
            model, tokenizer, plan, documents=documents, workspace=Path(folder) / "work",
            keys=Path(folder) / "keys", window=WINDOW, masking=MASKING, learning_rate=rate,
            seed=seed,
        ).train()  # fmt: skip
    seconds = time.perf_counter() - begun
    ids = Encoder(tokenizer).encode(texts)
    held_out = [Example(str(n), one) for n, one in enumerate(ids)]
    spec, words = EvaluationSpec(window=WINDOW, masking=MASKING), TokenTable.of(tokenizer)
    found = measure(model, held_out, spec, table=words).figures
    assert found is not None
    error = plan.noise_multiplier * error_of_sums(plan.coefficients, plan.steps)
    return Trained(
        plan.epsilon, plan.bands, seed, rate, plan.noise_multiplier, error, found.loss, found.top1,
        seconds,
    )  # fmt: skip


def table(trained: Sequence[Trained]) -> str:
    """Means over seeds, and the range of the losses."""
    rows = [
        "| epsilon | bands | learning_rate | noise_multiplier | noise of sums | held-out loss "
        "| range | top-1 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key in sorted({(one.epsilon, one.bands, one.learning_rate) for one in trained}):
        same = [one for one in trained if (one.epsilon, one.bands, one.learning_rate) == key]
        losses = [one.loss for one in same]
        rows.append(
            f"| {key[0]:g} | {key[1]} | {key[2]:g} | {same[0].noise_multiplier:.3f} | "
            f"{same[0].noise_of_sums:.2f} | {statistics.mean(losses):.4f} | "
            f"{min(losses):.4f} to {max(losses):.4f} | "
            f"{statistics.mean(one.top1 for one in same):.4f} |"
        )
    return "\n".join(rows)


def numbers(text: str) -> list[float]:
    """Of a list with commas."""
    return [float(part) for part in text.split(",")]


def main() -> None:
    """Train, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epsilons", type=numbers, default=EPSILONS)
    parser.add_argument("--learning-rates", type=numbers, default=RATES)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    documents, texts = split(read(asked.data / "newsgroups/train.jsonl", "author"))
    prose = (document.text for document in read(asked.data / "public_prose"))
    tokenizer = train_tokenizer(prose, vocab_size=VOCABULARY)
    trained = [
        train_one(plan_of(epsilon, bands, asked.steps), rate, seed, documents, texts, tokenizer)
        for seed in range(asked.seeds)
        for epsilon in asked.epsilons
        for bands in BANDS
        for rate in asked.learning_rates
    ]
    print(table(trained))
    if asked.out:
        facts = {
            "schema": "dpmlm.correlated/1",
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "versions": {name: version(name) for name in ("torch", "dp-accounting")},
            "settings": {
                "steps": asked.steps, "expected_batch_size": BATCH, "units": UNITS, "delta": DELTA,
                "window": WINDOW, "model": "tiny", "held_out_posts": len(texts),
            },
            "trained": [asdict(one) for one in trained],
        }  # fmt: skip
        asked.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
