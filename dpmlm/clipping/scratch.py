"""`Scratch`: memory that the steps of one model use again.

The gradients formed for single units are the largest thing that a step makes. Memory of that size
is new from the operating system every time, and on a CPU its pages cost more than the products
that are written to them. Other devices have an allocator that keeps memory, so nothing is kept for
them here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn


class Scratch:
    """One block of float32 numbers, handed out in order and all taken back at `begin`.

    It grows to what a step asked for, at the beginning of the next one.
    """

    def __init__(self) -> None:
        self._block = torch.empty(0)
        self._used = self._asked = 0

    def begin(self) -> None:
        """What was handed out may be handed out again."""
        if self._asked > self._block.numel():
            self._block = torch.empty(0)  # the old one is gone before the new one is made
            self._block = torch.empty(self._asked)
        self._used = self._asked = 0

    def empty(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """float32 of `shape`, not initialised; of the block where it has room left."""
        if device.type != "cpu":
            return torch.empty(shape, device=device)
        size = torch.Size(shape).numel()
        self._asked += size
        if self._used + size > self._block.numel():
            return torch.empty(shape)
        self._used += size
        return self._block[self._used - size : self._used].view(shape)


_OF_MODEL: WeakKeyDictionary[nn.Module, Scratch] = WeakKeyDictionary()


def scratch_of(model: nn.Module) -> Scratch:
    """The memory that `model` keeps between steps, taken back."""
    scratch = _OF_MODEL.setdefault(model, Scratch())
    scratch.begin()
    return scratch


@contextmanager
def own_scratch(model: nn.Module) -> Iterator[None]:
    """Inside, `model` begins with nothing kept; what it keeps until the end is freed then."""
    _OF_MODEL.pop(model, None)
    try:
        yield
    finally:
        _OF_MODEL.pop(model, None)
