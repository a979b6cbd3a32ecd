"""Repeated passages against brute force over all runs of words."""

import json
import os
import random
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from dpmlm.config import PassagesConfig
from dpmlm.dedup import passages as module
from dpmlm.dedup.passages import Cut, Passage, Repeated, cut, find_passages

Documents = list[dict]


def find(documents: Documents, words: int, more_than: int) -> Repeated:
    rules = PassagesConfig(words=words, documents=more_than)
    return find_passages(lambda: (documents[i : i + 3] for i in range(0, len(documents), 3)), rules)


def naive(documents: Documents, words: int, more_than: int) -> tuple[dict, dict]:
    """By document, the words (numbered) of passages it keeps, and of those kept elsewhere alone."""
    where: dict[tuple, set] = defaultdict(set)
    spelt = {d["id"]: re.findall(r"\w+", d["text"].lower()) for d in documents}
    for name, text in spelt.items():
        for at in range(len(text) - words + 1):
            where[tuple(text[at : at + words])].add(name)
    kept, elsewhere = defaultdict(set), defaultdict(set)
    for name, text in spelt.items():
        for at in range(len(text) - words + 1):
            having = where[tuple(text[at : at + words])]
            if len(having) > more_than:
                (kept if min(having) == name else elsewhere)[name].update(range(at, at + words))
    alone = {name: of - kept[name] for name, of in elsewhere.items()}
    return (
        {name: of for name, of in kept.items() if of},
        {name: of for name, of in alone.items() if of},
    )


def random_documents(seed: int) -> Documents:
    """Random words with copied stretches; few different words, so that repeats abound."""
    draw = random.Random(seed)
    source = [draw.choice("alpha Beta gamma delta".split()) for _ in range(400)]
    documents = []
    for name in draw.sample(range(100, 999), 12):
        parts = []
        for _ in range(draw.randrange(4)):
            at, size = draw.randrange(360), draw.randrange(5, 40)
            parts += [*source[at : at + size], f"own{draw.randrange(50)}"]
        text = "".join(word + draw.choice([" ", ", ", "\n> ", "  "]) for word in parts)
        documents.append({"id": str(name), "text": text})
    return documents


def ranges_of(cuts: list[Cut]) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in cuts]


def words_in(text: str, ranges: list[tuple[int, int]]) -> set[int]:
    return {
        number
        for number, match in enumerate(re.finditer(r"\w+", text))
        if any(start <= match.start() and match.end() <= end for start, end in ranges)
    }


@pytest.mark.parametrize("more_than", [1, 3])
@pytest.mark.parametrize("seed", range(12))
def test_passages_equal_brute_force(seed: int, more_than: int) -> None:
    documents = random_documents(seed)
    text_of = {d["id"]: d["text"] for d in documents}
    kept, elsewhere = naive(documents, 10, more_than)
    found = find(documents, 10, more_than)
    ranges = defaultdict(list)
    for passage in found.passages:
        ranges[passage.id].append((passage.start, passage.end))
        inside = words_in(text_of[passage.id], [(passage.start, passage.end)])
        assert len(inside) == passage.words >= 10
        assert passage.documents > more_than
    assert {name: words_in(text_of[name], of) for name, of in ranges.items()} == kept
    assert {
        name: words_in(text_of[name], ranges_of(of)) for name, of in found.elsewhere.items()
    } == elsewhere
    assert find(documents[::-1], 10, more_than) == found
    if more_than == 1:
        assert kept


def spelt(text: str) -> str:
    words = " ".join(re.findall(r"\w+", text.lower()))
    return f" {words} "


def check_what_certificates_name(documents: Documents, found: Repeated, words: int) -> int:
    """Holds them against what is left after the cut; how many documents keep and are cut too."""
    text_of = {d["id"]: d["text"] for d in documents}
    cut_of = {name: cut(text, found.elsewhere.get(name, ())) for name, text in text_of.items()}
    left = {name: spelt(text) for name, text in cut_of.items()}
    for passage in found.passages:
        assert text_of[passage.id][passage.start : passage.end] in cut_of[passage.id]
    for name, cuts in found.elsewhere.items():
        all_words = list(re.finditer(r"\w+", text_of[name]))
        for one in cuts:
            inside = [n for n, m in enumerate(all_words) if one.start <= m.start() < one.end]
            near = range(max(inside[0] - words + 1, 0), inside[-1] + 1)
            windows = {
                at: f" {' '.join(m[0].lower() for m in all_words[at : at + words])} "
                for at in near
                if at + words <= len(all_words)
            }
            kept = {at for at in windows if any(windows[at] in left[k] for k in one.kept_in)}
            for word in inside:
                assert any(word - words < at <= word for at in kept)
            for keeper in one.kept_in:
                assert any(window in left[keeper] for window in windows.values())
    return len({passage.id for passage in found.passages} & found.elsewhere.keys())


@pytest.mark.parametrize("more_than", [1, 2])
def test_what_a_certificate_names_is_there_whole_after_the_cut(more_than: int) -> None:
    both = 0
    for seed in range(12):
        documents = random_documents(seed)
        both += check_what_certificates_name(documents, find(documents, 10, more_than), 10)
    assert both > 3


def test_what_a_document_keeps_is_not_cut_for_what_another_keeps() -> None:
    run = [f"w{n}" for n in range(12)]
    own = [[f"{letter}{n}" for n in range(5)] for letter in "abcdefgh"]
    middles = [run[:10], run[2:], run, run]
    texts = [own[2 * n] + middle + own[2 * n + 1] for n, middle in enumerate(middles)]
    documents = [{"id": str(n), "text": " ".join(words)} for n, words in enumerate(texts)]
    found = find(documents, 10, 1)
    # "w1 .. w10" is in documents 2 and 3 alone, so 2 keeps it.
    assert [one.kept_in for one in found.elsewhere["2"]] == [("0",), ("1",)]
    assert spelt(cut(documents[2]["text"], found.elsewhere["2"])).split() == [
        *own[4], *run[1:11], *own[5]
    ]  # fmt: skip
    assert [one.kept_in for one in found.elsewhere["3"]] == [("0", "1", "2")]
    assert spelt(cut(documents[3]["text"], found.elsewhere["3"])).split() == own[6] + own[7]


@pytest.mark.parametrize("seed", range(4))
def test_parts_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = random_documents(seed)
    whole = find(documents, 10, 1)
    monkeypatch.setattr(module, "_WINDOWS_HELD", 40)
    assert find(documents, 10, 1) == whole


def test_a_collision_of_hashes_makes_no_passage(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = random_documents(1)
    whole = find(documents, 10, 1)
    true = module.window_hashes

    def colliding(*given: object) -> tuple:
        hashes, counts = true(*given)
        return hashes % np.uint64(7), counts

    monkeypatch.setattr(module, "window_hashes", colliding)
    assert find(documents, 10, 1) == whole


def test_what_is_cut_leaves_a_line_end() -> None:
    cuts = [Cut(1, 3, ("a",)), Cut(5, 8, ("a", "b"))]
    assert cut("abcdefgh", cuts) == "a\nde\n"
    assert cut("abc", []) == "abc"
    assert cut("abc", [Cut(0, 3, ("a",))]) == "\n"


def test_nothing_to_find() -> None:
    assert find([], 50, 1) == Repeated([], {})
    assert find([{"id": "a", "text": "one two"}], 50, 1) == Repeated([], {})


def test_a_notice_under_many_letters() -> None:
    notice = " ".join(f"clause{n}" for n in range(60))
    documents = [
        {"id": f"{n}", "text": f"Letter {n} to somebody{n}.\n{notice.upper()}\n{n} yours"}
        for n in range(6)
    ]
    found = find(documents, 50, 3)
    start = documents[0]["text"].index("CLAUSE0")
    assert found.passages == [Passage("0", start, start + len(notice), 60, 6)]
    assert sorted(found.elsewhere) == ["1", "2", "3", "4", "5"]
    assert [one.kept_in for one in found.elsewhere["3"]] == [("0",)]
    assert (
        cut(documents[3]["text"], found.elsewhere["3"]).split()
        == "Letter 3 to somebody3. 3 yours".split()
    )
    assert find(documents, 50, 6) == find(documents, 61, 3) == Repeated([], {})


def posts(count: int) -> Documents:
    if "DPMLM_DATA" not in os.environ:
        pytest.skip("DPMLM_DATA is not set: the folder with newsgroups/train.jsonl")
    path = Path(os.environ["DPMLM_DATA"]) / "newsgroups" / "train.jsonl"
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines()[:count])
    documents = [{"id": row["id"], "text": row["text"]} for row in rows]
    return [d | {"text": re.sub("_", "", d["text"])} for d in documents if d["text"].isascii()]


@pytest.mark.full
def test_what_certificates_name_is_there_in_posts() -> None:
    documents = posts(3000)
    found = find(documents, 50, 3)
    assert check_what_certificates_name(documents, found, 50) > 10


@pytest.mark.full
def test_the_posts_equal_brute_force() -> None:
    plain = posts(3000)
    kept, elsewhere = naive(plain, 50, 1)
    found = find(plain, 50, 1)
    text_of = {d["id"]: d["text"] for d in plain}
    ranges = defaultdict(list)
    for passage in found.passages:
        ranges[passage.id].append((passage.start, passage.end))
    assert {name: words_in(text_of[name], of) for name, of in ranges.items()} == kept
    assert {
        name: words_in(text_of[name], ranges_of(of)) for name, of in found.elsewhere.items()
    } == elsewhere
    assert len(kept) > 10
