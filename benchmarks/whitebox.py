"""White-box gradient canaries on a small BERT: the bounds that transcripts of correct runs give.

    python benchmarks/whitebox.py --data $DPMLM_DATA --out benchmarks/results/whitebox.json

Trains from other initial weights, coins, samples and noise each time, at epsilon 8, delta 1e-5,
150 steps at a sampling rate of 0.05, with 1,000 gradient canaries beside rows of public prose, and
judges each transcript. `--fault` trains wrongly: with half the noise, or with canaries of twice the
clipping norm.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM

from audits.claim.whitebox import Transcript, judge_whitebox, plan_gradient_canaries
from dpmlm import make_plan
from dpmlm.artifacts import new_identity
from dpmlm.corpus import Document, read_corpus
from dpmlm.masking import Example, MaskingSpec, TokenTable
from dpmlm.privacy import PrivacyPlan
from dpmlm.tokens import Encoder, train_tokenizer
from dpmlm.training import (
    Checkpoints,
    GradientCanaries,
    PublicText,
    Recipe,
    gradients,
    optimizer,
    train,
)
from dpmlm.training.units import View

WINDOW, VOCABULARY, ROWS, CANARIES = 32, 2000, 1300, 1000
STEPS, UNITS, BATCH, EPSILON, DELTA = 150, 2000, 100, 8.0, 1e-5
TARGET = 2.5
"""Least f-DP bound, mean of the seeds."""
FAULTS = ("half_noise", "double_norm")


class RowUnits:
    """Every row of tokens as a unit."""

    def __init__(self, rows: list[Any]) -> None:
        self._examples = [Example(f"row {number}", row) for number, row in enumerate(rows)]
        self.names = [example.id for example in self._examples]

    def views(self, index: int, step: int, count: int) -> list[View]:
        return [View(self._examples[index], step)]


def rows_of(texts: list[str], tokenizer: Any) -> list[Any]:
    """The first `ROWS` rows of whole windows."""
    room = WINDOW - 2
    ids = Encoder(tokenizer).encode(texts)
    rows = (one[at : at + room] for one in ids for at in range(0, len(one) - room, room))
    return list(islice(rows, ROWS))


def a_model(tokenizer: Any, seed: int) -> BertForMaskedLM:
    """Two layers of 64."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 256, "max_position_embeddings": WINDOW}
    return BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), pad_token_id=0, **sizes))


@contextmanager
def planted(fault: str | None) -> Iterator[None]:
    """A training with one fault; None trains rightly."""
    noise, tau = optimizer.gaussian_noise, gradients.FLOAT32_TAU
    if fault == "half_noise":
        optimizer.gaussian_noise = lambda shape, std, *a, **k: noise(shape, std / 2, *a, **k)
    if fault == "double_norm":
        gradients.FLOAT32_TAU = -0.5
    try:
        yield
    finally:
        optimizer.gaussian_noise, gradients.FLOAT32_TAU = noise, tau


def one_run(
    plan: PrivacyPlan, units: RowUnits, tokenizer: Any, seed: int, fault: str | None
) -> dict[str, Any]:
    """Train from the initial weights of `seed` and judge."""
    drawn = plan_gradient_canaries(CANARIES)
    bound = replace(plan, bindings={"gradient_canary_commitment": drawn.commitment})
    recipe = Recipe(
        table=TokenTable.of(tokenizer), masking=MaskingSpec(strategy="token", ratio=0.15),
        window=WINDOW, stride=WINDOW, mask_seed=bytes([seed]) * 32, learning_rate=2e-3, warmup=0.1,
        weight_decay=0.01, checkpoint_minutes=1e9,
    )  # fmt: skip
    begun, identity = time.process_time(), new_identity()
    with tempfile.TemporaryDirectory() as folder, planted(fault):
        progress = train(
            a_model(tokenizer, seed), units, bound, recipe, charges=PublicText(),
            checkpoints=Checkpoints(Path(folder), identity, [identity.recipient], bound.digest),
            gradients=GradientCanaries(CANARIES, drawn.members, bytes.fromhex(drawn.seed)),
        )  # fmt: skip
    assert progress.transcript is not None
    transcript = Transcript(progress.transcript, bound.digest, drawn.commitment)
    part = judge_whitebox(drawn, transcript, bound.to_json())
    losses = [event["private"]["loss"] for event in progress.events]
    facts = {"seed": seed, "loss": [losses[0], losses[-1]], "seconds": time.process_time() - begun}
    return facts | {name: part[name] for name in part if name not in ("label", "commitment")}


def table(runs: list[dict[str, Any]]) -> str:
    """A line a run, then the means."""
    rows = [
        "| seed | right, for the test | for the bounds | one-run bound | f-DP bound "
        "| noise, measured / planned | drawn, measured / planned | rejected by |",
        "|" + " --- |" * 8,
    ]
    for run in runs:
        bounds, noise, drawn = run["lower_bound"], run["noise"], run["drawn"]
        rows.append(
            f"| {run['seed']} | {run['correct']} of {run['guesses']} | {bounds['correct']} of "
            f"{bounds['guesses']} | {bounds['one_run']:.2f} | "
            f"{bounds['fdp_one_run']:.2f} | {noise['measured'] / noise['expected']:.4f} | "
            f"{drawn['measured'] / drawn['expected']:.4f} | "
            f"{', '.join(run['rejected_by']) or 'none'} |"
        )
    mean = {
        name: statistics.mean(run["lower_bound"][name] for run in runs)
        for name in ("one_run", "fdp_one_run")
    }
    rows.append(f"| mean | | | {mean['one_run']:.2f} | {mean['fdp_one_run']:.2f} | | | |")
    return "\n".join(rows)


def main() -> None:
    """Train, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--fault", choices=FAULTS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    texts = [d.text for d in read_corpus(asked.data / "public_prose") if isinstance(d, Document)]
    tokenizer = train_tokenizer(texts, vocab_size=VOCABULARY)
    units = RowUnits(rows_of(texts, tokenizer))
    plan = make_plan(
        epsilon=EPSILON, delta=DELTA, units=UNITS, unit="document", expected_batch_size=BATCH,
        steps=STEPS, max_grad_norm=1.0,
    )  # fmt: skip
    runs = []
    for seed in range(asked.seeds):
        runs.append(one_run(plan, units, tokenizer, seed, asked.fault))
        print(f"seed {seed}: {runs[-1]['seconds']:.0f} s", flush=True)
    print(table(runs))
    bound = statistics.mean(run["lower_bound"]["fdp_one_run"] for run in runs)
    if asked.out:
        facts = {
            "schema": "dpmlm.whitebox/1",
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "versions": {name: version(name) for name in ("torch", "numpy", "dp-accounting")},
            "settings": {
                "epsilon": EPSILON, "delta": DELTA, "steps": STEPS, "sample_rate": BATCH / UNITS,
                "canaries": CANARIES, "rows": len(units.names), "fault": asked.fault,
                "noise_multiplier": plan.noise_multiplier,
                "parameters": sum(math.prod(p.shape) for p in a_model(tokenizer, 0).parameters()),
            },
            "fdp_one_run_mean": bound,
            "target": TARGET,
            "runs": runs,
        }  # fmt: skip
        asked.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
