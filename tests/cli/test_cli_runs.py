"""`dpmlm runs list|show|compare|affected|forget` from the command line."""

import io
import json
import sys

import pytest

pytestmark = pytest.mark.xdist_group("finished")

NAME = "person 3"


@pytest.fixture
def person(tmp_path):
    path = tmp_path / "person.txt"
    path.write_text(f"\ufeff  {NAME}\n")
    return path


def test_runs_are_listed_shown_and_compared(copy, call):
    listed = call("runs", "list", "--json")
    [run] = json.loads(listed.out)["runs"]
    assert (listed.status, run["name"], run["verdict"]) == (0, "small", "PASS")
    shown = call("runs", "show", "work", "--json")
    assert (shown.status, json.loads(shown.out)["schema"]) == (0, "dpmlm.run-shown/1")
    compared = call("runs", "compare", "run.yaml", "work")
    assert compared.status == 0
    assert "PASS" in compared.out
    assert "perplexity" not in compared.out
    assert "perplexity" in call("runs", "compare", "run.yaml", "run.yaml", "--show-private").out
    moved = ("other.yaml", "run.yaml", "--set", "workspace=work")
    (copy / "other.yaml").write_text(
        (copy / "run.yaml").read_text().replace("workspace: work", "workspace: none")
    )
    assert "PASS" in call("runs", "compare", *moved).out
    assert call("runs", "compare", *moved[:2]).status == 2


def test_a_person_is_found_forgotten_and_refused(copy, call, refused, person, monkeypatch):
    given = ("--person-file", person)
    found = call("runs", "affected", "run.yaml", *given, "--json")
    answer = json.loads(found.out)
    assert (found.status, answer["schema"], answer["label"]) == (0, "dpmlm.affected/1", "private")
    [run] = answer["affected"]
    assert run["private"]["documents"] == 2
    assert run["bundle"]["verdict"] == "PASS"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(NAME.encode())))
    piped = call("runs", "affected", "run.yaml", "--person-file", "-", "--json")
    assert json.loads(piped.out) == answer
    written = call("runs", "forget", "run.yaml", *given, "--reason", "request-17", "--json")
    told = json.loads(written.out)
    assert (written.status, told["persons"], told["added"]) == (0, 1, True)
    assert any("not un-trained" in line for line in told["not_reached"])
    assert "in a new workspace" in refused("run", "run.yaml")
    listed = call("runs", "forget", "run.yaml", "--list")
    assert (listed.status, "1 persons forgotten" in listed.out) == (0, True)
    assert "request" not in listed.out
    for said in (found, piped, written, listed):
        assert NAME not in said.out + said.err
    clear = [path for path in copy.rglob("*") if path.is_file() and path.suffix != ".sealed"]
    assert [path.name for path in clear if NAME in path.read_text()] == ["private.jsonl"]


def test_a_text_is_traced_to_its_row_and_sources_are_held_to_what_was_read(
    copy, call, refused, monkeypatch
):
    rows = (copy / "private.jsonl").read_text().splitlines()
    text = json.loads(rows[6])["text"]
    (copy / "text.txt").write_text(text + "\n")
    found = call("runs", "origin", "run.yaml", "--text-file", "text.txt", "--json")
    answer = json.loads(found.out)
    assert (found.status, answer["schema"], answer["label"]) == (0, "dpmlm.origin/1", "private")
    [place] = answer["places"]
    assert (place["source"], place["row"], place["state"]) == ("private.jsonl", 7, "unchanged")
    held = call("runs", "origin", "run.yaml")
    assert (held.status, "81 unchanged" in held.out) == (0, True)
    (copy / "private.jsonl").write_text(
        "\n".join([*rows[:6], rows[6].replace("T", "t"), *rows[7:]])
    )
    assert call("runs", "origin", "run.yaml", "--text-file", "text.txt").status == 1
    changed = call("runs", "origin", "run.yaml", "--json")
    told = json.loads(changed.out)
    assert (changed.status, told["held"], told["schema"]) == (1, False, "dpmlm.sources/1")
    assert told["sources"] == {"private.jsonl": {"unchanged": 80, "changed": 1}}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"nowhere said")))
    nobody = call("runs", "origin", "run.yaml", "--text-file", "-")
    assert (nobody.status, "no document" in nobody.out) == (0, True)
    for said in (found, held, changed, nobody):
        assert text[:30] not in said.out + said.err
    (copy / "text.txt").write_bytes(b"\xff")
    assert "UTF-8" in refused("runs", "origin", "run.yaml", "--text-file", "text.txt")
    assert "nowhere" in refused("runs", "origin", "run.yaml", "--text-file", "nowhere")
    assert "keys" in refused("runs", "origin", "run.yaml", "--text-file", "keys")


def test_nobody_is_an_empty_answer(copy, call):
    found = call("runs", "affected", "run.yaml", "--person", "person 77", "--json")
    assert (found.status, json.loads(found.out)["affected"]) == (0, [])


def test_one_run_that_is_broken_ends_with_status_2(copy, call):
    (copy / "wbad").mkdir()
    (copy / "wbad/run.json").write_text("{")
    (copy / "bad.yaml").write_text(
        (copy / "run.yaml").read_text().replace("workspace: work", "workspace: wbad")
    )
    found = call("runs", "affected", "run.yaml", "bad.yaml", "--person", NAME, "--json")
    answer = json.loads(found.out)
    assert (found.status, len(answer["affected"]), len(answer["unknown"])) == (2, 1, 1)


def test_fields_are_changed_as_run_does(copy, call, refused):
    (copy / "work").rename(copy / "work2")
    other = ("--set", "workspace=work2")
    found = call("runs", "affected", "run.yaml", "--person", NAME, *other, "--json")
    assert len(json.loads(found.out)["affected"]) == 1
    assert call("runs", "show", "run.yaml", *other).status == 0
    assert "run file" in refused("runs", "show", "work2", *other)
    ledger = ("--set", "ledger.path=nowhere.jsonl")
    assert "nowhere" in refused("runs", "forget", "run.yaml", "--list", *ledger)
    unknown = ("--person", "person 77", "--reason", "request-17")
    assert "no row of" in refused("runs", "forget", "run.yaml", *unknown)
    assert call("runs", "forget", "run.yaml", *unknown, "--anyway").status == 0


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "blank"), (b" \n\t", "blank"), (b"x" * 4097, "longer than"),
        (b"\xc3\xa9" * 20_000, "longer than"), (b"x\xff", "not UTF-8"), (b"one\ntwo", "lines"),
    ],
)  # fmt: skip
def test_persons_that_are_none(copy, refused, person, content, rule):
    person.write_bytes(content)
    for verb in ("affected", "forget"):
        assert rule in refused("runs", verb, "run.yaml", "--person-file", person)


def test_a_person_is_given_once_and_a_file_exists(copy, refused, person):
    assert "one of them" in refused("runs", "affected", "run.yaml")
    assert "one of them" in refused(
        "runs", "affected", "run.yaml", "--person-file", person, "--person", NAME
    )
    assert "nowhere" in refused("runs", "affected", "run.yaml", "--person-file", "nowhere")
    assert NAME not in refused("runs", "forget", "run.yaml", "--person", NAME)
    assert "--list" in refused("runs", "forget", "run.yaml", "--list", "--person", NAME)
    assert "\udcff" not in refused("runs", "affected", "run.yaml", "--person", "x\udcff")
