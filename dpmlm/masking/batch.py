"""`MaskedBatch`: what every part of training passes along."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskedBatch:
    """B rows of T tokens with K masked slots a row.

    K is one number for the batch (a plan constant of window and ratio); a slot that a row does
    not use has weight 0, and its position and label are ignored.
    """

    input_ids: Tensor
    """int64 [B, T], after corruption."""
    attention_mask: Tensor
    """bool or int64 [B, T]; 0 on padding."""
    masked_positions: Tensor
    """int64 [B, K], positions in 0..T-1."""
    masked_labels: Tensor
    """int64 [B, K], the original token ids."""
    masked_weights: Tensor
    """float32 [B, K], 0 where a slot is unused."""
    token_type_ids: Tensor | None = None
    """int64 [B, T]; None leaves them to the model."""
    unit_index: Tensor | None = None
    """int64 [B] in 0..U-1; rows with one value are one unit. None: each row is a unit."""

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def _map(self, change) -> "MaskedBatch":  # type: ignore[no-untyped-def]
        tensors = {
            field.name: change(value)
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return replace(self, **tensors)

    def to(self, device: torch.device | str) -> "MaskedBatch":
        """The same batch with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device))

    def rows(self, index: slice | Tensor) -> "MaskedBatch":
        """The rows that `index` picks, in its order; `unit_index` keeps its numbering."""
        return self._map(lambda tensor: tensor[index])
