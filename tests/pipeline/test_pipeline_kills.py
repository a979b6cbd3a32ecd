"""A run killed at any moment and repeated: what it charged, what it left, where it ends."""

import json
import os
import random
import secrets
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from leaks import find_leaks
from small_run import KNOWN_SENTENCE, draw_keys, write_corpus, write_run_file

from dpmlm.artifacts import SealedFolder, load_identity
from dpmlm.privacy import Ledger
from dpmlm.tokens import TokenStore, load_sealed_tokenizer, train_tokenizer

KILLED = -9
CPU_SECONDS = 9.0
"""Random kills come within so much processor time: about what a run takes from start to verdict."""

pytestmark = pytest.mark.xdist_group("kills")


class Driver:
    """The program of kill_driver.py, whose temporary files go to a folder of its own."""

    def __init__(self, folder: Path):
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("kill_driver.py"))],
            env=os.environ
            | {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n", self.said()

    def attempt(self, folder: Path, **moment) -> int:
        """Exit status of one attempt at the run in `folder`."""
        request = {"run": str(folder / "run.yaml"), "drawn": str(folder / "drawn"), **moment}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def said(self) -> str:
        """The end of what attempts wrote to standard error."""
        self.log.flush()
        return Path(self.log.name).read_text()[-3000:]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.log.close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    running = Driver(tmp_path_factory.mktemp("driver"))
    yield running
    running.close()


def new_run(folder: Path) -> Path:
    """A small run, not begun, with budget for many repeated steps."""
    folder.mkdir(exist_ok=True)
    write_corpus(folder)
    # The accountant that calibrates fastest.
    cap = {"epsilon": 100, "delta": 1e-3}
    write_run_file(folder, ledger__cap=cap, privacy__accountant="rdp")
    draw_keys(folder)
    return folder


@pytest.fixture(scope="module")
def sentence(tmp_path_factory) -> list[int]:
    """Token ids of the known sentence: the vocabulary is a function of public text alone."""
    folder = tmp_path_factory.mktemp("vocabulary")
    write_corpus(folder)
    rows = [json.loads(line) for line in (folder / "public.jsonl").open()]
    tokenizer = train_tokenizer((row["text"] for row in rows), vocab_size=600, unused=400)
    return tokenizer(KNOWN_SENTENCE, add_special_tokens=False)["input_ids"]


def drawn(folder: Path) -> list[tuple[int, int]]:
    """(attempt, step) of every sample that was about to be drawn."""
    path = folder / "drawn"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(attempt), int(step)) for attempt, step in map(str.split, lines)]


def charged(folder: Path) -> list[tuple[int, int]]:
    """(attempt, step) of every charge, after the ledger mended a torn last line."""
    ledger = Ledger.open(folder / "ledger.jsonl")
    ledger.verify()
    return [(e["attempt"], e["step"]) for e in ledger.entries if e["kind"] == "charge"]


def check(folder: Path, driver: Driver, sentence: list[int]) -> None:
    """What must hold after every kill."""
    draws, charges = drawn(folder), charged(folder)
    assert len(set(draws)) == len(draws) <= len(charges)
    assert set(draws) <= set(charges)
    given = ("private.jsonl", "marked.jsonl")
    assert find_leaks(folder, KNOWN_SENTENCE, sentence, skip=given) == []
    assert find_leaks(driver.temporary, KNOWN_SENTENCE, sentence) == []


def finish(folder: Path, driver: Driver, sentence: list[int]) -> None:
    """Repeat the run to its verdict and look at what it left."""
    assert driver.attempt(folder) == 0, driver.said()
    check_finished(folder, driver, sentence)


def check_finished(folder: Path, driver: Driver, sentence: list[int]) -> None:
    check(folder, driver, sentence)
    ledger = Ledger.open(folder / "ledger.jsonl")
    (run_id,) = ledger.run_ids
    assert ledger.committed_steps(run_id) == 6
    assert {step for _, step in drawn(folder)} == set(range(6))
    assert [path.name for path in (folder / "work").rglob(".*")] == []
    assert not (folder / "work/training/checkpoints").exists()
    assert not (folder / "work/control/checkpoints").exists()
    identity = load_identity(folder / "keys/trainer.key")
    tokenizer = load_sealed_tokenizer(SealedFolder.open(folder / "work/tokens", [identity]))
    assert tokenizer(KNOWN_SENTENCE, add_special_tokens=False)["input_ids"] == sentence
    control = TokenStore.open(SealedFolder.open(folder / "work/control/tokens", [identity]))
    assert len(control) == len((folder / "public.jsonl").read_text().splitlines())
    training = SealedFolder.open(folder / "work/training", [identity])
    events = [json.loads(line) for line in training.read_bytes("events.jsonl").splitlines()]
    assert [event["step"] for event in events] == [1, 2, 3, 4, 5, 6]


BEFORE = [
    {"write": "/work/.run.json."},
    {"write": "/corpus/.begun.sealed."},
    {"write": "/corpus/.documents-00000.sealed."},
    {"write": "/scrub/.manifest.sealed."},
]
WITHIN = [
    {"noise": 2},
    {"write": "/training/checkpoints/unfinished/.recipients.json."},
    {"write": "/training/checkpoints/unfinished/.optimizer.sealed."},
]
AFTER = [
    {"commit": True},
    {"write": "/training/.weights.sealed."},
    {"write": "/training/.manifest.sealed."},
    {"write": "/control/.manifest.sealed."},
    {"write": "/release/.decision.sealed."},
    {"write": "/work/.bundle."},
    {"write": "/release/.manifest.sealed."},
]
"""The worst moments before, within and after the steps, as a run comes by them."""


@pytest.mark.parametrize(
    ("before", "within", "after"),
    [
        pytest.param([], WITHIN[:1], AFTER[5:6], id="some"),
        pytest.param(BEFORE, WITHIN, AFTER, marks=pytest.mark.full, id="all"),
    ],
)
def test_a_run_killed_at_the_worst_moments_reaches_a_verdict(
    tmp_path, driver, sentence, before, within, after
):
    folder = new_run(tmp_path / "run")
    for moment in before + within + after:
        assert driver.attempt(folder, **moment) == KILLED, (moment, driver.said())
        check(folder, driver, sentence)
    finish(folder, driver, sentence)
    steps = defaultdict(list)
    for attempt, step in drawn(folder):
        steps[attempt].append(step)
    # The attempts that died in step 2 or in the checkpoints that are written beside it, and the one
    # that reached the end: nothing is drawn once the last checkpoint stands.
    last = len(within) + 1
    assert steps.keys() == set(range(1, last + 1))
    assert steps[last][-4:] == [2, 3, 4, 5]
    for attempt, of_it in steps.items():
        assert of_it == list(range(of_it[0], of_it[-1] + 1))
        assert of_it[0] in ((0,) if attempt == 1 else (1, 2))
    bills, draws = charged(folder), drawn(folder)
    assert [bill for bill in bills if bill in draws] == draws
    # Checkpoints are written beside the training: the kill may fall between a charge and its draw.
    for attempt, step in set(bills) - set(draws):
        assert attempt < last
        assert step == steps[attempt][-1] + 1


def killed_at_random(kills: int, folder: Path, driver: Driver, sentence: list[int]) -> None:
    """So many kills at random moments; a run that ends before its moment is followed by another."""
    seed = int(os.environ.get("KILL_SEED") or secrets.randbits(32))
    print(f"KILL_SEED={seed}")
    rng = random.Random(seed)
    runs, done = 0, 0
    while done < kills:
        runs += 1
        run = new_run(folder / f"run-{runs}")
        status = KILLED
        while status == KILLED and done < kills:
            moment = rng.uniform(0, CPU_SECONDS)
            print(f"run {runs}: kill {done + 1} after {moment:.3f} s of processor time")
            status = driver.attempt(run, cpu=moment)
            done += status == KILLED
            assert status in (0, KILLED), driver.said()
            check(run, driver, sentence)
        finish(run, driver, sentence)


@pytest.mark.full
def test_a_run_killed_at_twelve_random_moments_reaches_a_verdict(tmp_path, driver, sentence):
    killed_at_random(12, tmp_path, driver, sentence)


def test_sigterm_leaves_a_checkpoint_and_the_command_resumes(tmp_path, driver, sentence):
    folder = new_run(tmp_path / "run")
    command = ["train", str(folder / "run.yaml")]
    assert driver.attempt(folder, command=command, sigterm=3) == 143, driver.said()
    assert "run the same command to resume" in driver.said()
    left = sorted(path.name for path in (folder / "work/training/checkpoints").iterdir())
    assert left == ["step-00000002", "step-00000003"]
    told = json.loads((folder / "work.status.json").read_text())
    assert (told["state"], told["status"], told["step"]) == ("stopped", 143, 3)
    signalled, stopped = (folder / "drawn").stat(), (folder / "work.status.json").stat()
    assert 0 <= stopped.st_mtime - signalled.st_mtime < 30  # the usual grace period
    check(folder, driver, sentence)
    assert driver.attempt(folder, command=command) == 0, driver.said()
    both = [(1, 0), (1, 1), (1, 2), (1, 3), (2, 3), (2, 4), (2, 5)]
    assert drawn(folder) == both == charged(folder)
    check(folder, driver, sentence)


def test_what_is_drawn_without_a_charge_is_noticed(tmp_path, driver, sentence):
    folder = new_run(tmp_path / "run")
    (folder / "drawn").write_text("1 0\n")
    with pytest.raises(AssertionError):
        check(folder, driver, sentence)
