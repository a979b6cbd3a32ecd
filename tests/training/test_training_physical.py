"""Physical batches: memory that runs out, and what must not depend on it."""

import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from release_audit import Observer, Rows, half_drawn
from small_training import (
    Charges,
    Every,
    Numbered,
    a_model,
    a_plan,
    a_recipe,
    documents,
    weights,
    without_noise,
)
from variants import rest_in_full

from dpmlm.clipping import clip_and_sum
from dpmlm.errors import UserError
from dpmlm.training import loop, optimizer, physical
from dpmlm.training.memory import ran_out

pytestmark = pytest.mark.usefixtures("known_exact")


@pytest.fixture(autouse=True)
def no_collection(monkeypatch):
    """Of garbage: in a process that holds all tests it takes most of each one's time."""
    monkeypatch.setattr(physical.gc, "collect", lambda: 0)


ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    "python": MemoryError(),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 4000000000000 bytes. Error code 12"
    ),
    "c++": RuntimeError("std::bad_alloc"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
}


class Tight:
    """`clip_and_sum` on a machine that holds `rows` rows; half of a batch's gradients are there
    already when it runs out."""

    def __init__(self, monkeypatch, rows, error=ERRORS["cpu"]):
        self.rows, self.error, self.sizes = rows, error, []
        monkeypatch.setattr(loop, "clip_and_sum", self)

    def __call__(self, model, batch, bound, **more):
        self.sizes.append(len(batch))
        result = clip_and_sum(model, batch, bound, **more)
        if len(batch) > self.rows:
            raise self.error
        return result


@pytest.mark.parametrize("name", ERRORS)
def test_what_allocators_say_is_known(name):
    assert ran_out(ERRORS[name])
    for other in (RuntimeError("shapes do not match"), ValueError("out of memory"), KeyError("x")):
        assert not ran_out(other)


def test_the_real_allocator_says_what_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 48)
    assert ran_out(caught.value)


def trained(fit, monkeypatch, rows, folder, **changes):
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    tight = Tight(monkeypatch, rows)
    model, charges = a_model(), Charges()
    progress = fit(
        model, Numbered(documents()), without_noise(max_grad_norm=0.5), a_recipe(**changes),
        charges=charges, folder=folder,
    )  # fmt: skip
    return weights(model), progress.events, charges.seen, tight.sizes


@pytest.mark.filterwarnings("ignore:memory ran out")
@pytest.mark.parametrize("precision", rest_in_full(["float32", "bfloat16"], ["float32"]))
def test_half_the_rows_train_the_same_weights_under_the_same_charges(fit, monkeypatch, precision):
    """Six units a step, eight rows at first; gradients of an attempt that failed count for none."""
    more = {"precision": precision, "physical_batch_size": 8}
    whole = trained(fit, monkeypatch, 8, "whole", **more)
    tight = trained(fit, monkeypatch, 2, "tight", **more)
    tolerance = 1e-5 if precision == "float32" else 1e-2
    for one, other in zip(whole[0], tight[0]):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    assert whole[2] == tight[2]
    assert [event["private"]["units"] for event in tight[1]] == [6] * 6
    first = [6, 4, 2] if precision == "float32" else [8, 4, 2]
    assert tight[3][:3] == first
    assert max(tight[3][3:]) == 2  # the next steps begin with the rows that fit


def test_rows_are_halved_until_one_unit_is_left_and_each_time_it_is_said(fit, monkeypatch):
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    tight, charges = Tight(monkeypatch, 0), Charges()
    recipe = a_recipe(physical_batch_size=8)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(UserError) as caught:
            fit(a_model(), Numbered(documents()), a_plan(), recipe, charges=charges)
    assert tight.sizes == [6, 4, 2, 1]
    said = [str(one.message) for one in told if "memory ran out" in str(one.message)]
    assert [line.split(":")[1].split(";")[0] for line in said] == [
        " 4 rows at once from here on instead of 8",
        " 2 rows at once from here on instead of 4",
        " 1 rows at once from here on instead of 2",
    ]
    assert caught.value.given == "1 rows of 16 tokens at once"
    assert charges.seen == [("charge", 1, 0)]  # one draw, whatever the rows


@pytest.mark.filterwarnings("ignore:memory ran out")
def test_rows_of_one_unit_stay_together(fit, monkeypatch):
    class Several(Numbered):
        def views(self, index, step, count):
            return super().views(index, step, count) * count

    monkeypatch.setattr(loop, "PoissonSampler", Every)
    tight = Tight(monkeypatch, 3)
    recipe = a_recipe(physical_batch_size=12, windows_per_draw=3)
    fit(a_model(), Several(documents()), a_plan(steps=1), recipe)
    assert tight.sizes == [12, 6, 3, 3, 3, 3, 3, 3]


def test_another_error_is_nobodys_memory(fit, monkeypatch):
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    Tight(monkeypatch, 0, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        fit(a_model(), Numbered(documents()), a_plan())


@pytest.mark.filterwarnings("ignore:memory ran out")
def test_a_unit_moves_the_noisy_sum_by_the_same_where_memory_runs_out(monkeypatch):
    """The guarantee's own observer: sample and noise of one key, with and without the shortage.

    A sum that kept the gradients of the attempt that failed would be twice as long."""
    world, moved = half_drawn(), []
    for rows in (64, 0.5):
        with monkeypatch.context() as patch:
            patch.setattr(loop.secrets, "token_bytes", lambda count: b"k" * count)
            observer = Observer(patch)
            failed = []

            def shortly(model, batch, bound, rows=rows, failed=failed, **more):
                result = clip_and_sum(model, batch, bound, **more)
                if rows < 1 and len(failed) < 3:
                    failed.append(len(batch))
                    raise MemoryError
                return result

            patch.setattr(loop, "clip_and_sum", shortly)
            moved.append(observer.releases(Rows([world.unit]), world.plan))
    assert failed
    np.testing.assert_allclose(moved[0], moved[1], atol=0.02 * world.std)
    assert math.sqrt((moved[0] ** 2).mean()) > 0.5 * world.std


def test_noise_is_drawn_once_a_step_where_memory_runs_out(fit, monkeypatch):
    drawn, noise = [], optimizer.gaussian_noise

    def noted(*arguments, step, label, **names):
        drawn.append((step, label))
        return noise(*arguments, step=step, label=label, **names)

    monkeypatch.setattr(optimizer, "gaussian_noise", noted)
    monkeypatch.setattr(loop, "PoissonSampler", Every)
    Tight(monkeypatch, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(a_model(), Numbered(documents()), a_plan(steps=2), a_recipe(physical_batch_size=8))
    assert len(drawn) == len(set(drawn)) == 2 * len(list(a_model().parameters()))


SMALL_MACHINE = """
import resource, sys, warnings
import torch
torch.set_num_threads(1)
from small_training import Charges, Every, Numbered, a_model, a_recipe, documents, without_noise
from release_audit import Unrecorded
from dpmlm.training import loop, train

warnings.showwarning = lambda message, *rest: print(message, flush=True)
loop.PoissonSampler = Every
model = a_model(hidden_size=512, intermediate_size=2048)
recipe = a_recipe(physical_batch_size=int(sys.argv[1]))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
train(
    model, Numbered(documents() * 60), without_noise(steps=2), recipe, charges=Charges(),
    checkpoints=Unrecorded(),
)
print("trained")
"""


@pytest.mark.full
def test_a_machine_that_really_has_no_memory_trains_in_smaller_batches():
    """180 units in each of two steps, with 200 MiB for all that training takes; at once they take
    more than 300."""
    helpers = Path(__file__).parents[1] / "helpers"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = f"{helpers}:{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, "-c", SMALL_MACHINE, "360", "200"],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert said, done.stderr[-2000:]
    assert said[0].startswith("memory ran out: 180 rows at once from here on instead of 360")
    assert said[-1] == "trained"
