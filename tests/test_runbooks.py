"""Every message that a runbook quotes is in the code, and every command and link exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs/runbooks").glob("*.md"))
NAMES = {
    "out-of-memory", "diverged", "overfit", "rare-tokens", "tokenizer", "corrupt-shard",
    "new-data-regression", "privacy-incident", "preemption",
}  # fmt: skip


@cache
def strings_of_the_code() -> str:
    """Every string of the package, f-strings as they are written, adjacent ones joined."""
    found = []
    for path in sorted((ROOT / "dpmlm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            if isinstance(node, ast.JoinedStr):
                found.append("".join(map(part, node.values)))
    return "\n".join(" ".join(text.split()) for text in found)


def part(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    spec = "" if node.format_spec is None else ":" + "".join(map(part, node.format_spec.values))
    return "{" + ast.unparse(node.value) + spec + "}"


def quoted(page: str) -> list[str]:
    """The messages under "What you see": what stands in backticks and holds a space."""
    seen = page.split("## What you see")[1].split("\n## ")[0]
    return [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", seen) if " " in text]


def pattern(text: str) -> str:
    """A word in capitals stands for what the message puts there, or for itself."""
    value = r"\{(?:[^{}]|\{[^{}]*\})*\}"
    return re.sub(r"\b[A-Z]+\b", lambda word: f"(?:{value}|{word[0]})", re.escape(text))


def missing(page: str) -> list[str]:
    return [text for text in quoted(page) if not re.search(pattern(text), strings_of_the_code())]


def test_the_pages_are_there():
    assert {path.stem for path in PAGES} == NAMES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_message_that_is_quoted_is_in_the_code(path):
    page = path.read_text()
    assert missing(page) == []
    for heading in ("## What you see", "## Do", "## Look", "## Why"):
        assert heading in page or path.stem == "preemption"


def test_a_message_that_nobody_says_is_found():
    page = PAGES[0].read_text()
    wrong = page.replace("## What you see", "## What you see\n\n`something nobody says`")
    assert missing(wrong) == ["something nobody says"]
    value = next(text for path in PAGES for text in quoted(path.read_text()) if "HOURS" in text)
    assert missing(f"## What you see `{value.replace('HOURS', 'hours')}`")
    assert "{" not in "".join(text for path in PAGES for text in quoted(path.read_text()))
    messages = sum(len(quoted(path.read_text())) for path in PAGES)
    assert messages >= 12


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_link_and_every_named_file_exists(path):
    page = path.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", page):
        assert (path.parent / link).resolve().is_file(), link
    for name in re.findall(r"`(tests/[a-z_/]+\.py)`", page):
        assert (ROOT / name).is_file(), name


def test_every_field_that_is_named_is_one_of_the_run_file():
    from dpmlm.config import RunConfig

    sections = {name: field.annotation for name, field in RunConfig.model_fields.items()}
    found = set()
    for path in PAGES:
        found |= set(re.findall(r"`([a-z]+)\.([a-z_]+)[`:]", path.read_text()))
    fields = {(one, two) for one, two in found if one in sections}
    assert len(fields) >= 12
    for section, name in fields:
        kind = sections[section]
        names = {field.alias or key for key, field in kind.model_fields.items()}
        assert name in names, f"{section}.{name}"


def test_every_verb_that_is_named_is_there():
    from typer.main import get_command

    from dpmlm.cli.main import app

    verbs = set()
    for path in PAGES:
        verbs |= set(re.findall(r"dpmlm ([a-z]+)(?: ([a-z]+)(?![.\w]))?", path.read_text()))
    commands = get_command(app).commands
    for verb, below in verbs:
        assert verb in commands, verb
        if below and hasattr(commands[verb], "commands"):
            assert below in commands[verb].commands, f"{verb} {below}"
    assert len(verbs) >= 8
