"""Characters a second of the recognizers, in one process, by the length of the document.

    python benchmarks/analyzer.py --data $DPMLM_DATA

Three rounds, each with 200,000 characters of newsgroup posts of its own, cut into documents of each
length in turn: every length reads the same text. What the project remembers of words and lines is
forgotten before each. A figure is the median of the rounds, in seconds of the process, so that
other work on the machine counts little. Prints the table of docs/data.md and writes
benchmarks/results/analyzer.json. `presidio` is AnalyzerEngine with the same recognizers of Presidio
and no names; `patterns` finds the same, `with own` what the project adds too, `default` what the
default policy asks for, and `fast` and `best` scrub with it, names included.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELPERS = Path(__file__).parents[1] / "tests" / "helpers"
LENGTHS = (5_000, 20_000, 80_000, 200_000)
OUT = Path(__file__).parent / "results" / "analyzer.json"


def pools(posts: list[str], rounds: int) -> list[str]:
    """Texts of the greatest length, from posts of their own."""
    step = len(posts) // rounds
    return ["\n\n".join(posts[i * step : (i + 1) * step])[: LENGTHS[-1]] for i in range(rounds)]


def forget() -> None:
    """Words and lines seen before."""
    from dpmlm.scrub.patterns import context, phones

    for cached in (context._tokens, context.is_keyword, phones._matches, phones._most_digits):
        cached.cache_clear()


def columns() -> dict[str, Callable[[str], Any]]:
    """What is measured, by name."""
    sys.path.append(str(HELPERS))
    from presidio_peer import stock_analyzer

    from dpmlm.scrub import Scrubber, load_policy
    from dpmlm.scrub.patterns.search import Patterns
    from dpmlm.scrub.recognizers.registry import own_recognizers, presidio_recognizers

    stock = stock_analyzer(keywords=None)
    entities = stock.get_supported_entities("en")
    best = load_policy("default")
    fast = best.model_copy(update={"engine": best.engine.model_copy(update={"mode": "fast"})})
    both = [*presidio_recognizers(), *own_recognizers()]
    return {
        "presidio": lambda text: stock.analyze(text, language="en", entities=entities),
        "patterns": Patterns(presidio_recognizers()).find,
        "with own": Patterns(both).find,
        "default": Patterns(both, lambda entity: best.rule_for(entity).threshold).find,
        "fast": Scrubber(fast).scrub,
        "best": Scrubber(best).scrub,
    }


def measure(posts: list[str], rounds: int) -> list[dict[str, Any]]:
    """A row for each length: characters a second of each column."""
    found = columns()
    for find in found.values():  # what is loaded on first use is loaded
        find(posts[0][:2000])
    rows = []
    for length in LENGTHS:
        speeds: dict[str, list[float]] = {name: [] for name in found}
        for text in pools(posts[1:], rounds):
            pieces = [text[at : at + length] for at in range(0, len(text), length)]
            for name, find in found.items():
                forget()
                begin = time.process_time()
                for piece in pieces:
                    find(piece)
                speeds[name].append(len(text) / (time.process_time() - begin))
        medians = {name: statistics.median(each) for name, each in speeds.items()}
        rows.append({"length": length, **medians})
        print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """Of the table."""
    names = [name for name in row if name != "length"]
    speeds = " | ".join(f"{row[name]:,.0f}" for name in names)
    ratio = row["patterns"] / row["presidio"]
    return f"| {row['length']:,} | {speeds} | {ratio:.1f} |"


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    lines = (given.data / "newsgroups/train.jsonl").read_text(encoding="utf-8").splitlines()
    posts = [post for post in (json.loads(row)["text"] for row in lines) if len(post) < 20_000]
    print("| characters | presidio | patterns | with own | default | fast | best "
          "| patterns / presidio |")  # fmt: skip
    print("| --- " * 8 + "|")
    rows = measure(posts, given.rounds)
    ratio = rows[-1]["patterns"] / rows[0]["patterns"]
    print(f"\npatterns, 200,000 characters over 5,000: {ratio:.2f}")
    OUT.write_text(json.dumps({"schema": "analyzer/1", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
