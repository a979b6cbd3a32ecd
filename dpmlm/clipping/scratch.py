"""`Scratch`: memory that the steps of one model use again.

Where gradients are formed for single units they take more memory than anything else in a step. On
a CPU memory of that size is new from the operating system every time, and each of its pages is
cleared before it is written to. Other devices have an allocator that keeps memory, so nothing is
kept for them here.
"""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn


class Scratch:
    """One block of float32 numbers, handed out in order and all taken back at `begin`.

    It grows to what a step asked for, at the beginning of the next one.
    """

    def __init__(self) -> None:
        self._block = _floats(0)
        self._used = self._asked = 0

    def begin(self) -> None:
        """What was handed out may be handed out again."""
        if self._asked > self._block.numel():
            self._block = _floats(0)  # the old one is gone before the new one is made
            self._block = _floats(self._asked)
        self._used = self._asked = 0

    def empty(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """float32 of `shape`, not initialised; of the block where it has room left."""
        if device.type != "cpu":
            return torch.empty(shape, device=device, dtype=torch.float32)
        size = torch.Size(shape).numel()
        self._asked += size
        if self._used + size > self._block.numel():
            return _floats(size).view(shape)
        self._used += size
        return self._block[self._used - size : self._used].view(shape)


def _floats(count: int) -> Tensor:
    return torch.empty(count, device="cpu", dtype=torch.float32)


_OF_MODEL: WeakKeyDictionary[nn.Module, Scratch] = WeakKeyDictionary()


def scratch_of(model: nn.Module) -> Scratch:
    """The memory that `model` keeps between steps, taken back."""
    scratch = _OF_MODEL.setdefault(model, Scratch())
    scratch.begin()
    return scratch


def forget_scratch(model: nn.Module) -> None:
    """Frees what `model` keeps between steps; the next step begins anew."""
    _OF_MODEL.pop(model, None)
