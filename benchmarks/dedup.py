"""Deduplication side by side with datasketch used the usual way, on the same posts, one core.

    OMP_NUM_THREADS=1 DPMLM_DATA=... python benchmarks/dedup.py --out benchmarks/results/dedup.json

Ours is all of it: tokenise, signatures, candidates, exact proof, clusters, and reading what stays.
The peer is the recipe of datasketch's own documentation: a regular expression for words, one
MinHash a text, MinHashLSH at the threshold, and the clusters of what it returns, unproven. Rates
are of processor time, the median of several rounds in turn. The larger corpora are the same posts
several times over, every word with the number of its copy, so that copies do not resemble.
"""

import argparse
import json
import os
import re
import resource
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH

from dpmlm.config import DedupConfig, PassagesConfig
from dpmlm.dedup import Held, bands, decide
from dpmlm.dedup.shingles import jaccard, shingle_set
from dpmlm.pipeline.duplicates import settle

THRESHOLD = 0.8
_WORD = re.compile(r"\w+")
Rows = list[dict[str, Any]]


def read(data: Path) -> Rows:
    """The posts as stage documents, each its own unit."""
    lines = (data / "newsgroups" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    posts = map(json.loads, lines)
    return [{"id": p["id"], "text": p["text"], "unit": p["id"], "split": "train"} for p in posts]


def ours(rows: Rows, **rules: Any) -> int:
    """How many stay."""
    outcome = settle(Held(rows), DedupConfig(**rules), unit="document", key=bytes(32))
    return sum(1 for _ in outcome.staying())


def peer(rows: Rows) -> tuple[int, list[tuple[int, int]]]:
    """How many stay, and the pairs that were joined."""
    index = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    root = list(range(len(rows)))
    pairs = []

    def top(node: int) -> int:
        while root[node] != node:
            node = root[node]
        return node

    for number, row in enumerate(rows):
        words = _WORD.findall(row["text"].lower())
        shingles = {" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))}
        sketch = MinHash(num_perm=128)
        sketch.update_batch([shingle.encode() for shingle in shingles])
        for other in index.query(sketch):
            pairs.append((other, number))
            low, high = sorted((top(other), top(number)))
            root[high] = low
        index.insert(number, sketch)
    return sum(top(node) == node for node in root), pairs


def rate(rows: Rows, work: Callable[[Rows], Any], rounds: int) -> float:
    """Posts a second of processor time."""
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        work(rows)
        taken.append(time.process_time() - started)
    return len(rows) / statistics.median(taken)


def larger(rows: Rows, times: int) -> Rows:
    """The corpus several times over, without resemblance between the copies."""
    copies = []
    for copy in range(times):
        for row in rows:
            text = row["text"] if copy == 0 else _WORD.sub(rf"\g<0>{copy}", row["text"])
            copies.append(row | {"id": f"{copy}-{row['id']}", "text": text})
    return copies


def bytes_a_document(rows: Rows) -> float:
    """Python memory that a decision holds for each document, beside what is bounded: names, texts
    and signatures are on the shelf, and of the band keys one band is held at a time."""
    shelf, held = InParts(rows), bands._KEYS_HELD
    bands._KEYS_HELD = len(rows)
    tracemalloc.start()
    decide(shelf, DedupConfig(near=None), unit="person", key=bytes(32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    bands._KEYS_HELD = held
    return peak / len(rows)


class InParts(Held):
    """Signatures in parts, as shards have them."""

    def signatures(self) -> Iterator[np.ndarray]:
        """A thousand at a time."""
        for values in super().signatures():
            yield from np.array_split(values, max(1, len(values) // 1000))


def measure(rows: Rows, rounds: int) -> dict[str, Any]:
    """Everything the table says."""
    ours(rows[:100])  # tables of character classes are made once a process
    stay, joined = peer(rows)
    proven = sum(
        jaccard(shingle_set(rows[a]["text"]), shingle_set(rows[b]["text"])) >= THRESHOLD
        for a, b in joined
    )
    passages = PassagesConfig(cut=True)
    facts: dict[str, Any] = {
        "posts": len(rows),
        "stay": {"ours": ours(rows), "datasketch": stay},
        "datasketch_pairs": {"joined": len(joined), "at_threshold": proven},
        "posts_a_second": {
            "ours": rate(rows, ours, rounds),
            "ours_near_0.5": rate(rows, lambda r: ours(r, near={"threshold": 0.5}), rounds),
            "ours_with_passages": rate(rows, lambda r: ours(r, passages=passages), rounds),
            "datasketch": rate(rows, peer, max(1, rounds // 3)),
        },
        "posts_a_second_by_size": {},
        "bytes_a_document": bytes_a_document(larger(rows, 4)),
    }
    for times in (1, 2, 4, 8):
        more = larger(rows, times)
        facts["posts_a_second_by_size"][str(len(more))] = rate(more, ours, max(1, rounds // 3))
    facts["peak_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return facts


def table(facts: dict[str, Any]) -> str:
    """For a person."""
    rates = facts["posts_a_second"]
    lines = ["| deduplication | posts/s a core |", "| --- | ---: |"]
    lines += [f"| {name.replace('_', ' ')} | {value:,.0f} |" for name, value in rates.items()]
    lines += [f"| ratio to datasketch | {rates['ours'] / rates['datasketch']:.1f} |"]
    for size, value in facts["posts_a_second_by_size"].items():
        lines.append(f"| ours, {int(size):,} posts | {value:,.0f} |")
    joined = facts["datasketch_pairs"]
    lines.append(f"\ndatasketch joined {joined['joined']} pairs, {joined['at_threshold']} of them "
                 f"at {THRESHOLD} or more; {facts['bytes_a_document']:.0f} bytes a document held "
                 "for a decision")  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("DPMLM_DATA"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.data is None:
        parser.error("give --data or DPMLM_DATA: the folder with newsgroups/train.jsonl")
    facts = measure(read(given.data), given.rounds)
    print(table(facts))
    if given.out:
        given.out.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
