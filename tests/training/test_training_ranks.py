"""Several ranks: same plan, sums, noise and weights; one that fails ends all."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmlm.artifacts import create_keys
from dpmlm.training.ranks import Ranks

pytestmark = pytest.mark.xdist_group("ranks")

DRIVER = Path(__file__).with_name("rank_driver.py")
ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """On the CPU: ranks that share one GPU are refused by NCCL."""
    of_cpu = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | of_cpu | {"PYTHONPATH": path}


@pytest.fixture(scope="module")
def start():
    """Starts the ranks of a job, as torchrun does but without its seconds for each; returns their
    exit statuses."""
    with subprocess.Popen(
        [sys.executable, str(DRIVER)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:

        def started(**job) -> list[int]:
            driver.stdin.write(json.dumps(job, default=str) + "\n")
            driver.stdin.flush()
            return json.loads(driver.stdout.readline())

        yield started
        driver.stdin.close()


def prepared(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    if not (folder / "trainer.key").exists():
        create_keys(folder)
    for pattern in ("sums-*", "drawn-*", "printed-*", "charges"):
        for left in folder.glob(pattern):
            left.unlink()
    return folder


def trained(
    start, folder: Path, ranks: int, units: int, **job
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(clipped sums of the first rank [steps, parameters], weights of every rank)."""
    statuses = start(folder=prepared(folder), ranks=ranks, units=units, **job)
    assert statuses == [0] * ranks, printed(folder, 0)
    sums = torch.load(next(folder.glob("sums-*")), weights_only=True)
    weights = [torch.load(folder / f"weights-{r}.pt", weights_only=True) for r in range(ranks)]
    return sums, weights


def printed(folder: Path, rank: int) -> str:
    return (folder / f"printed-{rank}").read_text()


def drawn(folder: Path, rank: int) -> list[str]:
    noted = folder / f"drawn-{rank}"
    return noted.read_text().split() if noted.exists() else []


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    return trained(start, tmp_path_factory.mktemp("ranks") / "alone", 1, 40)


@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.full), 3])
def test_any_number_of_ranks_gives_the_sum_and_the_weights_of_one(start, alone, tmp_path, ranks):
    sums, weights = trained(start, tmp_path / "run", ranks, 40)
    size = float(alone[0][0].norm())
    assert size > 0
    assert float((sums[0] - alone[0][0]).norm()) <= 1e-6 * size
    for of_rank in weights:
        assert torch.equal(of_rank, weights[0])
        torch.testing.assert_close(of_rank, alone[1][0], rtol=1e-4, atol=1e-5)
    charges = (tmp_path / "run" / "charges").read_text().split()
    assert charges == [str(step) for step in range(6)]


def same_sums(one: torch.Tensor, other: torch.Tensor) -> None:
    """Of every step; the weights of later ones differ by rounding already."""
    size = float(one.norm(dim=1).max())
    assert size > 0
    assert len(one) == len(other) == 6
    assert float((one - other).norm(dim=1).max()) <= 1e-5 * size
    assert float((one[0] - other[0]).norm()) <= 1e-6 * size


@pytest.mark.full
@pytest.mark.parametrize("units", [1, 3])
def test_a_rank_without_a_share_takes_the_noisy_step(start, tmp_path, units):
    # One unit, or three in two batches of two rows: some of three ranks have nothing.
    one, alone = trained(start, tmp_path / "one", 1, units)
    sums, weights = trained(start, tmp_path / "run", 3, units)
    same_sums(one, sums)
    for of_rank in weights:
        assert torch.equal(of_rank, weights[0])
        torch.testing.assert_close(of_rank, alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize(
    "recipe",
    [
        {"windows_per_draw": 3, "activation_checkpointing": True},
        {"precision": "bfloat16"},
        {"windows_per_draw": 3},
        {"activation_checkpointing": True},
    ],
    ids="-".join,
)
def test_ranks_agree_with_one_whatever_the_recipe(start, tmp_path, recipe):
    one, _ = trained(start, tmp_path / "one", 1, 40, recipe=recipe)
    sums, weights = trained(start, tmp_path / "run", 2, 40, recipe=recipe)
    size = float(one[0].norm())
    assert float((sums[0] - one[0]).norm()) <= 1e-6 * size
    assert torch.equal(weights[0], weights[1])


@pytest.mark.full
def test_gradient_canaries_are_added_once_whatever_the_ranks(start, tmp_path):
    _, one = trained(start, tmp_path / "one", 1, 6, gradients=40)
    _, two = trained(start, tmp_path / "two", 2, 6, gradients=40)
    assert torch.equal(two[0], two[1])
    torch.testing.assert_close(two[0], one[0], rtol=1e-4, atol=1e-5)
    alone = np.load(tmp_path / "one/transcript-0.npy")
    assert alone.shape == (6, 40)
    for rank in range(2):
        of_rank = np.load(tmp_path / f"two/transcript-{rank}.npy")
        np.testing.assert_allclose(of_rank, alone, atol=1e-3)


@pytest.mark.full
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3)])
def test_a_checkpoint_moves_between_numbers_of_ranks(start, alone, tmp_path, before, after):
    folder = prepared(tmp_path / "run")
    assert start(folder=folder, ranks=before, units=40, stop=3) == [143] * before
    sums, weights = trained(start, folder, after, 40)
    # Steps 3 to 5 alone; with the key fixed, the samples and the noise are those of the whole run.
    assert len(sums) == 3
    torch.testing.assert_close(weights[0], alone[1][0], rtol=1e-4, atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("at", [2, 5])
def test_a_look_that_a_stop_cuts_off_is_made_again_on_all_ranks(start, tmp_path, at):
    """Also where it is the one that ends the training: no step follows on any rank."""
    losses, alone, folder = [2.0, 3.0, 1.0, 4.0, 4.0], tmp_path / "alone", tmp_path / "run"
    trained(start, alone, 2, 40, losses=losses, patience=2)
    cut = [*losses[: at - 1], "stop"]
    told = {"folder": prepared(folder), "ranks": 2, "units": 40, "patience": 2}
    assert start(**told, losses=cut) == [143, 143], printed(folder, 0)
    assert start(**told, losses=losses[at - 1 :]) == [0, 0], printed(folder, 0)
    looks = [torch.load(file, weights_only=True) for file in sorted(folder.glob("look-*"))]
    wanted = [torch.load(file, weights_only=True) for file in sorted(alone.glob("look-*"))]
    assert torch.equal(looks[at - 1], looks[at]), "the same weights again"
    assert len(wanted) == 5
    for one, other in zip([*looks[:at], *looks[at + 1 :]], wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    released = torch.load(folder / "weights-0.pt", weights_only=True)
    assert torch.equal(released, [*looks[:at], *looks[at + 1 :]][2])
    assert drawn(folder, 0) == drawn(folder, 1) == [str(step) for step in range(5)]


@pytest.mark.full
@pytest.mark.parametrize("ranks", [2, 3])
def test_nobody_draws_a_step_whose_charge_failed(start, tmp_path, ranks):
    folder = prepared(tmp_path / "run")
    statuses = start(folder=folder, ranks=ranks, units=40, fail=2)
    assert [drawn(folder, rank) for rank in range(ranks)] == [["0", "1"]] * ranks
    assert statuses == [2] + [0] * (ranks - 1)
    assert printed(folder, 0).splitlines() == ["step 2: its charge is refused; nothing"]
    assert [printed(folder, rank) for rank in range(1, ranks)] == [""] * (ranks - 1)


@pytest.mark.full
def test_under_torchrun_a_failed_charge_ends_all_with_the_first_ones_status(tmp_path):
    folder = prepared(tmp_path / "run")
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    run += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", str(DRIVER)]
    job = json.dumps({"folder": str(folder), "units": 40, "fail": 2})
    done = subprocess.run(
        [*run, job], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert [drawn(folder, rank) for rank in range(2)] == [["0", "1"]] * 2
    statuses = set(re.findall(r"exitcode *: (-?\d+)", done.stderr))
    # torchrun ends a rank that has not left by itself yet
    assert "2" in statuses <= {"2", "-15"}
    assert done.stderr.count("its charge is refused") == 1
    assert "Connection closed" not in done.stderr


@pytest.mark.full
def test_ranks_with_different_checkpoints_stop_before_a_charge(start, tmp_path):
    folder = prepared(tmp_path / "run")
    assert start(folder=folder, ranks=2, units=40, stop=3) == [143, 143]
    prepared(folder)
    assert start(folder=folder, ranks=2, units=40, apart=True) == [2, 0]
    assert printed(folder, 0).startswith("ranks with checkpoint of step 3 and 0: ")
    assert not (folder / "charges").exists()
    assert drawn(folder, 0) == drawn(folder, 1) == []


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
