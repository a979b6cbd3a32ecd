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
        no = "dpmlm audit model" in line or "recheck" in line
        assert done.returncode == no, (line, done.stderr[-2000:])
    told, claimed = (said[line].stdout for line in said if line.startswith("dpmlm audit model"))
    read_out = " 0 of " not in next(line for line in told.splitlines() if "secrets" in line)
    assert told.startswith("verdict  FAIL" if read_out else "verdict  INCONCLUSIVE")
    assert claimed.startswith("verdict  FAIL")
    assert "CONTRADICTED by" in claimed
    (silent,) = (said[line].stdout for line in said if line.startswith("dpmlm audit base"))
    assert silent.startswith("verdict  PASS")
    (foreseen,) = (said[line].stdout for line in said if line.startswith("dpmlm audit --plan"))
    assert "before anything is trained" in foreseen
    (again,) = (said[line].stdout for line in said if line.startswith("dpmlm audit recheck"))
    assert again.startswith("every figure follows from the counts")
