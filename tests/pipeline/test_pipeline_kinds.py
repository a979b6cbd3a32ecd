"""A run under each kind of vocabulary: tokens, canaries, plan and some private steps."""

import pytest
from small_run import WORDS
from small_stages import begin, run_stages
from variants import rest_in_full

from dpmlm.artifacts import load_model
from dpmlm.pipeline.canaries import canaries_stage
from dpmlm.pipeline.models import PLAN, TRAINING
from dpmlm.pipeline.stages import execute
from dpmlm.tokens import TokenStore


@pytest.mark.parametrize("kind", rest_in_full(["wordpiece", "bpe", "unigram"], ["bpe"]))
def test_a_run_trains_under_each_kind(tmp_path, kind):
    rows = [
        {"id": f"d{n}", "text": f"The {WORDS[n % 20]} near the {WORDS[n % 7]}. " * 4,
         "author": f"p{n}"} for n in range(30)
    ]  # fmt: skip
    train = {"corpus": "public.jsonl", "size": 900, "unused": 500, "kind": kind}
    more = {"tokens__train": train, "audit__canaries": 40, "training__steps": 2}
    config = begin(tmp_path, rows, masking={"strategy": "whole_word"}, **more)
    run = run_stages(config)
    execute(run, (canaries_stage(config), PLAN, TRAINING))
    model, tokenizer = load_model(run.folder("training"))
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0
    store = TokenStore.open(run.folder("tokens"))
    assert store.tokenizer.backend_tokenizer.model.__class__.__name__.lower() == kind
    assert sum(len(store.tokens(n)) for n in range(len(store))) > 500
    counts = run.folder("training").manifest["counts"]
    assert counts["steps"] == 2
    if kind == "bpe":
        assert run.folder("tokens").manifest["counts"]["unknown_tokens"] == 0
