"""How fast a model trains here, on synthetic rows."""

import time
from typing import Literal

import torch
from torch import nn

from dpmlm.clipping import clip_and_sum, own_scratch
from dpmlm.masking import MaskingSpec, TokenTable
from dpmlm.training.memory import synthetic_rows

Precision = Literal["float32", "bfloat16"]
TURNS = 2


def arithmetic(model: nn.Module, precision: Precision) -> torch.autocast:
    """The types of the forward and backward pass; the engine leaves them for norms and sums."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def timed_rows(
    model: nn.Module,
    table: TokenTable,
    masking: MaskingSpec,
    window: int,
    *,
    count: int,
    precision: Precision,
) -> float:
    """Seconds that `clip_and_sum` takes for a row of `window` tokens, `count` at once.

    The fastest of two after a warm-up; `p.grad` is left as it was, which is None.
    """
    batch = synthetic_rows(count, table, masking, window)
    batch = batch.to(next(model.parameters()).device)
    seconds = []
    with own_scratch(model):
        for _ in range(1 + TURNS):
            begun = time.perf_counter()
            with arithmetic(model, precision):
                float(clip_and_sum(model, batch, 1.0).norms.sum())
            seconds.append(time.perf_counter() - begun)
            model.zero_grad(set_to_none=True)
    return min(seconds[1:]) / count
