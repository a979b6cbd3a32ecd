"""Recall of e-mail addresses and phone numbers in newsgroup posts that were read by hand.

`newsgroups_gold.json` holds places and kinds, no text. `read_whole`: 100 posts drawn by a seed and
read from end to end. `read_by_line`: 100 further ones, in which every line with an @, an address
spelt out, a bang path, a caption or seven digits was read. Identifiers of articles are no
addresses; of addresses over several hosts the stretch that can be read as one counts.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from dpmlm.scrub import Scrubber

GOLD = json.loads(Path(__file__).with_name("newsgroups_gold.json").read_text())


@pytest.fixture(scope="module")
def posts(shared_data: Path) -> dict[str, str]:
    with (shared_data / "newsgroups" / "train.jsonl").open(encoding="utf-8") as lines:
        return {row["id"]: row["text"] for row in map(json.loads, lines)}


@pytest.mark.full
@pytest.mark.parametrize("sample", sorted(GOLD))
def test_recall_in_posts_read_by_hand(
    sample: str, posts: dict[str, str], scrubber: Scrubber
) -> None:
    there: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for post in GOLD[sample]:
        text = posts[post["id"]]
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == post["sha256"], post["id"]
        covered = {
            i for d in scrubber.scrub(text).decisions for i in range(d.start, d.end)
        } if post["spans"] else set()  # fmt: skip
        for start, end, entity in post["spans"]:
            there[entity] += 1
            found[entity] += covered.issuperset(range(start, end))
    assert len(GOLD[sample]) == 100
    assert there["EMAIL_ADDRESS"] > 100
    assert there["PHONE_NUMBER"] > 20
    recall = {entity: found[entity] / there[entity] for entity in there}
    print(sample, {entity: f"{found[entity]} of {there[entity]}" for entity in there})
    assert recall["EMAIL_ADDRESS"] >= 0.99
    assert recall["PHONE_NUMBER"] >= 0.95
