"""Help of every verb: quick, without heavy imports, with an example that parses."""

import json
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperCommand
from typer.main import get_command

from dpmlm.cli.main import NAME, app, status_of

DOCS = (Path(__file__).parents[2] / "docs/cli.md").read_text()
HEAVY = (
    "torch", "transformers", "spacy", "opacus", "scipy", "presidio_analyzer", "datasketch",
    "dpmlm.config",
)  # fmt: skip


def leaves(command=None, path=()):
    """Every verb as a tuple of words."""
    command = command or get_command(app)
    below = getattr(command, "commands", None) or {}
    found = [leaf for name, one in below.items() for leaf in leaves(one, (*path, name))]
    # `audit` does something by itself and has verbs below it.
    return [path, *found] if isinstance(command, TyperCommand) else found


VERBS = leaves()


def test_help_of_all_verbs_together_takes_under_a_second_and_loads_nothing_heavy():
    code = (
        "import json, sys\n"
        "from dpmlm.cli.main import status_of\n"
        f"statuses = [status_of([*verb, '--help']) for verb in {VERBS!r}]\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(json.dumps([statuses, heavy]), file=sys.stderr)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    statuses, heavy = json.loads(done.stderr.splitlines()[-1])
    assert set(statuses) == {0}
    assert heavy == []
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 1 + 0.1 * len(VERBS), "each verb has a second; together they share the imports"


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help_with_an_example_of_itself(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert status_of([*verb, "--help"]) == 0
    shown = capsys.readouterr().out
    example = re.search(r"Example: (.*)", shown)
    assert example
    words = shlex.split(example.group(1))
    assert words[: len(verb) + 1] == [NAME, *verb]
    # The options of the example exist.
    for word in words:
        if word.startswith("--"):
            assert f"{word} " in shown
    assert "--json" in shown


def test_every_verb_of_a_run_file_takes_fields_of_it():
    """DESIGN's contract; `init` makes the file, and `bundles` and models have none."""

    def options(verb):
        command = get_command(app)
        for word in verb:
            command = command.commands[word]
        return command.params

    of_run_files = {
        " ".join(verb): {name for one in options(verb) for name in one.opts}
        for verb in VERBS
        if any("RUN" in str(one.metavar) for one in options(verb))
    }
    assert len(of_run_files) > 15
    assert [verb for verb, names in of_run_files.items() if "--set" not in names] == []


def test_the_documentation_lists_every_verb_and_no_other():
    listed = re.findall(r"^\| `([a-z ]+)` \| `dpmlm\.", DOCS, re.MULTILINE)
    assert sorted(listed) == sorted(" ".join(verb) for verb in VERBS)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["verfy"], "verify"),
        (["plan"], "RUN.yaml"),
        (["plan", "x", "--bogus"], "--bogus"),
        (["plan", "x", "--set"], "--set"),
        (["plan", "x", "y"], "y"),
        (["ledger", "shw"], "show"),
        (["scrub", "a", "b", "--processes", "0"], "--processes"),
        (["ledger", "register", "x", "--epsilon", "lots", "--delta", "1"], "--epsilon"),
        (["dedup", "a", "b", "--threshold", "nan"], "--threshold"),
        (["verify", "x"], "--trusted-keys"),
        (["audit"], "MODEL_DIR"),
        (["audit", "model", "--out", "x"], "--canaries"),
        (["audit", "canaries", "pln"], "plan"),
        (["audit", "canaries", "plan", "x", "--out", "y"], "--commitment"),
    ],
)
def test_a_command_typed_wrongly_is_one_message(refused, arguments, named):
    message = refused(*arguments)
    assert named in message
    assert "--help" in message


@pytest.mark.parametrize(
    "arguments", [[], ["ledger"], ["release"], ["keys"], ["audit", "canaries"]]
)
def test_without_a_verb_the_help_is_shown(call, arguments):
    called = call(*arguments)
    assert called.status == 2
    assert "Usage: dpmlm" in called.out + called.err
    assert "Traceback" not in called.err
