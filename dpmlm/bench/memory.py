"""Peak memory of one column: how far a step rises above the model that is loaded.

On the CPU a column runs in a fresh process. It runs once on a batch of one row, so that libraries
and thread pools are loaded; freed memory is given back; the kernel's high-water mark is reset; then
it runs on the whole batch, and the mark is read (`VmHWM`, the peak resident set). Where the mark
cannot be reset, a process's `ru_maxrss` stands in: it is never below the peak of building the
model, so there a growth may be told too small. On CUDA it is torch's count of allocated bytes.
"""

import contextlib
import ctypes
import gc
import multiprocessing
import re
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from dpmlm.bench.models import Workload
from dpmlm.bench.steps import STEPS, Step
from dpmlm.bench.timing import Failure, attempt

RUNS = 2
"""Steps on the whole batch; the highest counts."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one column."""

    growth_bytes: int
    """Peak of a step above the loaded model: activations, gradients, all that clipping needs."""
    model_bytes: int
    """The model's parameters, tied ones once."""
    method: str
    """What was read: "VmHWM", "ru_maxrss" or "torch.cuda"."""

    @property
    def peak_bytes(self) -> int:
        """Model and growth."""
        return self.growth_bytes + self.model_bytes


def measure_memory(work: Workload, column: str, threads: int | None) -> Memory | Failure:
    """Peak memory of a column on the workload, or the error that it ended in."""
    if work.device == "cuda":
        return attempt(_on_cuda, work, column)
    # The server imports once and runs no tensor operation; every fork of it starts alike.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return attempt(pool.submit(_in_child, work, column, threads).result)


def _in_child(work: Workload, column: str, threads: int | None) -> Memory | Failure:
    if threads is not None:
        torch.set_num_threads(threads)
    return attempt(_on_cpu, work, column)


def _on_cpu(work: Workload, column: str) -> Memory:
    step = STEPS[column].step(work)
    batch = work.batch()
    step.run(work.batch(1))
    step.clear()
    gc.collect()
    _give_back()
    method = "VmHWM" if _reset_peak() else "ru_maxrss"
    before = _status("VmRSS") if method == "VmHWM" else _maxrss()
    for _ in range(RUNS):
        step.run(batch)
        step.clear()
    after = _status("VmHWM") if method == "VmHWM" else _maxrss()
    return Memory(max(0, after - before), _model_bytes(step), method)


def _on_cuda(work: Workload, column: str) -> Memory:
    step = STEPS[column].step(work)
    batch = work.batch()
    step.run(work.batch(1))
    step.clear()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in range(RUNS):
        step.run(batch)
        step.clear()
    torch.cuda.synchronize()
    growth = torch.cuda.max_memory_allocated() - before
    return Memory(growth, _model_bytes(step), "torch.cuda")


def _model_bytes(step: Step) -> int:
    return sum(p.numel() * p.element_size() for p in step.model.parameters())


def _give_back() -> None:
    """Ask the C library to return freed pages, where it can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> bool:
    """Set the process's high-water mark to what it holds now; False where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmHWM") > 0
    except OSError:
        return False


def _status(field: str) -> int:
    """Bytes of a line of /proc/self/status; 0 where there is none."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _maxrss() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
