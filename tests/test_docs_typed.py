"""The `$` lines of three pages of docs, typed in the folder of a finished run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_LINE = re.compile(r"^    \$ ((?:.*\\\n)*.*)", re.MULTILINE)
pytestmark = pytest.mark.xdist_group("finished")


def typed(page: str) -> list[str]:
    """The `$` lines of a page, each with the lines that it goes on in."""
    return _LINE.findall((ROOT / "docs" / page).read_text())


@pytest.mark.full
@pytest.mark.parametrize("page", ["keys.md", "provenance.md", "log.md", "ledger.md"])
def test_the_lines_of_a_page_run_in_its_order(finished, tmp_path, page):
    copy, programs = tmp_path / "run", tmp_path / "bin"
    shutil.copytree(finished[0], copy)
    programs.mkdir()
    program = f'#!/bin/sh\nexec {sys.executable} -m dpmlm.cli.main "$@"\n'
    (programs / "dpmlm").write_text(program)
    (programs / "dpmlm").chmod(0o755)
    paths = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    lines = typed(page)
    assert lines
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line], cwd=copy, env=os.environ | paths, stdin=subprocess.DEVNULL,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
