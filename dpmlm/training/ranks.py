"""`Ranks`: the processes that train one model together, under torchrun or alone.

All ranks draw the same sample and the same noise from one secret stream, each works on its share
of the micro-batches, and the clipped sums are added up in float32 before the noise. So the plan,
the noise and, up to float rounding, the weights are those of a single process, and a checkpoint
knows nothing of how many there were.

**Warning.** The key of the stream and sums without noise pass between the ranks in clear: keep
them on one machine or on a network that is yours.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import nn

Value = TypeVar("Value")
PATIENCE = timedelta(days=7)
"""How long a rank waits for the others: the first one alone does all that is not training."""


class Ranks:
    """Rank `rank` of `size`; the first one charges, writes and reports."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def current(cls) -> Self:
        """Those that torchrun started, joined on first use; one where it did not."""
        if not dist.is_available() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(0, 1)
        if not dist.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            # gloo carries the few Python objects, NCCL the sums
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, timeout=PATIENCE)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this one charges, writes and reports."""
        return self.rank == 0

    def share(self, items: Sequence[Value]) -> Sequence[Value]:
        """This rank's part of a list that all ranks hold; may be empty."""
        return items[self.rank :: self.size]

    def same(self, value: Value | None) -> Value:
        """The first rank's `value`, on all; nobody passes before the first has come here."""
        if self.size == 1:
            assert value is not None
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        found = held[0]
        assert found is not None
        return found

    def all(self, value: Value) -> list[Value]:
        """Every rank's value, in their order, on all."""
        if self.size == 1:
            return [value]
        held: list[Any] = [None] * self.size
        dist.all_gather_object(held, value)
        return held

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """One rank after the other passes through, the first one first."""
        for turn in range(self.size):
            if turn == self.rank:
                yield
            self.all(turn)

    def agree(self, model: nn.Module) -> None:
        """Give all ranks the first one's weights."""
        if self.size > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor.detach(), src=0)

    def add_up(self, params: Iterable[nn.Parameter]) -> None:
        """p.grad becomes the float32 sum over ranks; one without a share of it counts as zero."""
        if self.size == 1:
            return
        for param in params:
            if param.grad is None:
                param.grad = torch.zeros_like(param, requires_grad=False)
            dist.all_reduce(param.grad)
