"""How long a stop takes: from SIGTERM to the end of the process, its checkpoint written.

    python benchmarks/stopping.py --out benchmarks/results/stopping.json

Trains models of several sizes on made-up text and stops each training in the middle of a step, some
times in a row; every attempt goes on from the checkpoint that the one before left. What is to be
reached is 30 s: the grace period of Slurm, Kubernetes and torchrun unless they are told otherwise.
Prints the table; times are those of the machine as it was.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from transformers import BertConfig, BertForMaskedLM

from dpmlm.pipeline.start import initialise
from dpmlm.tokens import train_tokenizer

SIZES = {"tiny": (128, 2, 2), "small": (512, 4, 8), "base": (768, 12, 12)}
"""Name to (hidden size, layers, heads)."""
AS_IT_IS = Path(__file__).parents[1] / "examples/masking/as-it-is.yaml"
"""A policy that changes nothing."""
ALLOWED = 30.0
"""Seconds."""
STOPPED = 143


def new_run(folder: Path, size: str, rows: int) -> None:
    """Keys, ledger and made-up text for a training that lasts longer than anybody waits."""
    rng = random.Random(1)
    words = [f"word{number}" for number in range(400)]
    texts = (" ".join(rng.choices(words, k=150)) for _ in range(400))
    lines = (json.dumps({"id": str(n), "text": text}) for n, text in enumerate(texts))
    (folder / "private.jsonl").write_text("\n".join(lines))
    tokenizer = train_tokenizer((" ".join(words) for _ in range(3)), vocab_size=30_000)
    hidden, layers, heads = SIZES[size]
    sizes = BertConfig(
        vocab_size=30_000, hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=4 * hidden,
    )  # fmt: skip
    BertForMaskedLM(sizes).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    run = {
        "name": size,
        "workspace": "work",
        "keys": {"identity": "keys/trainer.key", "signing": "keys/sign.key",
                 "scrub": "keys/pseudonym.key"},
        "ledger": {"path": "ledger.jsonl", "cap": {"epsilon": 1000, "delta": 1e-3}},
        "corpus": {"path": "private.jsonl", "id": "id", "text": "text"},
        "scrub": {"policy": str(AS_IT_IS)},
        "tokens": {"vocabulary": "model", "window": 128},
        "model": {"from": "model"},
        "privacy": {"unit": "document", "epsilon": 8, "delta": 1e-4, "units": 1000,
                    "accountant": "rdp"},
        "training": {"steps": 500, "expected_batch_size": 16, "checkpoint_minutes": 60,
                     "physical_batch_size": rows},
        "audit": {"canaries": 0},
        "release": {"recipients": ["keys/consumer.pub"]},
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    initialise(folder)


def seconds_to_stop(folder: Path) -> float:
    """Of one attempt, two steps after it began."""
    ledger = folder / "ledger.jsonl"
    before = ledger.read_text().count('"charge"')
    command = [sys.executable, "-m", "dpmlm.cli.main", "train", "run.yaml"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        while ledger.read_text().count('"charge"') < before + 3:
            if process.poll() is not None:
                raise SystemExit(process.communicate()[1])
            time.sleep(0.05)
        time.sleep(0.2)  # into the step
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
        seconds = time.monotonic() - begun
    if process.returncode != STOPPED:
        raise SystemExit(f"status {process.returncode}: {said}")
    return seconds


def megabytes(folder: Path) -> float:
    """Of the newest checkpoint."""
    newest = max((folder / "work/training/checkpoints").iterdir())
    return sum(file.stat().st_size for file in newest.iterdir()) / 1e6


def measure(size: str, rows: int, times: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        new_run(folder, size, rows)
        found = [seconds_to_stop(folder) for _ in range(times)]
        return {"size": size, "rows": rows, "seconds": found, "megabytes": megabytes(folder)}


def table(measured: list[dict[str, Any]]) -> str:
    lines = [
        "| model | rows of a physical batch | checkpoint, MB | seconds, median | longest "
        "| allowed |",
        "| --- " * 6 + "|",
    ]
    for one in measured:
        seconds = one["seconds"]
        lines.append(
            f"| {one['size']} | {one['rows']} | {one['megabytes']:.0f} "
            f"| {statistics.median(seconds):.1f} | {max(seconds):.1f} of {len(seconds)} "
            f"| {ALLOWED:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--rows", type=int, default=8, help="rows of a physical batch")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    measured = []
    for size in asked.sizes:
        measured.append(measure(size, asked.rows, asked.times))
        print(table(measured[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    facts = {
        "schema": "dpmlm.stopping/1",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "measured": measured,
    }
    asked.out.write_text(json.dumps(facts, indent=1) + "\n")
    print(table(measured))


if __name__ == "__main__":
    main()
