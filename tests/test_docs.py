"""The documents name files and tests that exist."""

import json
import re
from pathlib import Path

import pytest

from dpmlm.privacy import make_plan

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


def test_the_claim_names_tests_that_exist():
    page = (ROOT / "docs/claim.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)", page)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{file}::{test}"


def test_the_claim_is_recomputed_with_another_library(tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/claim.md").read_text(), re.DOTALL)[1]
    plan = make_plan(epsilon=8, delta=1e-6, units=6500, unit="person",
                     expected_batch_size=256, steps=150, max_grad_norm=1.0)  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/claim.md", "exec"), {})
    again, ours = float(capsys.readouterr().out), plan.check().pld
    assert again - 1e-6 <= ours <= again * (1 + 2e-4)  # ours is rounded up, on a wider grid


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
