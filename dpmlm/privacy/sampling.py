"""`PoissonSampler`: which units take part in a step."""

from collections.abc import Callable, Sequence

import numpy as np

from dpmlm.privacy.stream import SecretStream

LABEL = "sample"


class PoissonSampler:
    """Each unit is in each step's sample independently with probability `sample_rate`.

    Formal guarantee: this is the sampling that the accountants of this package bound. The rate is
    the plan's, a public constant (of the step, on a schedule): it does not change with the number
    of units present. A sample may be empty and the step is taken all the same. With `largest`, of
    a sample with more units so many are kept, each subset as likely (truncated Poisson).
    """

    def __init__(
        self,
        units: Sequence[str] | int,
        sample_rate: float | Callable[[int], float],
        *,
        stream: SecretStream,
        label: str = LABEL,
        largest: int | None = None,
    ) -> None:
        """`units`: their identifiers in a fixed order, or how many; `sample_rate`: of every step,
        or a function of the step. ValueError for an identifier that stands twice, `largest` below
        1, and, here or in `draw`, a rate outside (0, 1]."""
        if not callable(sample_rate):
            _check_rate(sample_rate)
        if largest is not None and largest < 1:
            raise ValueError(f"the largest sample holds at least one unit, not {largest}")
        if not isinstance(units, int) and len(set(units)) != len(units):
            raise ValueError("a unit that stands twice would be drawn at twice the rate")
        self.count = units if isinstance(units, int) else len(units)
        self._sample_rate, self._largest = sample_rate, largest
        self._stream, self._label = stream, label

    def draw(self, step: int) -> list[int]:
        """Indices of the units in the sample of `step`, ascending; steps must go up.

        The probability is the rate rounded to a multiple of 2^-52.
        """
        rate = self._sample_rate(step) if callable(self._sample_rate) else self._sample_rate
        _check_rate(rate)
        coins = self._stream.uniforms(self.count, self._label, step)
        drawn = np.flatnonzero(coins < rate)
        if self._largest is not None and len(drawn) > self._largest:
            keys = self._stream.uniforms(len(drawn), f"{self._label}/cut", step)
            drawn = np.sort(drawn[np.argsort(keys, kind="stable")[: self._largest]])
        return [int(index) for index in drawn]


def _check_rate(rate: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"a sampling rate lies in (0, 1], not {rate}")
