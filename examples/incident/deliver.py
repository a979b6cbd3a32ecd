"""Cuts MedQuAD into eight weekly deliveries, spoils a ninth, and writes the run files for them.

    data/before/week1..8.jsonl   60 answers each: the corpus as it was
    data/new/week1..9.jsonl      the same and a ninth week of 420, whose words and letters are
                                 shuffled: sound characters, and no language
    public.jsonl                 1,000 other answers: the vocabulary
    new.yaml, after.yaml         run.yaml on the corpus with the ninth week

The file is $DPMLM_DATA/medquad/train.jsonl. Run it again and the same files come out.
"""

import json
import os
import random
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
LONGEST = 600
"""Characters of an answer that are kept: scrubbing takes most of the time."""
WEEKS, A_WEEK, SPOILED, PUBLIC = 8, 60, 420, 1000


def main() -> None:
    source = Path(os.environ["DPMLM_DATA"]) / "medquad/train.jsonl"
    rows = [json.loads(line) for line in source.open(encoding="utf-8")]
    rng = random.Random(2)
    rng.shuffle(rows)
    answers = iter({"id": row["id"], "text": row["text"][:LONGEST]} for row in rows)
    for number in range(1, WEEKS + 1):
        week = [next(answers) for _ in range(A_WEEK)]
        for corpus in ("before", "new"):
            write(f"data/{corpus}/week{number}.jsonl", week)
    spoiled = [next(answers) for _ in range(SPOILED)]
    write(f"data/new/week{WEEKS + 1}.jsonl", (spoil(row, rng) for row in spoiled))
    write("public.jsonl", (next(answers) for _ in range(PUBLIC)))
    settings = (HERE / "run.yaml").read_text(encoding="utf-8")
    for name in ("new", "after"):
        ours = settings.replace("data/before", "data/new").replace("before", name)
        (HERE / f"{name}.yaml").write_text(ours, encoding="utf-8")
        print(f"{name}.yaml")


def spoil(row: dict[str, str], rng: random.Random) -> dict[str, str]:
    words = ["".join(rng.sample(word, len(word))) for word in row["text"].split()]
    rng.shuffle(words)
    return row | {"text": " ".join(words)}


def write(name: str, rows: Iterable[dict[str, str]]) -> None:
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(name)


if __name__ == "__main__":
    main()
