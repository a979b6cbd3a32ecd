"""docs/mlm.md: every identifier once, and what it says is delivered is there."""

import os
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
# Typed by hand: the requirements give these points no names, and this page has words of its own for
# them. Identifiers, marks, edge cases and examples are held to the requirements themselves below.
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
    "examples 4",
)  # fmt: skip
SHOWN = re.compile(r"`(tests/[^`]+|dpmlm [^`]+)`")
LACK = re.compile(r"\b(no|not|never|nothing)\b")


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


def wrong(state: str, where: str, shown: str) -> list[str]:
    """What a row says that is not so."""
    found = [path for path in re.findall(r"`([^`]+)`", where) if not (ROOT / path).exists()]
    found += [shown for shown in SHOWN.findall(shown) if not is_there(shown)]
    if where != "-" if state == "not delivered" else "`" not in where:
        found.append("a place")
    said = SHOWN.sub("", shown)
    if state == "delivered":
        return found if all(map(SHOWN.fullmatch, shown.split(", "))) else [*found, "citations"]
    if len(said) < 20 or (state == "partly" and not LACK.search(said)):
        found.append("what is missing")
    return found


@pytest.mark.parametrize("row", ROWS, ids=[one for one, *_ in ROWS])
def test_a_row_names_what_is_there(row):
    _, _, state, where, shown = row
    assert state in ("delivered", "partly", "not delivered")
    assert wrong(state, where, shown) == []


def test_a_row_that_names_what_is_not_there_is_found():
    here, none = "`tests/test_mlm_page.py`", "`tests/test_mlm_page.py::test_none`"
    assert wrong("delivered", "`docs/mlm.md`", f"{here}, `dpmlm plan`") == []
    assert wrong("delivered", "`docs/mlm.md`", f"{here}, {none}") == [none.strip("`")]
    assert wrong("delivered", "`docs/none.md`", here) == ["docs/none.md"]
    assert wrong("delivered", "`docs/mlm.md`", f"{here}, as everybody knows") == ["citations"]
    assert wrong("delivered", "-", here) == wrong(
        "partly", "somewhere", "not here, as far as is known"
    )
    assert wrong("delivered", "-", here) == ["a place"]
    assert wrong("partly", "`docs/mlm.md`", f"{here}, {here}") == ["what is missing"]
    assert wrong("partly", "`docs/mlm.md`", "as good as all of it is there") == ["what is missing"]
    assert wrong("partly", "`docs/mlm.md`", f"it was never shown to anybody, {none}") == [
        none[1:-1]
    ]


@pytest.fixture(scope="module")
def required():
    """The requirements, which lie beside the shared data and not in this repository."""
    path = Path(os.environ.get("DPMLM_DATA", "none")).resolve().parent / "reference/mlm.md"
    if not path.is_file():
        pytest.skip(f"the requirements are not there: {path}")
    return path.read_text()


def numbers(text: str) -> list[int]:
    """`1, 3 to 5` as 1, 3, 4, 5."""
    found = re.findall(r"(\d+)(?: to (\d+))?", text)
    return [n for low, high in found for n in range(int(low), int(high or low) + 1)]


def test_identifiers_and_marks_are_those_required(required):
    """An identifier's first row has its mark; what else stands under it may have another."""
    marks = dict(re.findall(r"\b([LFMIS]\d+)(?:/M\d+)? ([CES])\b", required))
    marks |= {"M4": marks["M3"]}
    workflow = re.search(r"^W1-10 ([CES]):", required, re.M)[1]
    marks |= {f"W{n}": workflow for n in range(1, 11)}
    assert set(marks) == set(NUMBERED)
    rows = [(re.findall(r"\b[LWFMIS]\d+\b", one), mark) for one, mark, *_ in ROWS]
    first = {id: mark for ids, mark in reversed(rows) for id in ids}
    assert {id: mark for id, mark in marks.items() if first.get(id, mark) != mark} == {}


def test_edge_cases_are_as_many_as_required(required):
    cases = re.search(r"^Edge cases C: (.+)\.$", required, re.M)[1].split(", ")
    rows = [mark for one, mark, *_ in ROWS if one.startswith("edge: ")]
    assert rows == ["C"] * len(cases)


def test_examples_and_their_marks_are_those_required(required):
    parts = re.search(r"^Examples E: (.+)\.$", required, re.M)[1].split(" · ")
    marks = {int(part.split()[0]): "S" if part.endswith(" S") else "E" for part in parts}
    rows = [(one, mark) for one, mark, *_ in ROWS if one.startswith("example")]
    assert {n: mark for one, mark in rows for n in numbers(one)} == marks


def test_what_is_not_there_is_found():
    assert not is_there("tests/corpus/test_corpus_reading.py::test_nothing")
    assert not is_there("tests/none.py")
    assert not is_there("dpmlm conjure")
    assert not is_there("dpmlm plan --conjure")
    assert is_there("dpmlm plan --checklist")
