"""Bad input: status 2, one message with value, rule and next step, earlier results untouched."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dpmlm.cli.main import status_of

pytestmark = pytest.mark.xdist_group("finished")

CASES = [
    ("unknown key", ["privacy.epsilonn=3"], ["privacy.epsilonn", "did you mean privacy.epsilon?"]),
    ("missing corpus", ["corpus.path=none.jsonl"], ["corpus.path", "none.jsonl"]),
    ("missing identity", ["keys.identity=none.key"], ["none.key"]),
    ("wrong identity", ["keys.identity=keys/auditor.key"], ["only the keys"]),
    ("public key as identity", ["keys.identity=keys/trainer.pub"], ["trainer.pub"]),
    ("delta", ["privacy.delta=0.5", "workspace=second"], ["delta 0.5", "1/units"]),
    ("another run", ["training.steps=81"], ["training.steps = 80 (now 81)", "another run"]),
    ("another name", ["name=other"], ["run 'small'"]),
    ("section as scalar", ["privacy=5"], ["privacy = 5", "section"]),
    ("section as null", ["training=null"], ["training", "section"]),
    ("below a scalar", ["privacy.epsilon.x=5"], ["privacy.epsilon"]),
    ("NaN", ["privacy.epsilon=.nan"], ["privacy.epsilon = nan"]),
    ("negative", ["training.steps=-3"], ["training.steps = -3"]),
    ("huge", ["training.steps=" + "9" * 40], ["training.steps"]),
    ("huge seed", ["seed=" + "9" * 40], ["seed"]),
    ("too many digits", ["seed=" + "9" * 5000], ["seed"]),
    ("infinite rate", ["training.learning_rate=.inf"], ["training.learning_rate"]),
    ("tiny delta", ["privacy.delta=1e-300", "workspace=second"], ["delta 1e-300"]),
    ("python tag", ["name=!!python/object/apply:os.system [id]"], ["--set name"]),
    ("alias", ["name=&a [*a]"], ["--set name", "anchors"]),
    ("NUL", ['corpus.path="a\\0b"'], ["--set corpus.path", "NUL"]),
    ("half a character", ['corpus.path="\\ud800"'], ["--set corpus.path"]),
    ("no such day", ["name=2001-99-99"], ["--set name"]),
    ("long name", ["corpus.path=" + "a" * 5000], ["corpus.path"]),
    ("file as workspace", ["workspace=run.yaml"], ["run.yaml", "it is a file"]),
    ("below a file", ["workspace=run.yaml/x"], ["run.yaml"]),
    ("root as workspace", ["workspace=/"], ["root folder"]),
    ("foreign folder", ["workspace=keys"], ["not empty"]),
    ("folder as ledger", ["ledger.path=keys"], ["keys"]),
    ("another cap", ["ledger.cap.epsilon=99"], ["cap"]),
    ("folder as identity", ["keys.identity=keys"], ["keys"]),
    ("unknown policy", ["release.policy=nope"], ["nope"]),
    ("folder as policy", ["scrub.policy=keys"], ["keys"]),
]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a run with its time and its content, but locks and how an attempt ended."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and not path.name.endswith(".status.json")
    }


@pytest.mark.parametrize(("changes", "named"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_bad_run_file_is_refused(finished, monkeypatch, refused, changes, named):
    folder = finished[0]
    monkeypatch.chdir(folder)
    before = snapshot(folder)
    settings = [word for change in changes for word in ("--set", change)]
    message = refused("run", "run.yaml", *settings)
    for part in named:
        assert part in message
    assert snapshot(folder) == before


def test_a_missing_run_file_says_how_to_get_one(refused, tmp_path):
    assert "dpmlm init" in refused("run", tmp_path / "none.yaml")


def test_a_budget_larger_than_what_is_left_is_refused(finished, monkeypatch, refused):
    folder = finished[0]
    monkeypatch.chdir(folder)
    before = snapshot(folder)
    wanted = ("--set", "privacy.epsilon=15.9", "--set", "workspace=second")
    message = refused("run", "run.yaml", *wanted)
    assert "is left of the cap 16" in message
    assert "lower privacy.epsilon to" in message
    assert snapshot(folder) == before
    assert not (folder / "second").exists()


def test_a_corpus_with_a_broken_line_is_refused_with_file_and_line(copy, refused):
    corpus = copy / "private.jsonl"
    lines = corpus.read_text().splitlines()
    lines[4] = lines[4][:-3]
    corpus.write_text("\n".join(lines))
    settings = ("--set", "workspace=second", "--set", "name=second")
    assert f"{corpus} line 5" in refused("run", "run.yaml", *settings)
    assert not list((copy / "second").rglob("manifest.sealed"))


def test_a_model_whose_gradients_are_not_exact_is_refused_first(copy, decoder, refused):
    before = snapshot(copy)
    message = refused(
        "run", "run.yaml", "--set", "workspace=second", "--set", "model={'from': " + f"{decoder}}}",
        "--set", "tokens={'vocabulary': " + f"{decoder}, window: 48}}",
    )  # fmt: skip
    assert "model.from" in message
    assert "is_decoder" in message
    assert snapshot(copy) == before
    assert not (copy / "second").exists()


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors"])
def test_a_model_folder_of_garbage_is_refused(copy, decoder, refused, damage):
    (decoder / damage).write_bytes(bytes(range(256)) * 9)
    message = refused(
        "run", "run.yaml", "--set", "workspace=second", "--set", "model={'from': " + f"{decoder}}}",
        "--set", "tokens={'vocabulary': " + f"{decoder / 'tokenizer.json'}, window: 48}}",
    )  # fmt: skip
    assert str(decoder) in message


OUTPUTS = [
    ("report", "run.yaml", "--open-to", "report.html"),
    ("release", "export", "work/bundle", "--trusted-keys", "keys/trusted", "--identity",
     "keys/consumer.key", "--plaintext", "--to", "plain"),
    ("dedup", "private.jsonl", "unique", "--to", "keys/trainer.pub"),
    ("dedup", "private.jsonl", "unique.jsonl", "--plaintext"),
    ("ledger", "register", "other.jsonl", "--epsilon", "8", "--delta", "1e-5"),
    ("keys", "new", "more"),
    ("run", "run.yaml"),
]  # fmt: skip
SLOW = ("report", "release", "run")


LIMITED = """
import contextlib, io, json, os, resource, sys
from dpmlm.cli.main import status_of

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for line in sys.stdin:
    folder, words, limit = json.loads(line)
    os.chdir(folder)
    said = io.StringIO()
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = status_of(words)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(json.dumps([status, said.getvalue()]), flush=True)
"""
"""Runs commands in a process in which no file may grow beyond a few bytes."""


@pytest.fixture(scope="module")
def limited():
    """Run a command as on a disk that is full; status and what it said."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # -B: the limit would cut compiled modules short too, for every process after this one.
    with subprocess.Popen([sys.executable, "-B", "-c", LIMITED], **pipes) as process:

        def run(folder, words, limit) -> tuple[int, str]:
            process.stdin.write(json.dumps([str(folder), words, limit]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, marks=[pytest.mark.full] * (words[0] in SLOW)) for words in OUTPUTS],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_full_disk_is_status_2_and_leaves_nothing_half_written(copy, limited, words):
    if words[0] == "run":
        (copy / "work/release/manifest.sealed").unlink()
    before = set(snapshot(copy))
    status, said = limited(copy, words, 24 if words[0] in ("ledger", "keys") else 3000)
    assert status == 2, said
    assert "Traceback" not in said
    (message,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "room" in message or "space" in message
    kept = ("unique/", "exports.jsonl")  # an export is logged before it is begun
    new = {path for path in set(snapshot(copy)) - before if not path.startswith(kept)}
    assert new == set()
    if words[0] == "run":
        verify = ["verify", "work/bundle", "--trusted-keys", "keys/trusted"]
        assert not (copy / "work/release/manifest.sealed").exists()
        assert not (copy / "work/bundle").exists() or status_of(verify) == 0
        assert status_of([*words]) == 0
        assert status_of(verify) == 0
    elif words[0] == "dedup":
        # A sealed folder without a manifest: unfinished for every reader.
        assert not (copy / "unique/manifest.sealed").exists()


def test_an_output_that_exists_is_not_written_over(copy, refused):
    (copy / "taken").write_text("mine")
    bundle = ("work/bundle", "--trusted-keys", "keys/trusted", "--identity", "keys/consumer.key")
    for words in (
        ("report", "run.yaml", "--open-to", "taken"),
        ("release", "export", *bundle, "--plaintext", "--to", "taken"),
        ("dedup", "private.jsonl", "taken", "--plaintext"),
        ("scrub", "private.jsonl", "taken", "--plaintext"),
        ("ledger", "register", "taken", "--epsilon", "8", "--delta", "1e-5"),
        ("init", "taken"),
        ("audit", "work/training", "--canaries", "x", "--plan", "y", "--out", "taken"),
    ):
        assert "taken" in refused(*words)
        assert (copy / "taken").read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ("scrub", "private.jsonl", "work"),
        ("scrub", "private.jsonl", "out", "--to", "keys/trainer.pub", "--plaintext"),
        ("scrub", "private.jsonl"),
        ("scrub", "private.jsonl", "--gold", "private.jsonl"),
        ("scrub", "--gold", "private.jsonl"),
        ("scrub", "--gold", "none.jsonl"),
        ("dedup", "private.jsonl", "out", "--to", "keys/trainer.key"),
        ("dedup", "private.jsonl", "out", "--to", "keys/none.pub"),
        ("dedup", "private.jsonl", "out", "--plaintext", "--text", "body"),
        ("dedup", "none.jsonl", "out", "--plaintext"),
        ("release", "export", "work/bundle", "--trusted-keys", "keys/trusted", "--identity",
         "keys/consumer.key", "--to", "out"),
        ("release", "export", "work/bundle", "--trusted-keys", "work", "--identity",
         "keys/consumer.key", "--to", "out", "--plaintext"),
        ("report", "run.yaml", "--open-to", "out", "--identity", "keys/consumer.key"),
        ("report", "run.yaml", "--open-to", "out", "--set", "workspace=none"),
        ("gate", "run.yaml", "--set", "workspace=none"),
        ("gate", "run.yaml", "--set", "privacy.epsilon=3"),
        ("gate", "run.yaml", "--policy", "nope"),
        ("verify", "none", "--trusted-keys", "keys/trusted"),
        ("verify", "work/bundle", "--trusted-keys", "none"),
        ("ledger", "show", "none"),
        ("ledger", "register", "out", "--epsilon", "nan", "--delta", "1e-5"),
        ("ledger", "register", "out", "--epsilon", "8", "--delta", "7"),
        ("keys", "new", "keys"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_cannot_be_done_is_refused(copy, refused, words):
    before = snapshot(copy)
    refused(*words)
    assert snapshot(copy) == before


@pytest.mark.parametrize(
    "idle", ["control", "untrained", "reference", "labels", "commitment", "transcript"]
)
def test_a_look_at_a_plan_alone_takes_no_model(copy, refused, idle):
    message = refused("audit", "--plan", "work/bundle/plan.json", f"--{idle}", "work/training")
    assert f"--{idle}" in message
    assert "no model is looked at" in message


def by_hand(plan, **changes):
    """The five numbers of a claim as somebody types them."""
    names = ("epsilon", "delta", "noise_multiplier", "sample_rate", "steps")
    return {**{name: plan[name] for name in names}, **changes}


PLANS = {
    "edited": lambda plan: {**plan, "epsilon": 4.0},
    "too few fields": lambda plan: {"epsilon": 8},
    "words": lambda plan: dict.fromkeys(
        ("epsilon", "delta", "noise_multiplier", "sample_rate", "steps"), "many"
    ),
    "a list": lambda plan: [plan],
    "odd types": lambda plan: {**plan, "steps": [], "bindings": 3},
    "bindings by hand": lambda plan: by_hand(plan, bindings=5),
    "too many steps": lambda plan: by_hand(plan, steps=1_000_000_000),
    "hardly any noise": lambda plan: by_hand(plan, noise_multiplier=1e-9),
    "a number beyond any float": lambda plan: by_hand(plan, epsilon=10**400),
    "beta": None,
    "no folder": None,
}


@pytest.mark.parametrize("kind", PLANS)
def test_an_audit_of_an_unfit_claim_is_refused(copy, refused, kind):
    if PLANS[kind] is not None:
        plan = json.loads((copy / "work/bundle/plan.json").read_text())
        (copy / "plan.json").write_text(json.dumps(PLANS[kind](plan)))
    else:
        (copy / "plan.json").write_bytes((copy / "work/bundle/plan.json").read_bytes())
    refused(
        "audit", "work/training", "--canaries", "work/canaries", "--plan", "plan.json",
        "--identity", "keys/trainer.key", "--beta", "7" if kind == "beta" else "0.05",
        "--out", "none/e.json" if kind == "no folder" else "e.json",
    )  # fmt: skip
    assert not (copy / "e.json").exists()


def test_canaries_of_another_run_are_refused(copy, refused):
    plan = json.loads((copy / "work/bundle/plan.json").read_text())
    claim = {name: plan[name] for name in ("epsilon", "delta", "noise_multiplier", "sample_rate")}
    other = {**claim, "steps": 80, "bindings": {"canary_commitment": "sha256:" + "0" * 64}}
    (copy / "plan.json").write_text(json.dumps(other))
    message = refused(
        "audit", "work/training", "--canaries", "work/canaries", "--plan", "plan.json",
        "--identity", "keys/trainer.key", "--out", "e.json",
    )  # fmt: skip
    assert "commitment" in message
