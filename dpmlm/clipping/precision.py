"""Full float32 for the arithmetic that the privacy claim rests on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.backends import mkldnn


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """No autocast, no TF32, no bf16 matrix products inside, whatever the run chose for its model.

    Rounding the sum before noise to bf16 lets one example move it by several times the clipping
    norm. The settings found are put back.
    """
    backends: list[Any] = [torch.backends.cuda.matmul, mkldnn.matmul]  # type: ignore[attr-defined]
    found = [backend.fp32_precision for backend in backends]
    reduced = [setting not in ("none", "ieee") for setting in found]
    try:
        for backend, change in zip(backends, reduced):
            if change:
                backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, change, setting in zip(backends, reduced, found):
            if change:
                backend.fp32_precision = setting
