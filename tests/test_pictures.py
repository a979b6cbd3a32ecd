"""Pictures in the docs exist, are small, and are what their names say."""

import re
from pathlib import Path

import png
import pytest

from dpmlm.config import load_config
from dpmlm.release import load_policy

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LARGEST = 200_000
"""Bytes."""


def _named(page):
    """Pictures that a page shows, in Markdown or HTML."""
    shown = re.findall(r'(?:\]\(|src="|srcset=")([^)"\s]+\.png)', page.read_text())
    return {(page.parent / place).resolve() for place in shown}


def test_every_picture_that_a_page_shows_is_there_and_every_one_is_shown():
    shown = set().union(*map(_named, PAGES))
    assert len(shown) >= 2
    assert shown == set((ROOT / "docs" / "images").glob("*.png"))


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_report_is_shown_small_and_in_its_colours(name):
    data = (ROOT / "docs" / "images" / f"report-{name}.png").read_bytes()
    width, height = png.size(data)
    assert width == 1000
    assert 500 < height < 1500
    assert len(data) <= LARGEST
    corner = next(png.rows(data))[0]
    assert sum(corner) / 3 < 60 if name == "dark" else sum(corner) / 3 > 200


def test_the_picture_is_described_with_as_many_rules_as_the_quickstarts_policy_has():
    policy = load_config(ROOT / "examples" / "quickstart" / "run.yaml").release.policy
    rules = len(load_policy(policy).require)
    (told,) = re.findall(r'alt="([^"]*)"', (ROOT / "README.md").read_text())
    assert f"all {rules} rules hold" in told
