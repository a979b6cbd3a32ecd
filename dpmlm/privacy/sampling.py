"""`PoissonSampler`: which units take part in a step."""

from collections.abc import Sequence

import numpy as np

from dpmlm.privacy.stream import SecretStream

LABEL = "sample"


class PoissonSampler:
    """Each unit is in each step's sample independently with probability `sample_rate`.

    Formal guarantee: this is the sampling that the accountants of this package bound. The rate is
    the plan's, a public constant: it does not change with the number of units present. A sample
    may be empty and the step is taken all the same.
    """

    def __init__(
        self,
        units: Sequence[str] | int,
        sample_rate: float,
        *,
        stream: SecretStream,
        label: str = LABEL,
    ) -> None:
        """`units`: their identifiers in a fixed order, or how many; ValueError for a rate outside
        (0, 1] or an identifier that stands twice."""
        if not 0 < sample_rate <= 1:
            raise ValueError(f"a sampling rate lies in (0, 1], not {sample_rate}")
        if not isinstance(units, int) and len(set(units)) != len(units):
            raise ValueError("a unit that stands twice would be drawn at twice the rate")
        self.count = units if isinstance(units, int) else len(units)
        self.sample_rate = sample_rate
        self._stream, self._label = stream, label

    def draw(self, step: int) -> list[int]:
        """Indices of the units in the sample of `step`, ascending; steps must go up.

        The probability is `sample_rate` rounded to a multiple of 2^-52.
        """
        coins = self._stream.uniforms(self.count, self._label, step)
        return [int(index) for index in np.flatnonzero(coins < self.sample_rate)]
