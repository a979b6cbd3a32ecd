"""How often tokens are masked, by how many pieces their words have, on real text.

    python benchmarks/masking_rates.py --public prose.jsonl --text answers.jsonl

A WordPiece vocabulary is trained on the public text; the other text is split by it, cut into rows,
and masked by each strategy. A table is printed and, with --json, written.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np

from dpmlm.masking import Example, MaskingSpec, Strategy, TokenTable, make_batch
from dpmlm.pipeline.data import read_public
from dpmlm.tokens import train_tokenizer
from dpmlm.tokens.encoder import Encoder

MOST = 7
"""Words of this many pieces and more are told together."""


def pieces_of(tokens: np.ndarray, table: TokenTable) -> np.ndarray:
    """Of each token, how many pieces its word has, int64 [N]; 0 of tokens that are never masked."""
    maskable = ~table.special[tokens]
    word = np.cumsum(table.word_starts(tokens[None], maskable[None])[0]) - 1
    size = np.bincount(word[maskable], minlength=len(tokens) + 1)
    return np.where(maskable, size[np.maximum(word, 0)], 0)


def measure(
    rows: list[np.ndarray], table: TokenTable, strategy: Strategy, window: int
) -> dict[str, Any]:
    """Share of the tokens that are masked by word length, and milliseconds for 256 rows."""
    spec = MaskingSpec(strategy)
    seen, masked, seconds = np.zeros(MOST + 1), np.zeros(MOST + 1), []
    for first in range(0, len(rows), 256):
        part = rows[first : first + 256]
        made = [Example(str(first + i), row) for i, row in enumerate(part)]
        start = time.process_time()
        batch = make_batch(
            made, [0] * len(made), seed=b"rates", table=table, spec=spec, window=window
        )
        if len(part) == 256:
            seconds.append(time.process_time() - start)
        for b, row in enumerate(part):
            pieces = np.minimum(pieces_of(row, table), MOST)
            seen += np.bincount(pieces, minlength=MOST + 1)
            hit = batch.masked_positions[b][batch.masked_weights[b].bool()].numpy() - 1
            masked += np.bincount(pieces[hit], minlength=MOST + 1)
    rates = masked[1:] / np.maximum(seen[1:], 1)
    return {
        "masked": [round(float(rate), 4) for rate in rates],
        "of_all": round(float(masked.sum() / seen[1:].sum()), 4),
        "slots": spec.masked_slots(window),
        "cpu_ms_256_rows": round(1e3 * float(np.median(seconds)), 1) if seconds else None,
        "tokens": [round(float(share), 4) for share in seen[1:] / seen[1:].sum()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--public", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--window", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    tokenizer = train_tokenizer(
        (d.text for d in read_public(given.public, "text")), vocab_size=given.size
    )
    table, encoder = TokenTable.of(tokenizer), Encoder(tokenizer)
    texts = [d.text for d, _ in zip(read_public(given.text, "text"), range(given.documents))]
    found: dict[str, Any] = {"size": given.size, "documents": len(texts), "windows": {}}
    for window in given.window:
        room = window - 2
        rows = [
            ids[first : first + room].astype(np.int64)
            for ids in encoder.encode(texts)
            for first in range(0, len(ids), room)
        ]
        results = {name: measure(rows, table, name, window) for name in get_args(Strategy)}
        found["windows"][str(window)] = {"rows": len(rows)} | results
        print(f"window {window}, {len(rows)} rows; masked by pieces of the word, {MOST} and more")
        heads = "".join(f"{n:>8}" for n in range(1, MOST + 1))
        print(f"{'':12}{heads}{'all':>8}{'slots':>7}{'ms':>7}")
        shares = "".join(f"{share:8.4f}" for share in results["token"]["tokens"])
        print(f"{'tokens':12}{shares}")
        for name, one in results.items():
            rates = "".join(f"{rate:8.4f}" for rate in one["masked"])
            ms = one["cpu_ms_256_rows"]
            print(f"{name:12}{rates}{one['of_all']:8.4f}{one['slots']:7}{ms if ms else '-':>7}")
    if given.json:
        found["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
