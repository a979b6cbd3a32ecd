"""Gaussian noise for the clipped sum."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpmlm.privacy.stream import SecretStream

if TYPE_CHECKING:
    from torch import Tensor


def gaussian_noise(
    shape: Sequence[int], std: float, stream: SecretStream, *, label: str, step: int
) -> "Tensor":
    """float32 CPU tensor of `shape`, independent normals of standard deviation `std`.

    `std` is noise_multiplier * max_grad_norm, added once to the sum of a logical batch. `label`
    names the parameter and `step` the step: a pair is drawn once in the life of `stream`
    (ValueError otherwise), which catches one noise tensor shared by two parameters. Values are
    computed in float64 and rounded once; that they lie on the float32 grid is a known, uncovered
    difference from real-valued noise (Mironov 2012).
    """
    import torch

    if not 0 <= std < float("inf"):
        raise ValueError(f"a standard deviation is finite and at least 0, not {std}")
    size = 1
    for extent in shape:
        size *= int(extent)
    return torch.from_numpy(stream.normals(size, label, step, std=std)).reshape(tuple(shape))
