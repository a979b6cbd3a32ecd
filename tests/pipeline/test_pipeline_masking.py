"""The run file's masking through the stages: names in tokens, public weights, the plan."""

import json
import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from small_run import draw_keys, write_corpus, write_run_file
from small_stages import begin, run_stages

from dpmlm.config import load_config
from dpmlm.masking import MaskingSpec, TokenTable
from dpmlm.pipeline.canaries import masking_spec
from dpmlm.pipeline.data import data_stages
from dpmlm.pipeline.frequencies import weighted, weights_binding
from dpmlm.pipeline.models import plan_of, recipe_of
from dpmlm.scrub import mentions
from dpmlm.tokens import TokenStore
from dpmlm.training import units_of

ROWS = [
    {"id": f"d{i}", "text": f"the river near Ada Lovelace was {word} again", "author": f"p{i}"}
    for i, word in enumerate(["quiet", "stone", "old", "market"])
]


class Capitals:
    """Two words with capitals are a name."""

    def __init__(self, policy) -> None:
        assert policy.name

    def __call__(self, text: str) -> list[tuple[int, int]]:
        return [found.span() for found in re.finditer(r"[A-Z]\w+ [A-Z]\w+", text)]


def test_every_field_reaches_the_spec(tmp_path: Path) -> None:
    wanted = MaskingSpec("span", 0.3, 0.7, 0.2, 0.15, static=True, entity_share=0.25)
    config = begin(tmp_path, ROWS, masking=asdict(wanted))
    assert masking_spec(config) == wanted


def test_names_are_marked_where_text_is_tokenised(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mentions, "Mentions", Capitals)
    config = begin(tmp_path, ROWS, masking={"strategy": "entity"})
    run = run_stages(config)
    store = TokenStore.open(run.folder("tokens"))
    units = units_of(store, "train", "person", b"seed", 48)
    tokenizer = store.tokenizer
    for index in range(len(units.names)):
        (view,) = units.views(index, 0, 1)
        assert view.example.names is not None
        named = tokenizer.decode(view.example.tokens[view.example.names > 0].tolist())
        assert named.replace(" ", "") == "adalovelace"
        assert int((view.example.names == 1).sum()) == 1
    rows = units_of(store, "train", "sequence", b"seed", 10)
    marked = [rows.views(i, 0, 1)[0].example for i in range(len(rows.names))]
    assert all(len(one.tokens) == len(one.names) <= 8 for one in marked)
    assert sum(int((one.names == 1).sum()) for one in marked) == len(ROWS)
    (tokens,) = (stage for stage in data_stages(config) if stage.name == "tokens")
    by_names = tokens.settings(run)
    without = begin(tmp_path, ROWS, masking={"strategy": "span"})
    assert tokens.settings(replace(run, config=without)).items() < by_names.items()


def test_without_the_strategy_nothing_looks_for_names(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mentions, "Mentions", None)
    run = run_stages(begin(tmp_path, ROWS))
    assert TokenStore.open(run.folder("tokens")).names(0) is None


def test_weights_are_those_of_the_public_text(tmp_path: Path) -> None:
    weights = {"corpus": "public.jsonl", "power": 0.5}
    run = run_stages(begin(tmp_path, ROWS, masking={"weights": weights}))
    store = TokenStore.open(run.folder("tokens"))
    table = recipe_of(run, TokenTable.of(store.tokenizer)).table
    text = json.loads((tmp_path / "public.jsonl").read_text())["text"]
    counts = Counter(store.tokenizer(text, add_special_tokens=False)["input_ids"])
    found = table.weights
    assert found is not None
    ordinary = [i for i in range(table.vocab_size) if not table.special[i]]
    often, seldom = max(counts, key=counts.get), min(counts, key=counts.get)
    ratio = ((counts[often] + 1) / (counts[seldom] + 1)) ** 0.5
    assert found[seldom] / found[often] == pytest.approx(ratio)
    assert found[ordinary].max() == max(found) <= 8
    (tmp_path / "public.jsonl").unlink()
    again = weighted(run, replace(table, weights=None)).weights  # counted once
    assert again is not None
    assert np.array_equal(again, found)


def test_weights_are_bound_to_the_plan(tmp_path: Path) -> None:
    config = begin(tmp_path, ROWS, masking={"weights": {"corpus": "public.jsonl"}})
    first = plan_of(config)
    with (tmp_path / "public.jsonl").open("a") as file:
        file.write(json.dumps({"text": "the river"}) + "\n")
    second = plan_of(config)
    assert first.bindings["masking_weights"] != second.bindings["masking_weights"]
    assert first.digest != second.digest
    plain = begin(tmp_path, ROWS)
    assert weights_binding(plain) == {}
    assert "masking_weights" not in plan_of(plain).bindings


@pytest.mark.full
def test_a_whole_run_under_every_option(tmp_path: Path) -> None:
    from dpmlm.pipeline.run import execute_run

    write_corpus(tmp_path)
    masking = {
        "strategy": "entity",
        "ratio": 0.3,
        "ratio_end": 0.15,
        "static": True,
        "weights": {"corpus": "public.jsonl"},
    }
    write_run_file(tmp_path, masking=masking, scrub={"policy": "surrogates", "processes": 1})
    draw_keys(tmp_path)
    result = execute_run(load_config(tmp_path / "run.yaml"))
    assert result.verdict in ("PASS", "FAIL", "INCONCLUSIVE")
