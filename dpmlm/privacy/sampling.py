"""`PoissonSampler`: which units take part in a step, and, where they take turns, which may."""

import hmac
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dpmlm.privacy.stream import SecretStream

LABEL = "sample"
POISSON = "Poisson"


def sampler_of(max_batch_size: int | None, bands: int) -> str:
    """What a plan calls the way its units are drawn."""
    if bands > 1:
        return "cyclic Poisson"
    return POISSON if max_batch_size is None else "truncated Poisson"


def groups_of(units: Sequence[str], bands: int, key: bytes) -> NDArray[np.int64]:
    """int64 [units]: the group of each, 0 .. bands - 1, by keyed hash of its name alone.

    So a unit more changes nobody else's group, as adding or removing one asks; groups of equal
    size would. Which group it is does not matter to the claim, that it stays the same does: `key`
    is the run's, over all attempts.
    """
    hashes = (hmac.digest(key, b"dpmlm/turn\0" + name.encode(), "sha256") for name in units)
    return np.array([int.from_bytes(found[:8], "big") % bands for found in hashes], dtype=np.int64)


class PoissonSampler:
    """Each unit is in each step's sample independently with probability `sample_rate`.

    Formal guarantee: this is the sampling that the accountants of this package bound. The rate is
    the plan's, a public constant (of the step, on a schedule): it does not change with the number
    of units present. A sample may be empty and the step is taken all the same. With `largest`, of
    a sample with more units so many are kept, each subset as likely (truncated Poisson). With
    `groups`, step t draws from group t modulo their number alone (cyclic Poisson).
    """

    def __init__(
        self,
        units: Sequence[str] | int,
        sample_rate: float | Callable[[int], float],
        *,
        stream: SecretStream,
        label: str = LABEL,
        largest: int | None = None,
        groups: tuple[int, NDArray[np.int64]] | None = None,
    ) -> None:
        """`units`: their identifiers in a fixed order, or how many; `sample_rate`: of every step,
        or a function of the step; `groups`: how many, and that of each unit. ValueError for an
        identifier that stands twice, `largest` below 1, and, here or in `draw`, a rate outside
        (0, 1]."""
        if not callable(sample_rate):
            _check_rate(sample_rate)
        if largest is not None and largest < 1:
            raise ValueError(f"the largest sample holds at least one unit, not {largest}")
        if not isinstance(units, int) and len(set(units)) != len(units):
            raise ValueError("a unit that stands twice would be drawn at twice the rate")
        self.count = units if isinstance(units, int) else len(units)
        self._sample_rate, self._largest = sample_rate, largest
        self._stream, self._label = stream, label
        self._groups = groups

    def draw(self, step: int) -> list[int]:
        """Indices of the units in the sample of `step`, ascending; steps must go up.

        The probability is the rate rounded to a multiple of 2^-52.
        """
        rate = self._sample_rate(step) if callable(self._sample_rate) else self._sample_rate
        _check_rate(rate)
        coins = self._stream.uniforms(self.count, self._label, step)
        taken = coins < rate
        if self._groups is not None:
            count, group = self._groups
            taken &= group == step % count
        drawn = np.flatnonzero(taken)
        if self._largest is not None and len(drawn) > self._largest:
            keys = self._stream.uniforms(len(drawn), f"{self._label}/cut", step)
            drawn = np.sort(drawn[np.argsort(keys, kind="stable")[: self._largest]])
        return [int(index) for index in drawn]


def _check_rate(rate: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"a sampling rate lies in (0, 1], not {rate}")
