"""Cuts MedQuAD into two corpora of different subjects, and public text beside them.

    data/first.jsonl     240 answers about genetic conditions: the first run's private corpus
    data/second.jsonl    240 answers about other conditions: the second run's
    data/earlier.jsonl   300 answers about genetic conditions that neither run reads: what the first
                         model could do, and the second should still do
    data/public.jsonl    1,000 others of both kinds: the vocabulary and the control

The file is $DPMLM_DATA/medquad/train.jsonl. All of MedQuAD is published text; the two corpora stand
for private ones here. Run it again and the same files come out.
"""

import json
import os
import random
from pathlib import Path

HERE = Path(__file__).parent
GENETIC = "3_GHR_QA"
LONGEST = 600
"""Characters of an answer that are kept: scrubbing takes most of the time."""


def main() -> None:
    source = Path(os.environ["DPMLM_DATA"]) / "medquad/train.jsonl"
    rows = [json.loads(line) for line in source.open(encoding="utf-8")]
    random.Random(1).shuffle(rows)
    genetic = [row for row in rows if row["source"] == GENETIC]
    others = [row for row in rows if row["source"] != GENETIC]
    written = {
        "first": genetic[:240],
        "second": others[:240],
        "earlier": genetic[240:540],
        "public": genetic[540:1040] + others[240:740],
    }
    (HERE / "data").mkdir(exist_ok=True)
    for name, part in written.items():
        lines = (
            json.dumps({"id": row["id"], "text": row["text"][:LONGEST]}) + "\n" for row in part
        )
        (HERE / "data" / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"data/{name}.jsonl: {len(part):,} answers")


if __name__ == "__main__":
    main()
