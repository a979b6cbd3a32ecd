"""Where the time of a step goes, by kind of operator, for columns of `dpmlm bench`.

    python benchmarks/operators.py --model small --window 128

Milliseconds a step from torch's profiler (time in an operator itself, as the calling thread sees
it), the median of several steps. Profiling slows small operators most.
"""

import argparse
import statistics

import torch
from torch.profiler import ProfilerActivity, profile

from dpmlm.bench import BenchRequest
from dpmlm.bench.measurement import workloads
from dpmlm.bench.models import Workload
from dpmlm.bench.steps import STEPS

COLUMNS = ("plain", "own", "private")
KINDS = {
    "products": ("mm", "addmm", "addmm_"),
    "products by unit": ("bmm", "baddbmm_"),
    "attention": ("_scaled_dot_product_flash_attention",),
    "softmax and loss": ("_log_softmax", "_log_softmax_backward_data", "nll_loss", "exp_"),
    "sums and norms": ("sum", "linalg_vector_norm", "abs", "square"),
    "clearing and copying": ("fill_", "zero_", "copy_", "cat", "index", "gather", "scatter_add_"),
    "additions": ("add", "add_", "mul", "mul_"),
}
"""Prefix-free names of torch's operators; `_for_cpu` and the like count with what they begin."""
REST = "all else"


def kind_of(operator: str) -> str:
    """Which of `KINDS` an operator of the profile belongs to."""
    name = operator.removeprefix("aten::")
    for kind, names in KINDS.items():
        if name in names or any(len(n) > 8 and name.startswith(n) for n in names):
            return kind
    return REST


def milliseconds(work: Workload, column: str, steps: int) -> dict[str, float]:
    """By kind, the median over `steps` steps after two that are not counted."""
    step, batch = STEPS[column].step(work), work.batch()
    seen: list[dict[str, float]] = []
    for turn in range(2 + steps):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            step.run(batch)
        step.clear()
        spent = dict.fromkeys([*KINDS, REST], 0.0)
        for event in profiler.key_averages():
            spent[kind_of(event.key)] += event.self_cpu_time_total / 1000
        if turn >= 2:
            seen.append(spent)
    return {kind: statistics.median(one[kind] for one in seen) for kind in seen[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    (work,) = workloads(BenchRequest(models=(given.model,), windows=(given.window,)))
    columns = {name: milliseconds(work, name, given.steps) for name in COLUMNS}
    print(f"| ms a step | {' | '.join(COLUMNS)} |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    for kind in [*KINDS, REST]:
        print(f"| {kind} | {' | '.join(f'{columns[name][kind]:.0f}' for name in COLUMNS)} |")
    totals = (f"{sum(columns[name].values()):.0f}" for name in COLUMNS)
    print(f"| in all | {' | '.join(totals)} |")


if __name__ == "__main__":
    main()
