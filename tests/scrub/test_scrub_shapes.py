import json
import re
from collections import Counter
from pathlib import Path

from dpmlm import scrub
from dpmlm.scrub import Scrubber
from dpmlm.scrub.training.shapes import SENTENCES, SHAPES, left_by

CARD = Path(scrub.__file__).parent / "model" / "MODEL_CARD.md"


def _told_by_the_card() -> dict[str, tuple[int, int, set[str]]]:
    """Found, of, and what is left, by shape, as the card says."""
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \| ([^|]*)\|$", CARD.read_text("utf-8"), re.M)
    return {
        shape: (int(found), int(of), set(re.findall("`([^`]+)`", left)))
        for shape, found, of, left in rows
        if shape in SHAPES
    }


def test_names_of_every_shape_are_found_or_told_in_the_card(scrubber: Scrubber) -> None:
    left: dict[str, set[str]] = {shape: set() for shape in SHAPES}
    for sentence, name in left_by(scrubber):
        left[sentence.shape].add(name)
    names = Counter(s.shape for s in SENTENCES for _ in s.names)
    expected = {s: (names[s] - len(left[s]), names[s], left[s]) for s in SHAPES}
    assert _told_by_the_card() == expected
    assert sum(map(len, left.values())) <= 0.08 * sum(names.values())
    for shape in ("header lines", "lists", "odd blanks and line ends", "addresses"):
        assert not left[shape]


def test_blanks_of_every_kind_change_nothing(scrubber: Scrubber) -> None:
    plain = (
        "Dear Mr Carmichael,\n\nI saw Dr Anita Desmond on 4 May 2011.\nRegards,\nPhilippa Grange\n"
    )
    expected = [(d.entity, plain[d.start : d.end]) for d in scrubber.scrub(plain).decisions]
    assert len(expected) >= 4
    for blank in "\u00a0\u2009\u3000":
        text = plain.replace(" ", blank)
        found = [(d.entity, text[d.start : d.end]) for d in scrubber.scrub(text).decisions]
        assert [(e, v.replace(blank, " ")) for e, v in found] == expected
    windows = plain.replace("\n", "\r\n")
    found = {(d.entity, windows[d.start : d.end]) for d in scrubber.scrub(windows).decisions}
    assert found >= set(expected)


def test_recall_beside_the_model_is_that_of_the_card() -> None:
    kept = json.loads((CARD.parent / "recall.json").read_text("utf-8"))
    card = CARD.read_text("utf-8")
    for name, report in kept.items():
        assert f"### {name}, {report['documents']} texts" in card
        right = report["precision"]
        assert f"| precision | {right['right']} | {right['characters']} |" in card
