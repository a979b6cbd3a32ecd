"""Which rows of a batch belong to which unit of privacy."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dpmlm.errors import UserError

MOST_UNITS = 2**20
"""Of one batch: a number far above its rows is a mistake that costs gigabytes."""


@dataclass(frozen=True)
class UnitLayout:
    """B rows seen as U units; a unit's loss and gradient are the means over its rows.

    Shapes here and in the layer rules: B rows, T positions a row, U units, R rows in the largest
    unit, d inputs and p outputs of a layer.
    """

    index_B: Tensor
    """int64 [B] in 0..U-1: the unit of each row."""
    count: int
    """U. A number below U that no row carries is a unit with loss 0 and gradient 0."""
    rows_UR: Tensor | None
    """int64 [U, R]: the rows of each unit, -1 where it has fewer than R. None: row i is unit i."""

    @classmethod
    def of(cls, rows: int, unit_index: Tensor | None, device: torch.device) -> "UnitLayout":
        """The layout of `rows` rows; `unit_index` int64 [B] or None for one unit a row."""
        if unit_index is None:
            return cls(torch.arange(rows, device=device), rows, None)
        index = unit_index.to(device)
        wrong = index.shape != (rows,)
        if wrong or (rows and not 0 <= int(index.min()) <= int(index.max()) < MOST_UNITS):
            raise UserError(
                "unit_index",
                f"it must hold one number of 0..U-1 for each of the {rows} rows, U at most "
                f"{MOST_UNITS}",
                "build the batch with dpmlm.masking or number the units from 0",
            )
        if torch.equal(index, torch.arange(rows, device=device)):
            return cls(index, rows, None)
        count = int(index.max()) + 1
        sizes = torch.bincount(index, minlength=count)
        order = torch.argsort(index, stable=True)
        rank = torch.arange(rows, device=device) - (sizes.cumsum(0) - sizes)[index[order]]
        table = torch.full((count, int(sizes.max())), -1, device=device)
        table[index[order], rank] = order
        return cls(index, count, table)

    def sizes(self) -> Tensor:
        """int64 [U]: rows of each unit."""
        return torch.bincount(self.index_B, minlength=self.count)

    def group(self, x: Tensor) -> Tensor:
        """[B, T, ...] to [U, R*T, ...]: a unit's rows side by side, zeros where it has fewer."""
        if self.rows_UR is None:
            return x
        missing = self.rows_UR < 0
        grouped = x[self.rows_UR.clamp_min(0)]
        if bool(missing.any()):
            grouped[missing] = 0
        return grouped.flatten(1, 2)

    def total(self, x: Tensor) -> Tensor:
        """[B, ...] to [U, ...]: the sum over each unit's rows."""
        if self.rows_UR is None:
            return x
        return x.new_zeros(self.count, *x.shape[1:]).index_add_(0, self.index_B, x)
