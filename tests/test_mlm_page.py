"""docs/mlm.md: every identifier once, and what it says is delivered is there."""

import re
from pathlib import Path

import click
import pytest
import typer

from dpmlm.cli.main import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/mlm.md").read_text()
ROW = re.compile(r"^\| (?!id |---)(.+?) \| ([CES]) \| (.+?) \| (.+?) \| (.+?) \|$", re.M)
ROWS = ROW.findall(PAGE)
NUMBERED = [
    *(f"L{n}" for n in range(1, 8)),
    *(f"W{n}" for n in range(1, 11)),
    *(f"F{n}" for n in range(1, 7)),
    *(f"M{n}" for n in range(1, 11)),
    *(f"I{n}" for n in range(1, 11)),
    *(f"S{n}" for n in range(1, 5)),
]
NAMED = (
    "register", "deploy", "monitor", "retrain", "long repeats", "rare tokens", "many pieces",
    "unbalanced", "nothing to mask", "empty Poisson", "empty documents", "enormous", "UTF-8",
    "duplicate ids", "epsilon spent", "clip fraction", "token, whole word, span, entity",
    "ratio and schedule", "mask, random, keep", "WordPiece", "special tokens", "frequency",
    "seed, example, visit", "at least one mask", "comparison of strategies", "traps", "AdamW",
    "warm-up", "bfloat16", "accumulation", "average of weights", "seeds apart", "checkpoint holds",
    "keep the last", "schema version", "local first", "stragglers", "cost", "validation frozen",
    "leakage between", "round trip", "opens elsewhere", "continual", "sweeps", "distillation",
    "vocabulary from", "alerts", "runbooks", "checklists", "example 2", "example 7", "examples 1",
)  # fmt: skip
SHOWN = re.compile(r"`(tests/[^`]+|dpmlm [^`]+)`")


def covered() -> str:
    """The first column, with ranges such as `W5 forward to W8` written out."""
    ids = " ".join(one for one, *_ in ROWS)
    return ids + " " + " ".join(f"W{n}" for n in range(6, 8) if "W5 forward to W8" in ids)


@pytest.mark.parametrize("name", NUMBERED)
def test_every_identifier_has_a_row(name):
    assert re.search(rf"\b{name}\b", covered())


@pytest.mark.parametrize("name", NAMED)
def test_every_unnumbered_point_has_a_row(name):
    assert any(name in one for one, *_ in ROWS)


def test_no_row_stands_twice():
    ids = [one for one, *_ in ROWS]
    assert len(set(ids)) == len(ids) > 90


def verbs() -> dict[str, click.Command]:
    """`keys list` and the like: every verb there is."""

    def below(command, path):
        for name, one in getattr(command, "commands", {}).items():
            yield " ".join([*path, name]), one
            yield from below(one, [*path, name])

    return dict(below(typer.main.get_command(app), []))


def is_there(shown: str) -> bool:
    """Whether a test or a verb exists."""
    if shown.startswith("dpmlm "):
        words = [word for word in shown.split()[1:] if not word.startswith("-")]
        options = {word for word in shown.split()[1:] if word.startswith("-")}
        verb = verbs().get(" ".join(words))
        return verb is not None and options <= {o for p in verb.params for o in p.opts}
    file, _, name = shown.partition("::")
    path = ROOT / file
    return path.exists() and (not name or f"def {name}(" in path.read_text())


@pytest.mark.parametrize("row", ROWS, ids=[one for one, *_ in ROWS])
def test_a_row_names_what_is_there(row):
    _, _, state, where, shown = row
    assert state in ("delivered", "partly", "not delivered")
    for path in re.findall(r"`([^`]+)`", where):
        assert (ROOT / path).exists(), path
    if state == "delivered":
        assert "`" in where
        assert is_there(SHOWN.fullmatch(shown)[1])
    else:
        assert len(shown) >= 20  # a reason
        assert (where == "-") == (state == "not delivered")


def test_what_is_not_there_is_found():
    assert not is_there("tests/corpus/test_corpus_reading.py::test_nothing")
    assert not is_there("tests/none.py")
    assert not is_there("dpmlm conjure")
    assert not is_there("dpmlm plan --conjure")
    assert is_there("dpmlm plan --checklist")
