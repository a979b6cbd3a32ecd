"""In which text a grid counts words: never in text that its models are asked about."""

import json
import re
from collections import Counter

import pytest
from small_grid import begin, grid_of
from small_stages import run_stages

from dpmlm.config.text import PublicCorpusConfig
from dpmlm.corpus import read_shards
from dpmlm.evaluation import BUCKETS
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.evaluation import HeldOut
from dpmlm.pipeline.grid import counted, run_grid
from dpmlm.pipeline.grid.budget import register_public
from dpmlm.pipeline.progress import Progress
from dpmlm.tokens import train_subwords
from dpmlm.training.model import SIZES

pytestmark = pytest.mark.xdist_group("grid counted")


def asked_in(run_file, **more):
    """The grid of two cells, its rows, and what was asked of their models, in that order."""
    grid = grid_of(run_file, **more)
    grid.claim()
    if grid.public:
        register_public(grid.base.name, grid.text.ledger)
    run_stages(grid.text)
    questions, true = [], HeldOut.measured
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", (16, 2, 2))

        def noted(held_out, model, asked, *rest):
            questions.append((held_out, asked))
            return true(held_out, model, asked, *rest)

        patch.setattr(HeldOut, "measured", noted)
        result = run_grid(grid)
    assert [row.failed for row in result.rows] == [None, None]
    return grid, result, questions


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """On public text that the vocabulary was trained on as well, as examples/masking has it."""
    run_file = begin(tmp_path_factory.mktemp("public"))
    train = {"corpus": "private.jsonl", "size": 3000, "unused": 10}
    return asked_in(run_file, public=True, overrides={"tokens.train": train_of(run_file, train)})


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """On private text, with public text in which two documents say the same, again and again."""
    run_file = begin(tmp_path_factory.mktemp("private"))
    texts = run_file.parent / "public.jsonl"
    twice = [json.dumps({"text": f"Number {n} is here alone."}) for n in range(40)] * 2
    texts.write_text(texts.read_text() + "\n".join(twice) + "\n")
    return asked_in(run_file)


def train_of(run_file, train):
    return {**train, "corpus": str(run_file.parent / train["corpus"])}


def words_of(text):
    """Words as a reader parts them; marks stand alone."""
    return re.findall(r"\w+|[^\w\s]", text.casefold())


def naive_buckets(words, texts):
    """The bucket of each word by its occurrences in a million words of the texts."""
    counts = Counter(word for text in texts for word in words_of(text))
    rates = {word: counts[word] * 1e6 / counts.total() for word in words}
    edges = dict(zip(BUCKETS[2:], (1, 10, 100, 1000), strict=True))

    def bucket(rate):
        if not rate:
            return "never"
        return ([BUCKETS[1]] + [name for name, edge in edges.items() if rate >= edge])[-1]

    return {word: bucket(rate) for word, rate in rates.items()}


def found_buckets(words, asked):
    """The bucket that each word was asked in."""
    found = {}
    for word in words:
        ids = asked.tokenizer(word, add_special_tokens=False, return_tensors="np")["input_ids"][0]
        (place,) = set(asked.buckets.of(ids).tolist())
        found[word] = BUCKETS[place]
    return found


def test_words_of_a_public_grid_are_counted_in_the_text_that_it_trains_on(public):
    grid, result, questions = public
    rows = list(read_shards(Run.load(grid.text, Progress(quiet=True)).source("tokens")))
    held_out = [row["text"] for row in rows if row["split"] == "validation"]
    trained = [row["text"] for row in rows if row["split"] == "train"]
    words = {word for text in held_out for word in words_of(text)}
    expected = naive_buckets(words, trained)
    unseen = {word for word, bucket in expected.items() if bucket == "never"}
    assert unseen, "each person has a number that no other has"
    assert unseen < words
    assert len(questions) == len(result.rows) == 2
    for (asked_of, asked), row in zip(questions, result.rows, strict=True):
        assert sorted(one.text for one in asked_of.documents) == sorted(held_out)
        assert found_buckets(words, asked) == expected
        assert row.figures["held_out"]["by_bucket"]["never"]["tokens"] > 0


def test_planted_documents_are_not_counted_and_of_many_some_from_all_over(public, monkeypatch):
    grid, *_ = public
    run = Run.load(grid.text, Progress(quiet=True))
    rows = [row for row in read_shards(run.source("tokens")) if row["split"] == "train"]
    monkeypatch.setattr(counted, "planted_ids", lambda *_: {rows[0]["id"]: "canary/1"})
    assert Counter(counted.trained_texts(run)) == Counter(row["text"] for row in rows[1:])
    monkeypatch.setattr(counted, "COUNTED", 20)
    some = counted.trained_texts(run)
    assert len(some) == 20
    assert some == counted.trained_texts(run)
    places = [place for place, row in enumerate(rows) if row["text"] in some]
    assert min(places) < len(rows) // 4
    assert max(places) > len(rows) * 3 // 4


def test_a_public_text_of_one_document_is_asked_about_without_buckets(tmp_path):
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": "All that there is."}) + "\n")
    source = PublicCorpusConfig(corpus=tmp_path / "one.jsonl")
    (asked,), others = counted.parted(source)
    assert (asked.text, others) == ("All that there is.", [])
    tokenizer = train_subwords("wordpiece", [asked.text], vocab_size=200)
    assert counted.asked_by(HeldOut([asked], ["a"], None), others, tokenizer).buckets is None


def test_public_text_of_a_private_grid_is_asked_about_or_counted_in(private):
    grid, result, questions = private
    path = grid.base.audit.control.corpus
    every = [json.loads(line)["text"] for line in path.read_text().split("\n")[:-1]]
    parts = [questions[place] for place in (1, 3)]
    for (asked_of, asked), row in zip(parts, result.rows, strict=True):
        mine = {one.text for one in asked_of.documents}
        others = [text for text in every if text not in mine]
        assert len(asked_of.documents) == len(every) // 2
        assert 0 < len(others) < len(every) // 2, "what is asked about stands there twice"
        words = {word for text in mine for word in words_of(text)}
        expected = naive_buckets(words, others)
        assert "never" in expected.values()
        assert found_buckets(words, asked) == expected
        assert sum(one["tokens"] for one in row.figures["public_text"]["by_bucket"].values()) > 0


def test_words_of_private_documents_are_counted_in_public_text(private):
    grid, _, questions = private
    path = grid.base.tokens.train.corpus
    every = [json.loads(line)["text"] for line in path.read_text().split("\n")[:-1]]
    for asked_of, asked in (questions[0], questions[2]):
        words = {word for one in asked_of.documents for word in words_of(one.text)}
        assert found_buckets(words, asked) == naive_buckets(words, every)
