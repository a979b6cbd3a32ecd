"""The README's Python snippet, run as it stands."""

import re
import shutil
from pathlib import Path

import pytest
import transformers
import yaml
from small_run import WORDS

from dpmlm.tokens import train_tokenizer
from dpmlm.training import new_model

pytestmark = pytest.mark.xdist_group("finished")

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def snippet() -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


@pytest.mark.full
def test_the_snippet_of_the_readme_runs_as_it_stands(
    finished, tmp_path, monkeypatch, capsys, snippet
):
    """`Trainer` trains here; `run` takes up a run that is done, which other tests do anew."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    tokenizer = train_tokenizer([" ".join(WORDS)], vocab_size=300)
    base = new_model("tiny", tokenizer, 128, seed=0)
    base.save_pretrained("base")
    tokenizer.save_pretrained("base")
    # The snippet's `Trainer` has the workspace "work".
    (tmp_path / "work").rename("run-work")
    settings = yaml.safe_load(Path("run.yaml").read_text())
    Path("run.yaml").write_text(yaml.safe_dump({**settings, "workspace": "run-work"}))
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
