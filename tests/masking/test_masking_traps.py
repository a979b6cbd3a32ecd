"""docs/masking.md: what it says of other collators' traps, and what it takes to avoid them."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from dpmlm.clipping import clip_and_sum
from dpmlm.masking import Example, MaskingSpec, TokenTable, make_batch
from dpmlm.masking.spec import LONGEST

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "masking.md").read_text()


def sources(*patterns: str) -> dict[Path, str]:
    found = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return {path: path.read_text() for path in found if path.is_file()}


def test_every_test_that_the_page_names_exists() -> None:
    tests = "\n".join(sources("tests/**/*.py").values())
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) >= 7
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []


def test_no_file_uses_what_transformers_5_took_away() -> None:
    ours = sources("dpmlm/**/*.py", "audits/**/*.py", "examples/**/*.py", "benchmarks/**/*.py")
    ours |= sources("examples/**/*.md", "README.md")
    assert len(ours) > 100
    gone = re.compile(r"DataCollator|evaluation_strategy|TrainingArguments|transformers\.Trainer")
    assert [path.name for path, text in ours.items() if gone.search(text)] == []


def test_no_transformers_collator_decides_the_loss_of_a_maskless_batch(table: TokenTable) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 16}
    model = BertForMaskedLM(BertConfig(vocab_size=table.vocab_size, **sizes)).eval()
    rows = [Example(str(i), np.array([1] * i, dtype=int)) for i in range(3)]
    spec = MaskingSpec("whole_word")
    batch = make_batch(rows, [0] * 3, seed=b"s", table=table, spec=spec, window=16)
    result = clip_and_sum(model, batch, 1.0)
    assert result.losses.tolist() == [0.0] * 3
    assert all(not torch.any(p.grad) for p in model.parameters() if p.grad is not None)


def test_the_page_gives_the_slots_of_the_code() -> None:
    slots = {name: MaskingSpec(name).masked_slots(128) for name in LONGEST}
    assert slots == {"token": 19, "whole_word": 24, "span": 28, "entity": 28}
    assert "(24 and 28 instead of\n19 at a window of 128)" in PAGE


def test_the_page_has_the_rates_that_were_measured() -> None:
    path = ROOT / "benchmarks" / "results" / "masking_rates.json"
    windows = json.loads(path.read_text())["windows"]
    for window, strategy in itertools.product(windows, LONGEST):
        one = windows[window][strategy]
        shares = " | ".join(f"{share:.3f}" for share in [*one["masked"], one["of_all"]])
        row = f"| {window} | {strategy} | {shares} | {one['slots']} | {one['cpu_ms_256_rows']} |"
        assert row in PAGE
        assert one["slots"] == MaskingSpec(strategy).masked_slots(int(window))
    assert windows["128"]["token"]["tokens"][-1] == pytest.approx(0.019, abs=5e-4)
