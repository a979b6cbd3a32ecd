"""Recall of the whole scrubber on text that its name finder has not seen: k-fold over two sets.

    python benchmarks/recall.py --data $DPMLM_DATA --models /tmp/folds

Court judgments (by document) and templated sentences (by template) fall into folds by a hash of
their names. For each fold the name finder is trained on the others, kept in a folder of
`--models`, and the whole scrubber is measured on the fold under each policy; a fold whose model
or counts are there already is not made again. Counts are added up over the folds. Prints the
table of docs/data.md and writes benchmarks/results/recall.json: counts, never text.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpmlm.canonical import digest
from dpmlm.scrub import Scrubber, load_policy, measure_recall
from dpmlm.scrub.recall import Rate
from dpmlm.scrub.train import EPOCHS, train
from dpmlm.scrub.training.examples import FOLDS, gold_rows, read_examples

SETS = {"tab": "court judgments", "pii_synthetic": "templated sentences"}
POLICIES = ("default", "strict")
TARGETS = (
    ("tab", "PERSON/DIRECT", 0.97),
    ("tab", "CODE/DIRECT", 0.98),
    ("tab", "DATETIME", 0.96),
    ("tab", "DIRECT", 0.97),
    ("tab", "QUASI", 0.86),
    ("tab", "precision", 0.88),
    ("pii_synthetic", "PERSON", 0.90),
    ("pii_synthetic", "ADDRESS", 0.80),
    ("pii_synthetic", "ORGANIZATION", 0.80),
    ("pii_synthetic", "all", 0.88),
    ("pii_synthetic", "precision", 0.88),
)
RESULT = Path(__file__).parent / "results" / "recall.json"

Counts = dict[str, list[int]]
"""Hits and total by "TYPE", "TYPE/IDENTIFIER", "IDENTIFIER", "all" and "precision"."""


def fold_counts(model: Path, data: Path, fold: int, folds: int) -> dict[str, Any]:
    """Counts by "policy/set" of one fold, and characters a second of each; kept beside the model.

    They count as made by the model and the code of `dpmlm/scrub` that made them: other weights or
    other code measure again.
    """
    kept = model / "counts.json"
    mark = _mark(model)
    if kept.is_file() and (found := json.loads(kept.read_text()))["mark"] == mark:
        return found
    counts: dict[str, Any] = {"mark": mark}
    for policy in POLICIES:
        asked = load_policy(policy)
        engine = asked.engine.model_copy(update={"spacy": str(model)})
        scrubber = Scrubber(asked.model_copy(update={"engine": engine}))
        scrubber.scrub("The model is loaded before the clock runs.")
        for name in SETS:
            rows = gold_rows(data, name, fold, folds)
            began = time.process_time()
            report = measure_recall(scrubber, rows)
            seconds = time.process_time() - began
            rates = {**report.by_type, **report.by_type_and_identifier, **report.by_identifier}
            rates |= {"all": report.recall, "precision": report.precision}
            counts[f"{policy}/{name}"] = {
                "documents": report.documents,
                "characters": sum(len(row["text"]) for row in rows),
                "seconds": round(seconds, 2),
                "counts": {kind: [rate.hits, rate.total] for kind, rate in rates.items()},
            }
    kept.write_text(json.dumps(counts, indent=1) + "\n")
    return counts


def _mark(model: Path) -> str:
    """Digest of the weights and of the code and policies that measure."""
    root = Path(__file__).parents[1]
    files = [*model.glob("*/ner/model"), *(root / "dpmlm/scrub").rglob("*.py")]
    files += (root / "policies/scrub").glob("*.yaml")
    return digest({str(path): digest(path.read_bytes()) for path in sorted(files)})


def pooled(of_folds: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """One entry of `fold_counts` added up over the folds."""
    total: dict[str, Any] = {"documents": 0, "characters": 0, "seconds": 0.0, "counts": {}}
    for fold in of_folds:
        part = fold[key]
        for name in ("documents", "characters", "seconds"):
            total[name] += part[name]
        for kind, (hits, of) in part["counts"].items():
            sums = total["counts"].setdefault(kind, [0, 0])
            sums[0] += hits
            sums[1] += of
    return total


def table(counts: Mapping[str, Mapping[str, Counts]]) -> list[str]:
    """A line a kind, a column a policy; the interval is of the last policy's recall."""
    heads = [f"{policy} | 95 % interval" for policy in counts]
    lines = [
        f"| spans | of | {' | '.join(heads)} |",
        "| --- | ---: |" + " ---: | --- |" * len(heads),
    ]
    first = next(iter(counts.values()))
    for kind in sorted(first, key=lambda k: (k in ("precision", "all"), "/" not in k, k)):
        cells = []
        for of_policy in counts.values():
            rate = Rate(*of_policy[kind])
            low, high = rate.interval
            cells += [
                "-" if rate.value is None else f"{rate.value:.3f}",
                "" if kind == "precision" else f"{low:.3f} to {high:.3f}",
            ]
        lines.append(f"| {kind} | {first[kind][1]} | {' | '.join(cells)} |")
    return lines


def figures(sums: Mapping[str, Any], of_folds: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each figure to reach: each policy over all folds, the first in each fold."""
    heads = [*POLICIES, *(f"fold {fold}" for fold in range(len(of_folds)))]
    lines = [f"| figure to reach | at least | {' | '.join(heads)} |"]
    lines.append("| --- |" + " ---: |" * (len(heads) + 1))
    for name, kind, least in TARGETS:
        parts = [sums[f"{policy}/{name}"] for policy in POLICIES]
        parts += [fold[f"{POLICIES[0]}/{name}"] for fold in of_folds]
        values = [Rate(*part["counts"].get(kind, (0, 0))).value for part in parts]
        shown = ["-" if v is None else f"{v:.3f}" if v >= least else f"**{v:.3f}**" for v in values]
        lines.append(f"| {SETS[name]}, {kind} | {least:.2f} | {' | '.join(shown)} |")
    return lines


def main() -> None:
    """Train what is missing, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--models", type=Path, required=True, help="folder that keeps the models")
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    of_folds = []
    for fold in range(asked.folds):
        model = asked.models / f"{fold}-of-{asked.folds}"
        if not (model / "training.json").is_file():  # written last
            examples = read_examples(asked.data, (fold,), asked.folds)
            train(examples, model, seed=asked.seed, epochs=asked.epochs)
        of_folds.append(fold_counts(model, asked.data, fold, asked.folds))
    keys = [f"{policy}/{name}" for policy in POLICIES for name in SETS]
    sums = {key: pooled(of_folds, key) for key in keys}
    counts = {key: of["counts"] for key, of in sums.items()}
    for name, words in SETS.items():
        first = sums[f"{POLICIES[0]}/{name}"]
        print(f"\n{words}: {first['documents']} texts, {first['characters']:,} characters\n")
        print("\n".join(table({policy: counts[f"{policy}/{name}"] for policy in POLICIES})))
    print("\n" + "\n".join(figures(sums, of_folds)))
    settings = {"folds": asked.folds, "seed": asked.seed, "epochs": asked.epochs}
    by_fold = [{key: fold[key]["counts"] for key in keys} for fold in of_folds]
    facts = {"schema": "dpmlm.recall.folds/1", "settings": settings}
    facts |= {"results": sums, "by_fold": by_fold}
    asked.out.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
