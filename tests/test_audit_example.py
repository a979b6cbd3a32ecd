"""The commands of examples/audit-any-model, as its page gives them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples/audit-any-model"
INDENT = "    "


def commands():
    """Indented lines of the page, continued ones joined, without comments."""
    lines = (EXAMPLE / "README.md").read_text().replace("\\\n", "").splitlines()
    return [line.strip().split("  #")[0] for line in lines if line.startswith(INDENT)]


def test_the_page_has_its_commands():
    typed = commands()
    assert typed[0] == "cd examples/audit-any-model"
    assert sum(line.startswith("dpmlm audit model") for line in typed) == 2


@pytest.mark.full
def test_every_command_says_what_the_page_says(tmp_path):
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = {}
    for line in commands()[1:]:
        done = subprocess.run(
            line, shell=True, cwd=folder, capture_output=True, text=True,
            env={**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        said[line] = done
        assert done.returncode == ("dpmlm audit model" in line), (line, done.stderr[-2000:])
    told, claimed = (said[line].stdout for line in said if line.startswith("dpmlm audit model"))
    assert told.startswith("verdict  INCONCLUSIVE")
    assert claimed.startswith("verdict  FAIL")
    assert "CONTRADICTED by" in claimed
    assert "before anything is trained" in list(said.values())[-1].stdout
