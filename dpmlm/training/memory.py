"""How many rows fit: the memory of one physical batch, measured on synthetic rows.

Public: it depends on the model, the window and the limit alone. It changes speed and memory, never
which units are drawn, their norms or the claim.
"""

from dataclasses import replace
from typing import Any
from weakref import finalize

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dpmlm.clipping import clip_and_sum, own_scratch
from dpmlm.masking import Example, MaskedBatch, MaskingSpec, TokenTable, make_batch

MARGIN = 1.25
"""Allocators keep more than is alive: blocks are rounded up and lie apart."""
STEPS = 3
"""Of a measurement: the second makes what is kept between steps, the third begins with it and with
gradients to add to, as a physical batch in the middle of a large one does."""
LARGEST = 1024
"""Rows beyond which more make no step faster."""


_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "ALLOC_FAILED",
)
"""What allocators say that have no exception of their own: of the CPU, of C++, of cuBLAS."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there is no more memory; its text is not to be shown."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def in_bytes(gib: float | None) -> int | None:
    """A limit in GiB as `Recipe` takes it."""
    return None if gib is None else int(gib * 2**30)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors made inside that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if not size or place in self._known:
            return
        self._known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


def rows_that_fit(
    model: nn.Module,
    table: TokenTable,
    masking: MaskingSpec,
    window: int,
    limit: int,
    *,
    rows_a_unit: int = 1,
) -> int:
    """The largest number of rows of `window` tokens whose clipped sum takes at most `limit` bytes.

    Counted beside weights and optimizer state; whole units of `rows_a_unit`, at most about
    `LARGEST` rows, and 0 where not even one unit fits. Two small batches are run, as memory is
    linear in units from there on.
    """
    few, many = (2, 6) if rows_a_unit == 1 else (1, 2)

    def peak(units: int) -> int:
        batch = synthetic_rows(units * rows_a_unit, table, masking, window)
        index = torch.arange(units).repeat_interleave(rows_a_unit)
        return _peak(model, replace(batch, unit_index=index))

    least = peak(few)
    a_unit = max(1.0, (peak(many) - least) / (many - few))
    fixed = least - few * a_unit
    units = (limit / MARGIN - fixed) // a_unit
    return int(min(max(0, units), max(1, LARGEST // rows_a_unit))) * rows_a_unit


def _peak(model: nn.Module, batch: MaskedBatch) -> int:
    """Bytes alive at once during `clip_and_sum`, with gradients and all that is kept between its
    calls; gradients are put back."""
    device = next(model.parameters()).device
    batch = batch.to(device)
    found = {p: p.grad for p in model.parameters()}
    for param in found:
        param.grad = None
    try:
        with own_scratch(model), LiveBytes() as live:
            for _ in range(STEPS):
                clip_and_sum(model, batch, 1.0)
    finally:
        for param, gradient in found.items():
            param.grad = gradient
    return live.peak


def synthetic_rows(count: int, table: TokenTable, masking: MaskingSpec, window: int) -> MaskedBatch:
    """Synthetic rows as long as the window."""
    ordinary = np.flatnonzero(~table.special)
    tokens = np.random.default_rng(0).choice(ordinary, size=(count, window))
    examples = [Example(f"row {index}", row) for index, row in enumerate(tokens)]
    visits = [0] * count
    return make_batch(examples, visits, seed=b"synthetic", table=table, spec=masking, window=window)
