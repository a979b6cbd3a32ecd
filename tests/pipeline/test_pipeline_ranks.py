"""A whole run under torchrun: the first rank does everything, the others come to its trainings."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import draw_keys, write_corpus, write_run_file

from dpmlm.privacy import Ledger

ROOT = Path(__file__).parents[2]


def under_torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    run += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "-m", "dpmlm.cli.main"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*run, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.mark.full
def test_a_run_on_two_ranks_is_one_run(tmp_path):
    write_corpus(tmp_path)
    write_run_file(tmp_path)
    draw_keys(tmp_path)
    done = under_torchrun(tmp_path, "run", "run.yaml", "--json")
    found = json.loads(done.stdout)  # one rank speaks
    assert found["verdict"] == "FAIL", done.stderr[-2000:]  # delta 1e-3 is above the policy's
    assert Path(found["bundle"]).is_dir()
    ledger = Ledger.open(tmp_path / "ledger.jsonl")
    (run_id,) = ledger.run_ids
    assert ledger.charged_steps(run_id) == ledger.committed_steps(run_id) == 6


@pytest.mark.full
def test_a_refusal_ends_every_rank(tmp_path):
    write_corpus(tmp_path)
    write_run_file(tmp_path, privacy__delta=0.5)
    draw_keys(tmp_path)
    done = under_torchrun(tmp_path, "run", "run.yaml")
    ended = set(re.findall(r"exitcode *: (-?\d+)", done.stderr))
    assert "2" in ended
    assert ended <= {"2", "-15"}  # the first one's, and those whom torchrun then told to end
    assert done.stderr.count("error: delta 0.5") == 1
    assert "Connection closed" not in done.stderr
    assert not (tmp_path / "work").exists()
    told = json.loads((tmp_path / "work.status.json").read_text())  # torchrun's own status is 1
    assert (told["state"], told["status"]) == ("refused", 2)
    assert "delta 0.5" in told["reason"]


def charges_in(folder: Path) -> int:
    ledger = folder / "ledger.jsonl"
    return ledger.read_text().count('"charge"') if ledger.exists() else 0


def children_of(process: int) -> list[int]:
    return [
        int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


@pytest.mark.full
def test_a_run_whose_every_process_is_told_to_stop_goes_on_with_fewer_ranks(tmp_path):
    """As Slurm does it: launcher and workers get SIGTERM, and workers the launcher's as well."""
    write_corpus(tmp_path)
    write_run_file(tmp_path, training__steps=60, training__checkpoint_minutes=30)
    draw_keys(tmp_path)
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    run += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "-m", "dpmlm.cli.main"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*run, "train", "run.yaml"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE,
        text=True,
    ) as launcher:  # fmt: skip
        while charges_in(tmp_path) < 3:
            assert launcher.poll() is None, launcher.stderr.read()[-2000:]
            time.sleep(0.01)
        workers, begun = children_of(launcher.pid), time.monotonic()
        for process in (launcher.pid, *workers):
            os.kill(process, signal.SIGTERM)
        said = launcher.communicate(timeout=120)[1]
    assert len(workers) == 2
    assert time.monotonic() - begun < 30, said[-2000:]
    assert launcher.returncode == 1  # torchrun's own; the file says what came
    told = json.loads((tmp_path / "work.status.json").read_text())
    assert (told["state"], told["status"]) == ("stopped", 143), said[-2000:]
    charged = charges_in(tmp_path)
    assert told["step"] in (charged - 1, charged)
    done = subprocess.run(
        [sys.executable, "-m", "dpmlm.cli.main", "train", "run.yaml"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ledger = Ledger.open(tmp_path / "ledger.jsonl")
    (run_id,) = ledger.run_ids
    assert ledger.committed_steps(run_id) == 60
    assert ledger.charged_steps(run_id) in (60, 61)
