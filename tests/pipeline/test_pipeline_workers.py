"""Many workers leave what one run leaves: by rank, on a local Ray cluster, after a kill."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from leaks import find_leaks
from small_run import KNOWN_SENTENCE, draw_keys, write_corpus, write_run_file

from dpmlm.artifacts import SealedFolder, create_keys, load_identity
from dpmlm.config import RunConfig, load_config
from dpmlm.corpus import count_shards, read_shard
from dpmlm.errors import UserError
from dpmlm.pipeline import on_ray
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.on_ray import work_on_ray
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_until
from dpmlm.pipeline.workers import prepare, work
from dpmlm.pipeline.workspace import Workspace

pytestmark = pytest.mark.xdist_group("workers")

ROOT = Path(__file__).parents[2]
STAGES = ("scrub", "dedup")
LEFT = {
    "scrub": ("documents", "decisions", "emptied", "counts"),
    "dedup": ("documents", "removed"),
}


def begin(folder: Path) -> RunConfig:
    write_corpus(folder)
    write_run_file(
        folder, corpus__per_shard=20, dedup={"near": {"threshold": 0.8}, "passages": {"words": 10}}
    )
    draw_keys(folder)
    config = load_config(folder / "run.yaml")
    execute_until(config, "corpus")
    return config


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A corpus of five shards, and the run that read it."""
    folder = tmp_path_factory.mktemp("begun")
    begin(folder)
    return folder


@pytest.fixture
def copy(begun: Path, tmp_path: Path) -> RunConfig:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    return load_config(tmp_path / "run.yaml")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """For Ray's files: the names of its sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        yield Path(folder)


def opened(folder: Path, stage: str) -> SealedFolder:
    return SealedFolder.open(folder / "work" / stage, [load_identity(folder / "keys/trainer.key")])


def left(folder: Path) -> dict[str, list[bytes]]:
    """The plaintext bytes that each stage left, file by file."""
    found = {}
    for stage, prefixes in LEFT.items():
        sealed = opened(folder, stage)
        names = [name for name in sealed.names() if name.startswith(prefixes)]
        found[stage] = [(name, sealed.read_bytes(name)) for name in names]
    return found


@pytest.fixture(scope="module")
def alone(begun: Path, tmp_path_factory) -> dict[str, list[bytes]]:
    """What one run leaves."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(begun, folder, dirs_exist_ok=True)
    execute_until(load_config(folder / "run.yaml"), "dedup")
    files = left(folder)
    assert count_shards(opened(folder, "scrub")) == 5
    assert len(read_shard(opened(folder, "dedup"), 0, prefix="removed")) == 1
    return files


@pytest.mark.parametrize(
    "world_size", [2, *(pytest.param(n, marks=pytest.mark.full) for n in (1, 7))]
)
def test_ranks_leave_the_same_bytes(copy, alone, world_size):
    folder = copy.workspace.parent
    for stage in STAGES:
        for rank in reversed(range(world_size)):
            work(copy, stage, rank=rank, world_size=world_size)
        before = {path.name: path.read_bytes() for path in (folder / "work" / stage).iterdir()}
        execute_until(copy, stage)
        after = {path.name: path.read_bytes() for path in (folder / "work" / stage).iterdir()}
        if stage == "scrub":  # the run took up every shard as the workers left it
            assert {name: after[name] for name in before} == before
        work(copy, stage, rank=0, world_size=world_size)  # done before: nothing is touched
        assert opened(folder, stage).manifest is not None
    assert left(folder) == alone


SBATCH = """#!/usr/bin/env bash
# Stands for Slurm: runs the wrapped command at once, for each task of an array in turn.
set -eu
echo "$@" >> "$CALLS"
tasks=none
while [ $# -gt 0 ]; do
  case $1 in
    --array) tasks=$(seq "${2%-*}" "${2#*-}"); shift ;;
    --wrap) command=$2; shift ;;
    *.sbatch) command="dpmlm run $(printf %q "$2")"; shift ;;
  esac
  shift
done
for SLURM_ARRAY_TASK_ID in $tasks; do
  export SLURM_ARRAY_TASK_ID
  case $command in
    *--until* | *--shards*) bash -c "$command" >&2 ;;
    *) bash -c "$command --until dedup" >&2 ;;
  esac
done
wc -l < "$CALLS"
"""


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.full)])
def test_the_slurm_example_leaves_the_same_bytes(copy, alone, tmp_path_factory, real):
    """Through a stand-in for sbatch, to the end of dedup; without `real` only what it submits."""
    folder, tools = copy.workspace.parent, tmp_path_factory.mktemp("tools")
    (tools / "sbatch").write_text(SBATCH)
    (tools / "dpmlm").write_text("#!/bin/sh\n")
    if real:
        (tools / "dpmlm").write_text(
            f"#!/usr/bin/env bash\nexec {sys.executable} -c "
            "'import sys; from dpmlm.cli.main import main; main(sys.argv[1:])' \"$@\"\n"
        )
    for name in ("sbatch", "dpmlm"):
        (tools / name).chmod(0o755)
    calls = tools / "calls"
    done = subprocess.run(
        [ROOT / "examples/cluster/slurm.sh", folder / "run.yaml", "3"],
        env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(calls)},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if real:
        assert left(folder) == alone
    *before, rest = calls.read_text().splitlines()
    jobs = [line.split("--wrap ")[0] for line in before]
    assert jobs == [
        "--parsable --job-name dpmlm-corpus ",
        "--parsable --job-name dpmlm-scrub --dependency afterok:1 --array 0-2 ",
        "--parsable --job-name dpmlm-scrub-end --dependency afterok:2 ",
        "--parsable --job-name dpmlm-dedup --dependency afterok:3 --array 0-2 ",
        "--parsable --job-name dpmlm-dedup-end --dependency afterok:4 ",
    ]
    sbatch = ROOT / "examples/cluster/train.sbatch"  # preempted, it is queued again
    assert rest == (
        f"--parsable --job-name dpmlm-rest --dependency afterok:5 {sbatch} {folder / 'run.yaml'}"
    )


def test_a_worker_that_is_missing_is_made_up_for(copy, alone):
    work(copy, "scrub", rank=1, world_size=3)
    folder = copy.workspace.parent
    assert not opened(folder, "scrub").has("counts-00000")
    assert opened(folder, "scrub").has("counts-00004")
    execute_until(copy, "dedup")
    assert left(folder) == alone


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: the extra [ray]")
@pytest.mark.full
@pytest.mark.parametrize("stage", STAGES)
def test_a_local_ray_cluster_leaves_the_same_bytes(copy, alone, stage, short_folder, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(short_folder))
    if stage == "dedup":
        execute_until(copy, "scrub")
    work_on_ray(copy, stage, address="local", actors=2)
    prefix = {"scrub": "counts", "dedup": "signatures"}[stage]
    assert count_shards(opened(copy.workspace.parent, stage), prefix) == 5
    assert list(short_folder.rglob("raylet.out"))
    assert find_leaks(short_folder, KNOWN_SENTENCE, [60001, 60002, 60003]) == []
    execute_until(copy, "dedup")
    assert left(copy.workspace.parent) == alone


class RayHere:
    """What `on_ray` asks of Ray, in this process: actors that get what can be pickled, do one call
    after the other, and of whom the one with the call numbered `dies_at` dies at it."""

    exceptions = SimpleNamespace(
        RayTaskError=type("RayTaskError", (Exception,), {}),
        RayActorError=type("RayActorError", (Exception,), {}),
    )

    def __init__(self, dies_at: int):
        self.given, self.calls, self._dies_at = b"", [], dies_at

    def init(self, **settings):
        self.settings = settings

    def shutdown(self):
        self.settings = None

    def remote(self, **resources):
        return lambda kind: SimpleNamespace(remote=partial(self._actor, kind))

    def wait(self, calls, num_returns):
        return calls[:num_returns], calls[num_returns:]

    def get(self, call):
        return call()

    def _actor(self, kind, *arguments):
        sent = pickle.dumps(arguments)
        self.given += sent
        actor = kind(*pickle.loads(sent))
        return SimpleNamespace(
            enter=SimpleNamespace(remote=lambda: partial(actor.enter)),
            do=SimpleNamespace(remote=lambda number: partial(self._do, actor, number)),
        )

    def _do(self, actor, number):
        self.calls.append((actor, number))
        if len(self.calls) == self._dies_at:
            raise self.exceptions.RayActorError
        actor.do(number)


@pytest.mark.full
def test_actors_share_a_stage_and_make_up_for_one_that_dies(copy, alone, monkeypatch):
    """Real Ray: `test_a_local_ray_cluster_leaves_the_same_bytes`, in the full suite."""
    ray = RayHere(dies_at=4)
    monkeypatch.setattr(on_ray, "_ray", lambda: ray)
    work_on_ray(copy, "scrub", address="local", actors=2)
    (first, *_), (second, *_) = ray.calls[0], ray.calls[1]
    assert ray.calls == [
        (first, 0), (second, 1), (first, 2), (second, 3), (first, 4), (first, 3)
    ]  # fmt: skip
    assert first is not second
    assert KNOWN_SENTENCE.encode() not in ray.given
    assert b"scrub" in ray.given
    assert ray.settings is None
    execute_until(copy, "dedup")
    assert left(copy.workspace.parent) == alone


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: the extra [ray]")
def test_a_cluster_that_is_not_there_is_refused(copy):
    for address in ("127.0.0.1:1", "nowhere", "ray://127.0.0.1:1"):
        with pytest.raises(UserError, match="no cluster lets us in"):
            work_on_ray(copy, "scrub", address=address, actors=1)
    with pytest.raises(UserError, match="at least one"):
        work_on_ray(copy, "scrub", address="local", actors=0)


def test_without_ray_its_command_is_named(copy, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'dpmlm-framework\[ray\]'"):
        work_on_ray(copy, "scrub", address="local", actors=1)


@pytest.mark.parametrize(
    ("stage", "rank", "world_size", "rule"),
    [
        ("scrub", 2, 2, "ranks are counted from 0"),
        ("scrub", -1, 2, "ranks are counted from 0"),
        ("scrub", 0, 0, "ranks are counted from 0"),
        ("tokens", 0, 1, "not done in shards"),
        ("dedup", 0, 1, "has not finished"),
    ],
)
def test_work_that_cannot_be_done_is_refused(copy, stage, rank, world_size, rule):
    with pytest.raises(UserError, match=rule):
        work(copy, stage, rank=rank, world_size=world_size)


def test_a_workspace_that_no_run_has_begun_is_refused(small):
    with pytest.raises(UserError, match="no run has begun"):
        work(load_config(small / "run.yaml"), "scrub", rank=0, world_size=1)


def test_workers_and_a_run_keep_each_other_out(copy):
    workspace = Workspace(copy.workspace)
    with workspace.locked(), pytest.raises(UserError, match="another process"):
        work(copy, "scrub", rank=0, world_size=2)
    with workspace.shared("scrub-0"):
        with pytest.raises(UserError, match="another process"):
            execute_until(copy, "scrub")
        with pytest.raises(UserError, match="another process"):
            work(copy, "scrub", rank=0, world_size=2)
        work(copy, "scrub", rank=1, world_size=2)


@pytest.fixture
def another_key(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    create_keys(folder)
    return folder / "pseudonym.key"


def test_workers_of_two_keys_never_share_a_stage(copy, another_key):
    """A worker with another pseudonym key starts the stage anew; beside others it is refused."""
    folder = copy.workspace.parent
    policy = folder / "pseudonyms.yaml"
    rule = {"operator": "pseudonym", "why": "to tell keys apart"}
    policy.write_text(json.dumps(
        {"name": "p", "description": "d", "other": rule, "rules": []}))  # fmt: skip
    config = copy.model_copy(
        update={"scrub": copy.scrub.model_copy(update={"policy": str(policy)})}
    )
    shutil.rmtree(folder / "work")
    execute_until(config, "corpus")
    work(config, "scrub", rank=0, world_size=2)
    first = read_shard(opened(folder, "scrub"), 0)
    key = folder / "keys/pseudonym.key"
    right = key.read_bytes()
    key.write_bytes(another_key.read_bytes())
    with Workspace(copy.workspace).shared("scrub-0"):
        with pytest.raises(UserError, match="other settings or another key"):
            work(config, "scrub", rank=1, world_size=2)
    key.write_bytes(right)
    work(config, "scrub", rank=1, world_size=2)
    execute_until(config, "scrub")
    assert read_shard(opened(folder, "scrub"), 0) == first


def test_a_shard_of_other_settings_is_done_again(copy):
    """Written by a worker that began before the settings changed, and went on."""
    folder = copy.workspace.parent
    run = Run.load(copy, Progress(quiet=True))
    late = prepare(run, "scrub", worker="scrub-0")
    sealed = opened(folder, "scrub")
    sealed.write_json("done-00001", {"key": "sha256:other", "code": "old"})
    sealed.write_bytes("documents-00001", b'{"id": "x", "text": "of other settings"}\n')
    with late.entered(run) as do:
        do(0)
        sealed.write_json("begun", {"key": "sha256:other", "code": "new"})
        with pytest.raises(UserError, match="begun anew"):
            do(2)
        sealed.write_json("begun", {"key": late.key, "code": "new"})
    execute_until(copy, "scrub")
    texts = [d["text"] for d in read_shard(opened(folder, "scrub"), 1)]
    assert "of other settings" not in texts
    assert len(opened(folder, "scrub").manifest["codes"]) == 1
