"""`Recipe`: how batches are made of drawn units and weights of batches, beside the plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from dpmlm.clipping import Scale
from dpmlm.errors import UserError
from dpmlm.masking import Example, MaskedBatch, MaskingSpec, TokenTable, make_batch
from dpmlm.training.average import refuse_decay
from dpmlm.training.schedules import Shape, refuse_shares
from dpmlm.training.units import View


@dataclass(frozen=True)
class Recipe:
    """What, beside the plan, decides the weights: the same for a run and its control."""

    table: TokenTable
    masking: MaskingSpec
    window: int
    """Tokens a row."""
    stride: int
    """Windows start at multiples of this many tokens."""
    mask_seed: bytes
    """Secret; windows and masks are functions of it, the example and the visit."""
    learning_rate: float
    warmup: float
    weight_decay: float
    scales: Mapping[str, Scale] | None = None
    """By parameter name: what gradients are multiplied by before they are clipped; from public
    text alone. None leaves them as they are."""
    schedule: Shape = "linear"
    decay: float = 0.2
    """Share of the steps at the end over which the rate falls; of the schedule wsd alone."""
    average: float | None = None
    """Decay of the average of weights that is released; None releases the last step's."""
    windows_per_draw: int = 1
    """Rows that a drawn unit contributes; its loss is their mean, and its gradient is clipped
    once."""
    physical_batch_size: int = 64
    """Rows at once: changes speed and memory, not the result beyond float rounding."""
    memory_limit: int | None = None
    """Bytes for a physical batch; where given, `train` finds the rows that fit."""
    activation_checkpointing: bool = False
    """Run layers again in the backward pass: less memory, more than twice the time."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass; norms, sums and noise are float32 always. With bfloat16
    every row is padded to the window: see `fixed_shape`."""
    checkpoint_minutes: float = 30.0
    max_hours: float | None = None
    """Wall time of a training, all its attempts together, after which it stops and can go on."""
    pad_to_window: bool = False
    """Every row as long as the window; `train` sets it where a model's results depend on padding,
    as a unit's gradient would else depend on the longest row beside it."""

    def __post_init__(self) -> None:
        if self.windows_per_draw < 1:
            raise UserError(
                f"windows_per_draw {self.windows_per_draw}",
                "a drawn unit contributes at least one row",
                "give 1 or more",
            )
        refuse_shares(self.schedule, self.warmup, self.decay)
        if self.average is not None:
            refuse_decay(self.average)
        self.table.refuse_unfit(self.masking)

    def micro_batches(self, drawn: Sequence[Sequence[View]]) -> list[list[Sequence[View]]]:
        """Cut a logical batch, a list of rows for every unit, into physical ones.

        Units of similar length come together, so that little is padded. None is cut in two: its
        rows are clipped as one. A unit of more rows than `physical_batch_size` stands alone.
        """

        def length(unit: Sequence[View]) -> int:
            return max(min(len(view.example.tokens), self.window) for view in unit)

        batches: list[list[Sequence[View]]] = []
        rows, room = 0, self._room
        for unit in sorted(drawn, key=length):
            if not batches or rows + len(unit) > room:
                batches.append([])
                rows = 0
            batches[-1].append(unit)
            rows += len(unit)
        return batches

    @property
    def _room(self) -> int:
        """Rows of units in one batch; of a shape that is fixed, one row is always empty."""
        spare = 1 if self.fixed_shape else 0
        return max(self.physical_batch_size - spare, self.windows_per_draw)

    @property
    def fixed_shape(self) -> bool:
        """Whether every batch has one shape, filled up with empty rows.

        Reduced types round a row otherwise in a batch of another shape, and as a unit more changes
        shapes, it would move the gradients of all others by more than a thousandth of
        max_grad_norm (tests/training/test_training_reduced.py). The empty row keeps the attention
        mask from being left out.
        """
        return self.precision == "bfloat16"

    def batch(self, units: Sequence[Sequence[View]], step_share: float = 0.0) -> MaskedBatch:
        """All rows of `units`, as they stand; behind them empty rows, each a unit of its own,
        where the shape is fixed.

        `step_share` is the share of the plan's steps that are taken: `masking` may have a schedule.
        """
        views = [view for unit in units for view in unit]
        index = [number for number, unit in enumerate(units) for _ in unit]
        if self.fixed_shape:
            empty = View(Example("", np.zeros(0, dtype=np.int64)), 0)
            missing = self._room + 1 - len(views)
            views += [empty] * missing
            index += range(len(units), len(units) + missing)
        batch = make_batch(
            [view.example for view in views],
            [view.visit for view in views],
            seed=self.mask_seed,
            table=self.table,
            spec=self.masking,
            window=self.window,
            stride=self.stride,
            pad_to_window=self.pad_to_window or self.fixed_shape,
            step_share=step_share,
        )
        if index == list(range(len(index))):
            return batch
        return replace(batch, unit_index=torch.tensor(index))


def refuse_too_little(recipe: Recipe, rows: int) -> None:
    """Raise UserError where not even the rows of one unit fit into `recipe.memory_limit`."""
    if rows < recipe.windows_per_draw:
        raise UserError(
            f"memory limit of {recipe.memory_limit} bytes",
            f"not even one unit of {recipe.windows_per_draw} rows of {recipe.window} tokens fits, "
            "and its rows are clipped together",
            "raise memory_gib, lower windows_per_draw or the window, or set "
            "activation_checkpointing",
        )
