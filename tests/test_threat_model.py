"""The threat model names tests and commands that exist; page and report say the same."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from dpmlm.cli.main import app
from dpmlm.release.report.threats import LIMITS, THREATS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/threat-model.md").read_text()


def _rows():
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def _named(cell):
    return tuple(re.findall(r"`([^`]+)`", cell))


def test_the_page_has_the_rows_of_the_report():
    rows = [(*row[:3], _named(row[3]), row[4].strip("`")) for row in _rows()]
    assert rows == [tuple(threat) for threat in THREATS]
    assert len(rows) >= 7
    for limit in LIMITS:
        assert f"* {limit}\n" in PAGE


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row[0])
def test_each_row_names_tests_and_a_command_that_exist(row):
    tests = _named(row[3])
    assert tests
    for test in tests:
        file, name = test.split("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), test
    program, *verbs = row[4].strip("`").split()
    assert program == "dpmlm"
    assert verbs
    command = get_command(app)
    for verb in verbs:
        command = command.commands[verb]


def test_other_pages_lead_to_it():
    for page, link in (
        ("README.md", "(docs/threat-model.md)"),
        ("docs/architecture.md", "(threat-model.md)"),
    ):
        assert link in (ROOT / page).read_text(), page


def test_a_crash_of_the_command_line_leaves_no_core(tmp_path):
    resource = pytest.importorskip("resource")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] in (0, 1):
        pytest.skip("core dumps are forbidden here already: nothing to switch off")
    raised = """
import os, resource
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
"""
    command_line = """
from dpmlm.cli.main import main
try:
    main(["--help"])
except SystemExit as leaving:
    assert leaving.code == 0
"""

    def dumped(*middle):
        program = "\n".join([raised, *middle, "os.abort()"])
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status = os.waitpid(process.pid, 0)
        process.returncode = status
        assert os.WIFSIGNALED(status)
        return os.WCOREDUMP(status)

    if not dumped():
        pytest.skip("this machine writes no core dumps: nothing to switch off")
    assert not dumped(command_line)
