"""What goes and what stays: against brute force, in any order, and stable where it says so."""

import random
import time
from itertools import combinations
from pathlib import Path

import pytest
from variants import rest_in_full

from dpmlm.config import DedupConfig
from dpmlm.dedup import CrossSplitPair, Removal, deduplicate, pairs
from dpmlm.dedup.shingles import jaccard, shingle_set
from dpmlm.errors import UserError

KEY = bytes(range(32))
BASE = [f"w{n}" for n in range(60)]


def document(name: str, text: str, unit: str = "", split: str = "train") -> dict:
    return {
        "id": name, "text": text, "unit": unit or f"u-{name}", "split": split,
        "source": "f.jsonl", "row": 1,
    }  # fmt: skip


def changed(words: list[str], *places: int) -> str:
    return " ".join("other" + w if n in places else w for n, w in enumerate(words))


def rules(threshold: float | None, **more) -> DedupConfig:
    return DedupConfig(near=threshold and {"threshold": threshold}, **more)


def run(documents: list[dict], threshold: float | None = 0.8, unit: str = "document", **more):
    return deduplicate(documents, rules(threshold, **more), unit=unit, key=KEY)


def random_corpus(seed: int) -> list[dict]:
    """Families of texts that differ in a few words, some exactly equal, ids in random order."""
    draw = random.Random(seed)
    texts = []
    for family in range(6):
        words = [f"f{family}w{n}" for n in range(40)]
        for _ in range(draw.randrange(1, 6)):
            texts.append(changed(words, *draw.sample(range(40), draw.randrange(4))))
    texts += draw.choices(texts, k=4)
    names = draw.sample(range(100, 999), len(texts))
    return [
        document(str(n), text, f"u{draw.randrange(5)}", draw.choice(["train", "validation"]))
        for n, text in zip(names, texts)
    ]


def similarity(left: dict, right: dict) -> float:
    if left["text"] == right["text"]:
        return 1.0
    return jaccard(shingle_set(left["text"]), shingle_set(right["text"]))


def naive_survivors(documents: list[dict], threshold: float) -> dict[str, str]:
    survivor = {d["id"]: d["id"] for d in documents}
    for _ in documents:
        for a, b in combinations(documents, 2):
            if similarity(a, b) >= threshold:
                low = min(survivor[a["id"]], survivor[b["id"]])
                survivor[a["id"]] = survivor[b["id"]] = low
    return survivor


@pytest.mark.parametrize("seed", rest_in_full(range(12), range(3)))
def test_near_mode_equals_brute_force(seed: int) -> None:
    documents = random_corpus(seed)
    by_id = {d["id"]: d for d in documents}
    result = run(documents)
    wanted = naive_survivors(documents, 0.8)
    assert [d["id"] for d in result.kept] == [i for i in by_id if wanted[i] == i]
    assert {r.id: r.survivor for _, r in result.removed} == {
        i: s for i, s in wanted.items() if i != s
    }
    for removed, removal in result.removed:
        assert removed == by_id[removal.id]
        assert removal.similarity == similarity(removed, by_id[removal.duplicate_of]) >= 0.8
        equal = removed["text"] == by_id[removal.duplicate_of]["text"]
        assert removal.reason == ("exact" if equal else "near")
    assert sum(result.removed_by_reason.values()) == len(result.removed)


@pytest.mark.parametrize("threshold", [0.8, None])
@pytest.mark.parametrize("seed", range(6))
def test_cross_split_report_equals_brute_force(seed: int, threshold: float | None) -> None:
    documents = random_corpus(seed)
    wanted: dict[str, set[CrossSplitPair]] = {}
    for a in documents:
        for b in documents:
            if a["split"] == "train" and b["split"] == "validation":
                twins = [d for d in documents if d["text"] == a["text"] and d["split"] == "train"]
                s = similarity(a, b)
                if s >= 0.8 and a["id"] == min(d["id"] for d in twins):
                    reason = "exact" if a["text"] == b["text"] else "near"
                    pair = CrossSplitPair(a["id"], b["id"], s, reason)
                    wanted.setdefault(b["id"], set()).add(pair)
    found = run(documents, threshold).cross_split
    assert [pair.validation for pair in found] == sorted(wanted)
    for pair in found:
        exact = {each for each in wanted[pair.validation] if each.reason == "exact"}
        assert pair in (exact or wanted[pair.validation])


@pytest.mark.parametrize(
    ("threshold", "unit"), [(0.8, "document"), (None, "document"), (None, "person")]
)
def test_the_order_of_the_input_changes_nothing(threshold: float | None, unit: str) -> None:
    documents = random_corpus(3)
    first = run(documents, threshold, unit)
    for seed in range(5):
        shuffled = random.Random(seed).sample(documents, len(documents))
        again = run(shuffled, threshold, unit)
        assert again.removed == first.removed
        assert again.cross_split == first.cross_split
        assert sorted(d["id"] for d in again.kept) == sorted(d["id"] for d in first.kept)


def test_a_chain_is_joined_by_its_verified_edges_alone() -> None:
    a, b = document("a", " ".join(BASE)), document("b", changed(BASE, 59))
    c = document("c", changed(BASE, 59, 0, 1, 2))
    far = document("d", changed(BASE, 59, 0, 1, 2, 30))
    assert similarity(a, c) < 0.88 < min(similarity(a, b), similarity(b, c))
    assert similarity(c, far) < 0.88
    result = run([far, c, b, a], 0.88)
    assert [d["id"] for d in result.kept] == ["d", "a"]
    assert [r for _, r in result.removed] == [
        Removal("b", "a", similarity(a, b), "near", "a"),
        Removal("c", "b", similarity(b, c), "near", "a"),
    ]


def test_many_copies_of_a_template_cost_few_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs: list[float] = []

    def counted(left: frozenset[str], right: frozenset[str]) -> float:
        proofs.append(jaccard(left, right))
        return proofs[-1]

    monkeypatch.setattr(pairs, "jaccard", counted)
    words = [f"t{n}" for n in range(200)]
    documents = [document(f"{n:04d}", changed(words, n % 200) + f" {n}") for n in range(400)]
    result = run(documents)
    assert [d["id"] for d in result.kept] == ["0000"]
    assert {r.survivor for _, r in result.removed} == {"0000"}
    assert 399 <= len(proofs) < 800  # of 79,800 pairs


def test_forms_just_below_the_threshold_cost_few_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filled in differently, each is compared with each: by hashes, many at a time."""
    proofs: list[float] = []

    def counted(left: frozenset[str], right: frozenset[str]) -> float:
        proofs.append(jaccard(left, right))
        return proofs[-1]

    monkeypatch.setattr(pairs, "jaccard", counted)
    form = [f"t{n}" for n in range(175)]
    documents = [
        document(f"{n:04d}", " ".join([*form, *(f"own{n}x{k}" for k in range(25))]))
        for n in range(300)
    ]
    assert 0.7 < similarity(documents[0], documents[1]) < 0.8
    started = time.process_time()
    assert run(documents).removed == []
    assert len(proofs) < 44_850 / 4  # of all pairs, most of which share a bucket somewhere
    assert time.process_time() - started < 10


def test_texts_without_words_are_never_near() -> None:
    result = run([document("a", "!!!"), document("b", "???"), document("c", "!!!")])
    assert [d["id"] for d in result.kept] == ["a", "b"]
    assert [r.reason for _, r in result.removed] == ["exact"]


def test_one_document_more_is_at_most_one_training_text_more() -> None:
    """Stable, unit document: the kept training set moves by at most one whole element."""
    documents = random_corpus(5)
    for without in documents:
        rest = [d for d in documents if d is not without]
        before = {tuple(d.items()) for d in run(documents, None).kept if d["split"] == "train"}
        after = {tuple(d.items()) for d in run(rest, None).kept if d["split"] == "train"}
        assert after <= before
        assert len(before - after) <= 1


def test_near_mode_is_not_stable() -> None:
    """The negative control of the test above: removing b frees both a document and its place."""
    documents = [document("a", changed(BASE, 59)), document("b", " ".join(BASE))]
    documents.append(document("c", changed(BASE, 0, 1)))
    with_a = {d["id"] for d in run(documents).kept}
    without = {d["id"] for d in run(documents[1:]).kept}
    assert with_a == {"a"}
    assert without == {"b"}  # one record less, one kept less and another kept more


def test_a_set_of_texts_keeps_no_field_of_a_record() -> None:
    documents = [document("x", "same", "u1", "validation"), document("y", "same", "u2", "train")]
    (kept,) = run(documents, None).kept
    assert kept["text"] == "same"
    assert kept["split"] == "train"
    for subset in (documents[1:], [document("z", "same", "u9", "train")]):
        assert run(subset, None).kept == [kept]
    assert not {kept["id"], kept["unit"]} & {"x", "y", "u1", "u2"}
    ((removed, removal),) = run(documents, None).removed
    assert removed == documents[1]
    assert removal == Removal("y", kept["id"], 1.0, "exact", kept["id"])
    other = deduplicate(documents, rules(None), unit="document", key=bytes(32)).kept[0]
    assert other["id"] != kept["id"]


def test_persons_keep_their_own_copy() -> None:
    documents = [
        document("a", "same", "ann"),
        document("b", "same", "bob"),
        document("c", "same", "ann"),
        document("d", "else", "ann"),
    ]
    result = run(documents, None, "person")
    assert result.kept == [documents[0], documents[1], documents[3]]
    assert [r for _, r in result.removed] == [Removal("c", "a", 1.0, "exact", "a")]
    without_ann = run([documents[1]], None, "person").kept
    assert without_ann == [d for d in result.kept if d["unit"] == "bob"]


@pytest.mark.parametrize(
    ("given", "mode", "scope"),
    [
        ({"near": None}, "stable", "source corpus"),
        ({"near": None, "passages": {}}, "stable", "source corpus"),
        ({"near": None, "passages": {"cut": True}}, "quality", "deduplicated corpus"),
        ({"near": {"threshold": 1.0}}, "quality", "deduplicated corpus"),
        ({}, "quality", "deduplicated corpus"),
    ],
)
def test_scope_is_said_as_the_claim_needs_it(given: dict, mode: str, scope: str) -> None:
    config = DedupConfig(**given)
    assert (config.mode, config.scope) == (mode, scope)


@pytest.mark.parametrize("keep", ["longest", "least_identifiers"])
@pytest.mark.parametrize("seed", rest_in_full([0, 2, 3], [2]))
def test_the_survivor_is_the_one_that_the_rule_prefers(seed: int, keep: str) -> None:
    draw = random.Random(seed)
    documents = [d | {"identifiers": draw.randrange(3)} for d in random_corpus(seed)]
    clusters: dict[str, list[dict]] = {}
    for name, survivor in naive_survivors(documents, 0.8).items():
        clusters.setdefault(survivor, []).append(next(d for d in documents if d["id"] == name))

    def badness(each: dict) -> tuple:
        first = -len(each["text"]) if keep == "longest" else each["identifiers"]
        return (first, each["id"])

    wanted = {min(members, key=badness)["id"] for members in clusters.values()}
    for order in (documents, documents[::-1]):
        result = run(order, keep=keep)
        assert {d["id"] for d in result.kept} == wanted
        assert {r.survivor for _, r in result.removed} <= wanted
    assert wanted != {d["id"] for d in run(documents).kept}


@pytest.mark.parametrize("seed", range(3))
def test_cutting_passages_removes_equal_texts_of_all_persons(seed: int) -> None:
    documents = random_corpus(seed)
    texts = {d["text"] for d in documents}
    result = run(documents, None, "person", passages={"cut": True})
    assert sorted(d["text"] for d in result.kept) == sorted(texts)
    assert all(removal.reason == "exact" for _, removal in result.removed)
    assert result.removed


@pytest.mark.parametrize(
    "given",
    [
        {"near": {"threshold": 0.49}},
        {"near": {"threshold": float("nan")}},
        {"near": None, "keep": "longest"},
        {"keep": "best"},
        {"keep": "least_identifiers", "before_scrub": True},
        {"passages": {"words": 3}},
        {"passages": {"documents": 0}},
    ],
)
def test_bad_rules_are_refused(given: dict) -> None:
    with pytest.raises(ValueError, match=r"keep|greater|less|finite"):
        DedupConfig(**given)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="unit 'window'"):
        run([document("a", "x")], 0.8, "window")
    with pytest.raises(UserError, match="ids are unique"):
        run([document("a", "x"), document("a", "y")])
    assert run([]).kept == []


def test_no_plaintext_is_left_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run(random_corpus(1))
    assert list(tmp_path.iterdir()) == []
