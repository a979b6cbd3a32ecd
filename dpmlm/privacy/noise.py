"""Noise for the clipped sum: its kinds, where each comes from, and the Gaussian one."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpmlm.errors import UserError
from dpmlm.privacy.stream import SecretStream

if TYPE_CHECKING:
    from torch import Tensor

NOISE_SOURCES = {
    "gaussian": (
        "AES-256-CTR keystream keyed by the operating system, normals by the inverse distribution "
        "function in float64"
    ),
    "discrete_gaussian": (
        "AES-256-CTR keystream keyed by the operating system, discrete Gaussian by rejection in "
        "whole numbers, on the grid that the clipped sum is rounded to"
    ),
}
"""Kinds of noise, and what a statement says of where each comes from."""
NOISES = tuple(NOISE_SOURCES)
REPRODUCIBLE_NOISE = "reproducible from a seed in the plan, so whoever has the plan can remove it"
"""What it says instead where the numbers can be drawn again."""


def noise_source_of(epsilon: float, noise: str, seed: int | None) -> str:
    """The words for where the noise of a plan comes from; "none" where there is none."""
    if math.isinf(epsilon):
        return "none"
    return NOISE_SOURCES.get(noise, "") if seed is None else REPRODUCIBLE_NOISE


def refuse_noise(noise: str, accountant: str, seed: int | None) -> None:
    """Raises UserError for an accountant that does not bound `noise`, and for a seed that is no
    whole number from 0 on."""
    if noise == "discrete_gaussian" and accountant != "rdp":
        raise UserError(
            f"noise {noise!r} with accountant {accountant!r}",
            "discrete noise is bounded by Renyi divergences of whole orders and nothing else here",
            'use accountant "rdp"',
        )
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise UserError(f"noise_seed {seed!r}", "it must be a whole number from 0 on", "mend it")


def gaussian_noise(
    shape: Sequence[int], std: float, stream: SecretStream, *, label: str, step: int
) -> "Tensor":
    """float32 CPU tensor of `shape`, independent normals of standard deviation `std`.

    `std` is noise_multiplier * max_grad_norm, added once to the sum of a logical batch. `label`
    names the parameter and `step` the step: a pair is drawn once in the life of `stream`
    (ValueError otherwise), which catches one noise tensor shared by two parameters. Values are
    computed in float64 and rounded once; that they, and their sum with the signal, lie on float32
    grids is a known, uncovered difference from real-valued noise (Mironov 2012). `grid.py` has a
    mechanism without it.
    """
    import torch

    if not 0 <= std < float("inf"):
        raise ValueError(f"a standard deviation is finite and at least 0, not {std}")
    size = 1
    for extent in shape:
        size *= int(extent)
    normals = stream.normals(size, label, step, std=std, threads=torch.get_num_threads())
    return torch.from_numpy(normals).reshape(tuple(shape))
