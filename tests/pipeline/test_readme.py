"""The README's Python snippet, run as it stands."""

import re
from pathlib import Path

import pytest
import transformers
from small_run import PASSING, WORDS, write_corpus, write_run_file

from dpmlm.pipeline.start import initialise
from dpmlm.tokens import train_tokenizer
from dpmlm.training import new_model

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def snippet() -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def test_the_snippet_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch, capsys, snippet):
    monkeypatch.chdir(tmp_path)
    tokenizer = train_tokenizer([" ".join(WORDS)], vocab_size=300)
    base = new_model("tiny", tokenizer, 128, seed=0)
    base.save_pretrained("base")
    tokenizer.save_pretrained("base")
    write_corpus(tmp_path)
    write_run_file(tmp_path, workspace="run-work", **PASSING)
    initialise(tmp_path)
    rows = [
        {"text": f"The {word} near the market was {word} again.", "person": f"p{number % 9}"}
        for number, word in enumerate(WORDS * 3)
    ]
    transformers.logging.set_verbosity_error()
    exec(compile(snippet, str(README), "exec"), {"rows": rows})
    printed = capsys.readouterr().out
    assert "adding or removing one person" in printed
    assert "PASS" in printed
    assert "token_str" in printed
