"""`ClipResult`: what one call of `clip_and_sum` tells about its units."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ClipResult:
    """Per-unit figures of one batch. Private: computed from single units, without noise."""

    norms: Tensor
    """float32 [U]: gradient norm of each unit before clipping; not finite for a unit left out."""
    losses: Tensor
    """float32 [U]: loss of each unit, in nats a masked token."""
