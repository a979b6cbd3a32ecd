"""What must come from public text alone, and what the plan says where one text decides over others.

The finished run has private documents beside its public ones, so that either would show.
"""

import json

import pytest
from small_run import write_run_file

from dpmlm.artifacts import SealedFolder, load_identity
from dpmlm.config import load_config
from dpmlm.pipeline import models
from dpmlm.tokens import TokenStore, load_sealed_tokenizer, train_tokenizer


@pytest.fixture
def opened(finished):
    """(a function that opens a folder of the finished run, the public texts)."""
    folder, _ = finished
    identity = load_identity(folder / "keys/trainer.key")
    rows = [json.loads(line) for line in (folder / "public.jsonl").open()]

    def open_folder(name):
        return SealedFolder.open(folder / "work" / name, [identity])

    return open_folder, [row["text"] for row in rows]


def test_the_vocabulary_is_that_of_the_public_text(opened):
    open_folder, public = opened
    tokenizer = load_sealed_tokenizer(open_folder("tokens"))
    again = train_tokenizer(public, vocab_size=3000, unused=2800)
    assert tokenizer.get_vocab() == again.get_vocab()


def test_the_control_reads_the_public_text_and_nothing_else(opened):
    open_folder, public = opened
    tokenizer = load_sealed_tokenizer(open_folder("tokens"))
    store = TokenStore.open(open_folder("control/tokens"))
    read = sorted(store.tokens(index).tolist() for index in range(len(store)))
    assert read == sorted(tokenizer(t, add_special_tokens=False)["input_ids"] for t in public)


@pytest.mark.parametrize(
    ("near", "scope"), [(None, "source corpus"), ({"threshold": 0.8}, "deduplicated corpus")]
)
def test_the_plan_says_the_scope_that_its_deduplication_leaves(small, monkeypatch, near, scope):
    monkeypatch.setattr(models, "make_plan", lambda **fields: fields["scope"])
    write_run_file(small, dedup={"near": near})
    assert models.plan_of(load_config(small / "run.yaml")) == scope
