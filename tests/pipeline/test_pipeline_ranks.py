"""A whole run under torchrun: the first rank does everything, the others come to its trainings."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import write_corpus, write_run_file

from dpmlm.pipeline.start import initialise
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
    initialise(tmp_path)
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
    initialise(tmp_path)
    done = under_torchrun(tmp_path, "run", "run.yaml")
    ended = set(re.findall(r"exitcode *: (-?\d+)", done.stderr))
    assert "2" in ended
    assert ended <= {"2", "-15"}  # the first one's, and those whom torchrun then told to end
    assert done.stderr.count("error: delta 0.5") == 1
    assert "Connection closed" not in done.stderr
    assert not (tmp_path / "work").exists()
