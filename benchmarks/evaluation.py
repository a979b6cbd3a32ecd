"""What adaptation changed, with privacy and without: the tables of docs/results.md, Evaluation.

    examples/recipes/evaluate.sh $DPMLM_DATA base out
    python benchmarks/evaluation.py out/private.json out/free.json

Prints Markdown from two files of `dpmlm evaluate --show-private --out` about one base model: of a
run with privacy, and of one without. Their text is public.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
_WHOLE = (
    ("right at the first guess, %", "top1", 100, 1),
    ("right among five guesses, %", "top5", 100, 1),
    ("loss, nats", "loss", 1, 3),
    ("perplexity", "perplexity", 1, 1),
    ("bits a byte", "bits_per_byte", 1, 3),
    ("calibration error, points", "calibration_error", 100, 1),
    ("Brier score", "brier", 1, 4),
)
"""Label, name, factor and places of a figure on held-out text."""


def tables(private: Figures, free: Figures) -> list[str]:
    """Whole text, by how common a word is, by group, and probes."""
    return [_whole(private, free), _buckets(private, free), _groups(private, free),
            _probes(private, free)]  # fmt: skip


def _whole(private: Figures, free: Figures) -> str:
    texts = [one["figures"]["held_out"] for one in (private, free)]
    columns = [texts[0]["before"], texts[0]["after"], texts[1]["after"]]
    rows = [
        [label, *(f"{factor * column[name]:.{places}f}" for column in columns)]
        for label, name, factor, places in _WHOLE
    ]
    pseudo = [one["figures"]["pseudo"] for one in (private, free)]
    alone = [pseudo[0]["before"], pseudo[0]["after"], pseudo[1]["after"]]
    rows.append(["pseudo-perplexity", *(f"{one['perplexity']:.1f}" for one in alone)])
    changes = [_points(text["intervals"]["change"]["top1"]) for text in texts]
    rows.append(["change of the first line, points", "", *changes])
    gaps = [_points(text["trained_on"]["gap"]["top1"]) for text in texts]
    rows.append(["held out minus trained on, points", "", *gaps])
    return _table(["", "public base", "with privacy", "without"], rows)


def _buckets(private: Figures, free: Figures) -> str:
    pairs = zip(*(one["figures"]["held_out"]["buckets"] for one in (private, free)), strict=True)
    rows = []
    for one, other in pairs:
        before, after, without = (
            side["top1"] for side in (one["before"], one["after"], other["after"])
        )
        shares = [f"{100 * share:.1f}" for share in (before, after, without)]
        kept = _share(after - before, without - before)
        rows.append([one["bucket"], str(one["tokens"]), *shares, kept])
    head = ["occurrences in a million words", "hidden", "public base", "with privacy", "without"]
    return _table([*head, "share of the gain"], rows)


def _groups(private: Figures, free: Figures) -> str:
    pairs = zip(*(one["figures"]["groups"] for one in (private, free)), strict=True)
    rows = []
    for one, other in pairs:
        changes = [side["change"]["top1"] for side in (one, other)]
        kept = _share(*(change["value"] for change in changes))
        rows.append([one["group"], str(one["documents"]), *map(_points, changes), kept])
    head = ["source", "documents", "with privacy, points", "without, points", "share of the gain"]
    return _table(head, rows)


def _probes(private: Figures, free: Figures) -> str:
    rows = []
    for one, other in zip(private["probes"], free["probes"], strict=True):
        figures = [one["figures"]["before"], one["figures"]["after"], other["figures"]["after"]]
        rows.append([one["probe"], *map(_interval, figures)])
        changes = [_interval(side["change"], sign="+") for side in (one, other)]
        rows.append([f"{one['probe']}, change", "", *changes])
    return _table(["probe", "public base", "with privacy", "without"], rows)


def _points(figure: Figures) -> str:
    return _interval(figure, factor=100, places=1, sign="+")


def _interval(figure: Figures, *, factor: int = 1, places: int = 3, sign: str = "") -> str:
    """With its interval, which a figure of few units has none of."""
    value, *ends = (
        "" if figure[name] is None else f"{factor * figure[name]:{sign}.{places}f}"
        for name in ("value", "low", "high")
    )
    return f"{value} ({' to '.join(ends)})" if all(ends) else value


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole > 0 else "-"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("private", type=Path, help="of the run with privacy")
    parser.add_argument("free", type=Path, help="of the one without")
    asked = parser.parse_args()
    print("\n\n".join(tables(*(json.loads(p.read_text()) for p in (asked.private, asked.free)))))


if __name__ == "__main__":
    main()
