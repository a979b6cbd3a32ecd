"""`Ranks`: the processes that train one model together, under torchrun or alone.

All ranks draw the same sample and the same noise from one secret stream, each works on its share
of the micro-batches, and the clipped sums are added up in float32 before the noise. So the plan,
the noise and, up to float rounding, the weights are those of a single process, and a checkpoint
knows nothing of how many there were.

A rank that fails leaves the group, and whoever waits for it, at whatever point, ends too: an error
on the first rank, which reports it, and a quiet exit on the others. So nobody takes the silence of
a failed rank for leave to go on.

**Warning.** The key of the stream and sums without noise pass between the ranks in clear: keep
them on one machine or on a network that is yours.
"""

import atexit
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from dpmlm.errors import UserError

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
            atexit.register(leave)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this one charges, writes and reports."""
        return self.rank == 0

    def share(self, items: Sequence[Value]) -> Sequence[Value]:
        """This rank's part of a list that all ranks hold; may be empty."""
        return items[self.rank :: self.size]

    @contextmanager
    def together(self) -> Iterator[None]:
        """A failure within, on any rank, ends all of them."""
        try:
            yield
        except BaseException:
            leave()
            raise

    def same(self, value: Value | None, kind: str = "call") -> Value:
        """The first rank's `value`, on all; nobody passes before the first has come here.

        Raises UserError if the first has come to another place, which waits for another `kind`.
        """
        if self.size == 1:
            assert value is not None
            return value
        held = [(kind, value)]
        with self._connected():
            dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        sent, found = held[0]
        if sent != kind:
            raise _apart(f"a {sent} from the first where another waits for its {kind}")
        return cast(Value, found)

    def agree_on(self, what: str, value: object) -> None:
        """Nobody passes before all have come here, and none unless all hold the same `value`.

        Raises UserError with `what` and the values that there are.
        """
        values = [str(held) for held in self.all(value)]
        if len(set(values)) > 1:
            if not self.first:
                raise SystemExit(0)  # all know, the first one says it
            raise _apart(f"{what} {' and '.join(dict.fromkeys(values))}")

    def all(self, value: Value) -> list[Value]:
        """Every rank's value, in their order, on all."""
        if self.size == 1:
            return [value]
        held: list[Any] = [None] * self.size
        with self._connected():
            dist.all_gather_object(held, value)
        return held

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """One rank after the other passes through, the first one first."""
        with self.together():
            for turn in range(self.size):
                if turn == self.rank:
                    yield
                self.all(turn)

    def agree(self, model: nn.Module) -> None:
        """Give all ranks the first one's weights."""
        if self.size > 1:
            with self._connected():
                for tensor in [*model.parameters(), *model.buffers()]:
                    dist.broadcast(tensor.detach(), src=0)

    def add_up(self, params: Iterable[nn.Parameter]) -> None:
        """p.grad becomes the float32 sum over ranks; one without a share of it counts as zero."""
        if self.size == 1:
            return
        with self._connected():
            for param in params:
                if param.grad is None:
                    param.grad = torch.zeros_like(param, requires_grad=False)
                dist.all_reduce(param.grad)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Ends this rank if another has left."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a connection that was closed has no class of its own
            if not self.first:
                raise SystemExit(0) from error  # the status is the first one's
            raise UserError(
                f"training on {self.size} ranks",
                "one of the others has ended",
                "see what it printed; repeat the command to resume",
            ) from error


def leave() -> None:
    """Close this process's connections to the other ranks; those who wait for it notice."""
    if dist.is_available() and dist.is_initialized():
        assert dist.group.WORLD is not None
        dist.group.WORLD.abort()  # NCCL waits for the others when it is closed, unless aborted
        dist.destroy_process_group()


def _apart(given: str) -> UserError:
    return UserError(
        f"ranks with {given}",
        "all ranks take the same steps of one training",
        "start all of them with the same command on the same workspace",
    )
