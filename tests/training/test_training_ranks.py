"""Several processes under torchrun: same plan, same sums, same noise, same weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dpmlm.artifacts import create_keys
from dpmlm.training.ranks import Ranks

DRIVER = Path(__file__).with_name("rank_driver.py")
ROOT = Path(__file__).parents[2]


def trained(folder: Path, ranks: int, units: int, stop: int = 0) -> tuple[torch.Tensor, list]:
    """(clipped sums of the first rank [steps, parameters], weights of every rank)."""
    folder.mkdir(exist_ok=True)
    if not (folder / "trainer.key").exists():
        create_keys(folder)
    for left in folder.glob("sums-*"):
        left.unlink()
    run = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    run += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"] if ranks > 1 else []
    call = [*run, str(DRIVER), str(folder), str(units), *([str(stop)] if stop else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    sums = torch.load(next(folder.glob("sums-*")), weights_only=True)
    weights = [torch.load(folder / f"weights-{r}.pt", weights_only=True) for r in range(ranks)]
    return sums, weights


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("ranks") / "alone", 1, 40)


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.full)])
def test_any_number_of_ranks_gives_the_sum_and_the_weights_of_one(alone, tmp_path, ranks):
    sums, weights = trained(tmp_path / "run", ranks, 40)
    size = float(alone[0][0].norm())
    assert size > 0
    assert float((sums[0] - alone[0][0]).norm()) <= 1e-6 * size
    for of_rank in weights:
        assert torch.equal(of_rank, weights[0])
        torch.testing.assert_close(of_rank, alone[1][0], rtol=1e-4, atol=1e-5)
    charges = (tmp_path / "run" / "charges").read_text().split()
    assert charges == [str(step) for step in range(6)]


@pytest.mark.full
def test_a_rank_without_a_share_takes_the_noisy_step(tmp_path):
    # One unit: of three ranks at least two have nothing at every step.
    sums, weights = trained(tmp_path / "run", 3, 1)
    assert len(sums) == 6
    assert all(torch.equal(of_rank, weights[0]) for of_rank in weights)


@pytest.mark.full
def test_a_checkpoint_moves_between_numbers_of_ranks(alone, tmp_path):
    folder = tmp_path / "run"
    trained(folder, 2, 40, stop=3)
    assert {(folder / f"status-{rank}").read_text() for rank in range(2)} == {"143"}
    sums, weights = trained(folder, 1, 40)
    # Steps 3 to 5 alone; with the key fixed, the samples and the noise are those of the whole run.
    assert len(sums) == 3
    torch.testing.assert_close(weights[0], alone[1][0], rtol=1e-4, atol=1e-5)


def test_shares_cover_everything_once():
    items = list(range(11))
    for size in (1, 2, 3, 12):
        shares = [Ranks(rank, size).share(items) for rank in range(size)]
        assert sorted(item for share in shares for item in share) == items


def test_a_single_process_needs_no_group():
    ranks = Ranks.current()
    assert (ranks.rank, ranks.size, ranks.first) == (0, 1, True)
    assert ranks.all(3) == [3]
    assert ranks.same("x") == "x"
    assert not torch.distributed.is_initialized()
