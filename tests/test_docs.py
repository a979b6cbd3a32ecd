"""The documents name files and tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


def test_privacy_names_tests_that_exist():
    page = (ROOT / "docs/privacy.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)", page)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{file}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    paths = re.findall(
        r"`((?:dpmlm|audits|policies|tests|examples|benchmarks|docs)/[\w./-]+)`", text
    )
    for link in links:
        assert (page.parent / link).exists(), link
    for path in paths:
        if "/work/" not in path:  # written by a run
            assert (ROOT / path).exists(), path
