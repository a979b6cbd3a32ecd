"""Matrix products of each column of `dpmlm bench`: what a step would take if these were all.

    python benchmarks/arithmetic.py --models mini,small --windows 128

Counted by torch's flop counter on one step, a multiplication and an addition each; no clock.
"""

import argparse
import json
import math
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dpmlm.bench import BenchRequest
from dpmlm.bench.measurement import workloads
from dpmlm.bench.models import Workload
from dpmlm.bench.steps import STEPS

COLUMNS = ("plain", "own", "private")


def product(added: Any, left: Any, right: Any, **_: Any) -> int:
    """Of [..., m, k] by [..., k, n], from the shapes."""
    return 2 * math.prod(left) * right[-1]


def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Two products of [B, heads, T, T] by the width of a head."""
    return 4 * math.prod(query) * key[-2]


def attention_backward(gradient: Any, query: Any, key: Any, *_: Any, **__: Any) -> int:
    """Five: the scores once more, and two for each of the forward ones."""
    return 10 * math.prod(query) * key[-2]


ON_CPU = {
    torch.ops.aten.addmm_: product,
    torch.ops.aten.baddbmm_: product,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}
"""What the counter passes over by itself."""


def operations(work: Workload, column: str) -> int:
    """Floating-point operations in matrix products and attention of one step."""
    step = STEPS[column].step(work)
    with FlopCounterMode(display=False, custom_mapping=ON_CPU) as counter:
        step.run(work.batch())
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="tiny,mini,small,base")
    parser.add_argument("--windows", default="128,512")
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    given = parser.parse_args()
    windows = tuple(map(int, given.windows.split(",")))
    request = BenchRequest(models=tuple(given.models.split(",")), windows=windows)
    rows: list[dict[str, Any]] = []
    print("| model, tokens, rows | plain | own | private |")
    print("| --- | --- | --- | --- |")
    for work in workloads(request):
        counts = {column: operations(work, column) for column in COLUMNS}
        rows.append({"model": work.name, "window": work.window, "batch": work.rows, **counts})
        plain = counts["plain"]
        shares = " | ".join(f"{counts[name] / plain:.2f}" for name in COLUMNS[1:])
        print(f"| {work.name}, {work.window}, {work.rows} | {plain / 1e9:.1f} G | {shares} |")
    if given.out:
        facts = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {name: version(name) for name in ("torch", "transformers", "opacus")},
            "columns": COLUMNS,
            "rows": rows,
        }
        given.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
