"""The training job's templates: their form, what they do with each exit status, and a real stop."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_run import write_corpus, write_run_file
from variants import rest_in_full

from dpmlm.artifacts import create_keys, load_identity
from dpmlm.errors import UserError
from dpmlm.pipeline.start import initialise

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "examples/cluster"
JOB = CLUSTER / "train-job.yaml"
SCRIPTS = ("slurm.sh", "train.sh", "train.sbatch")


def program(folder: Path, name: str, text: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
    """A folder with a run file, and stand-ins for what a node has on its PATH."""
    write_run_file(tmp_path)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/cluster").symlink_to(CLUSTER)
    program(tmp_path, "python", f'exec {sys.executable} "$@"')
    program(tmp_path, "srun", 'shift 2; exec "$@"')
    program(tmp_path, "scontrol", f'echo "$@" > {tmp_path}/scontrol.txt')
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    more = {"SLURM_JOB_ID": "17", "SLURM_SUBMIT_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    return os.environ | {"PATH": path} | more


def started(folder: Path, script: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [CLUSTER / script, "run.yaml", *words],
        cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_be_read_by_its_shell(name):
    assert subprocess.run(["bash", "-n", CLUSTER / name]).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", CLUSTER / name]).returncode == 0


STATUSES = [
    (143, 1, 143), (0, 0, 0), (1, 1, 1), (2, 1, 2), (70, 1, 70), (None, 1, 137), ("none", 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "left", "status"),
    rest_in_full(STATUSES, [(143, 1, 143), (0, 0, 0), (2, 1, 2), (None, 1, 137)]),
)
def test_a_start_ends_with_the_runs_own_status(machine, told, left, status):
    (machine / "work.status.json").write_text('{"status": 0}')  # of an earlier start
    write = f"echo '{json.dumps({'status': told})}' > {machine}/work.status.json"
    program(machine, "dpmlm", f"{'true' if told == 'none' else write}; exit {left}")
    assert started(machine, "train.sh").returncode == status


@pytest.mark.parametrize("text", [None, "name: [", "nonsense: 1"])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_file_that_cannot_be_read_is_refused_in_one_line(machine, text, processes):
    program(machine, "dpmlm", f"touch {machine}/started")
    (machine / "run.yaml").unlink()
    if text is not None:
        (machine / "run.yaml").write_text(text)
    done = started(machine, "train.sh", processes)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (machine / "started").exists()


def test_a_stop_before_the_run_begins_is_one_to_be_started_again(machine):
    """While the run file is read, where the shell waits for another program."""
    program(machine, "python", f'touch {machine}/reading; sleep 1; exec {sys.executable} "$@"')
    program(machine, "dpmlm", f"touch {machine}/started")
    with subprocess.Popen(
        [CLUSTER / "train.sh", "run.yaml"], cwd=machine, env=environment(machine)
    ) as script:
        while not (machine / "reading").exists():
            time.sleep(0.01)
        script.send_signal(signal.SIGTERM)
        assert script.wait(60) == 143
    assert not (machine / "started").exists()


@pytest.mark.parametrize(
    ("told", "queued"),
    rest_in_full([(143, True), (None, True), (1, False), (2, False)], [(143, True), (2, False)]),
)
def test_slurm_queues_again_what_was_stopped_and_nothing_else(machine, told, queued):
    write = f"echo '{json.dumps({'status': told})}' > {machine}/work.status.json"
    program(machine, "dpmlm", f"{write}; exit 1")
    done = started(machine, "train.sbatch")
    asked = machine / "scontrol.txt"
    assert asked.exists() == queued
    if queued:
        assert (asked.read_text(), done.returncode) == ("requeue 17\n", 0)
    else:
        assert done.returncode == told


@pytest.mark.full
def test_slurm_does_not_queue_for_ever_what_is_killed(machine, monkeypatch):
    """Six kills, and as many stops between them as there are: Slurm's own count holds both."""
    queued = []
    for restarts, status in enumerate([143, 143, *[None, 143] * 6, None, None]):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        write = f"echo '{json.dumps({'status': status})}' > {machine}/work.status.json"
        program(machine, "dpmlm", f"{write}; exit 1")
        started(machine, "train.sbatch")
        queued.append((machine / "scontrol.txt").exists())
        (machine / "scontrol.txt").unlink(missing_ok=True)
    assert queued == [True] * 14 + [False, True]  # after an end it begins to count anew


def test_a_rank_that_died_before_a_word_is_no_verdict(machine):
    program(machine, "torchrun", "exit 1")
    program(machine, "dpmlm", "exit 0")
    assert started(machine, "train.sh", "2").returncode == 137


def test_slurm_is_asked_for_a_signal_before_the_end_and_a_second_start():
    asked = (CLUSTER / "train.sbatch").read_text()
    for option in ("--requeue", "--signal=TERM@90", "--open-mode=append"):
        assert f"#SBATCH {option}\n" in asked


def test_the_job_means_what_its_comments_say():
    job = yaml.safe_load(JOB.read_text())["spec"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # a failure policy is refused with any other
    (container,) = pod["containers"]
    decided = {}
    for rule in job["podFailurePolicy"]["rules"]:
        assert rule["action"] in ("FailJob", "Ignore", "Count")
        if "onExitCodes" in rule:
            codes = rule["onExitCodes"]
            assert (codes["containerName"], codes["operator"]) == (container["name"], "In")
            assert 0 not in codes["values"]
            decided |= dict.fromkeys(codes["values"], rule["action"])
    assert decided == {1: "FailJob", 2: "FailJob", 70: "FailJob", 143: "Ignore"}
    assert pod["terminationGracePeriodSeconds"] > 30
    assert container["securityContext"]["readOnlyRootFilesystem"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    (copying,) = pod["initContainers"]
    mounted = {one["name"]: {m["name"] for m in one["volumeMounts"]} for one in pod["containers"]}
    assert mounted == {"train": set(volumes) - {"secret"}}
    assert {m["name"] for m in copying["volumeMounts"]} == {"secret", "keys"}
    assert volumes["keys"] == {"name": "keys", "emptyDir": {"medium": "Memory"}}


def test_keys_as_a_secret_mounts_them_are_refused_and_the_jobs_copies_are_taken(tmp_path):
    """The command of the init container, on files of the mode that kubelet gives a group."""
    secret, keys = tmp_path / "secret", tmp_path / "keys"
    secret.mkdir()
    keys.mkdir()
    create_keys(tmp_path / "made")
    for name in ("trainer.key", "sign.key", "pseudonym.key"):
        shutil.copy(tmp_path / "made" / name, secret)
        (secret / name).chmod(0o440)
    with pytest.raises(UserError, match="has mode 0440"):
        load_identity(secret / "trainer.key")
    (copying,) = yaml.safe_load(JOB.read_text())["spec"]["template"]["spec"]["initContainers"]
    shell, flag, words = copying["command"]
    words = words.replace("/secret/", f"{secret}/").replace("/keys/", f"{keys}/")
    subprocess.run([shell, flag, words], check=True)
    assert load_identity(keys / "trainer.key").recipient
    assert {path.name for path in keys.iterdir()} == {path.name for path in secret.iterdir()}


@pytest.mark.full
@pytest.mark.parametrize("version", ["1.31", "1.34", "1.37"])
def test_the_job_is_of_kubernetes_schema(version):
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    job = yaml.safe_load(JOB.read_text())
    validate.validate(job, version, strict=True)
    job["spec"]["backofLimit"] = job["spec"].pop("backoffLimit")
    with pytest.raises(validate.ValidationError):
        validate.validate(job, version, strict=True)


@pytest.mark.full
def test_a_real_run_is_stopped_and_goes_on(machine):
    write_corpus(machine)
    write_run_file(machine, training__steps=80)
    initialise(machine)
    program(machine, "dpmlm", f'exec {sys.executable} -m dpmlm.cli.main "$@"')
    first = subprocess.Popen(
        [CLUSTER / "train.sh", "run.yaml"], cwd=machine, env=environment(machine)
    )
    ledger = machine / "ledger.jsonl"
    while ledger.read_text().count('"charge"') < 20:
        assert first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert first.wait(60) == 143
    assert time.monotonic() - begun < 30
    again = started(machine, "train.sh", "1")
    assert again.returncode in (0, 1), again.stderr[-2000:]
    assert json.loads((machine / "work.status.json").read_text())["state"] == "done"
