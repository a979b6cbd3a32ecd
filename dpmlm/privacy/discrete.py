"""`DiscreteGaussian`: whole numbers x with probability proportional to exp(-x^2 / (2 sigma^2)).

The distribution is that of Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), definition 1; the
sampler is another one, made for whole blocks of numbers. A proposal comes from whole-number
arithmetic alone, so its probabilities are known exactly; it is accepted by comparing a uniform
number with a probability computed in float64, and wherever float64 could decide otherwise than
real numbers, the comparison is made again with eighty digits. So the decisions are those of real
numbers, and only two things keep the result from the exact distribution: it ends at 14 sigma, and
the second comparison ends at 192 bits. Together they change it by less than 2^-120 in total
variation a number, hence by less than 1e-20 for the 1e14 numbers of a large run; delta grows by at
most 1 + e^epsilon times that.
"""

import math
from collections.abc import Iterator
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from dpmlm.privacy.stream import BLOCK, Words

SMALLEST, LARGEST = 1.0, 2.0**48
"""Range of sigma: magnitudes stay exact in float64."""

_END = 14  # sigma
_CHOICE_BITS = 16
_LOW_BITS = np.uint64((1 << _CHOICE_BITS) - 1)
_SIGN_SHIFT = np.uint64(_CHOICE_BITS)
# The probability is off by less than 2^-43 of itself: gamma is below 100 and off by 3 roundings,
# hence exp(-gamma) by 2^-44; exp itself, two factors and the middle of the cell are far below.
_DOUBT = 2.0**-40
_DIGITS = 80
_EXTRA_BITS = 128


class DiscreteGaussian:
    """A sampler for one sigma; holds tables of a megabyte and no state.

    A proposal is a block of 2^k magnitudes, chosen by 16 bits in proportion to a whole number that
    is at least the largest weight in it, and a place in the block, chosen by k bits. Nineteen in
    twenty are accepted.
    """

    def __init__(self, sigma: float) -> None:
        """`sigma` in [1, 2^48], taken as the float64 that it is; ValueError otherwise."""
        if not SMALLEST <= sigma <= LARGEST:
            raise ValueError(f"a discrete Gaussian has sigma between 1 and 2^48, not {sigma}")
        self.sigma = float(sigma)
        self._bits = max(0, math.floor(math.log2(sigma / 16)))
        blocks = math.ceil(_END * sigma / 2**self._bits)
        weights = np.exp(-((np.arange(blocks) * 2.0**self._bits / sigma) ** 2) / 2)
        choices = 1 << _CHOICE_BITS
        scaled = weights * ((choices - blocks) / weights.sum())
        self._counts = np.ceil(scaled).astype(np.int64)
        self._counts[0] += choices - int(self._counts.sum())
        # A little below the factor used above, so that count >= scale * weight in real numbers.
        self._scale = float((choices - blocks) / weights.sum() * (1 - 2.0**-30))
        self._heights = (self._scale / self._counts)[np.repeat(np.arange(blocks), self._counts)]
        self._starts = np.repeat(np.arange(blocks) << self._bits, self._counts)

    def draws(self, n: int, words: Words) -> Iterator[NDArray[np.int64]]:
        """int64 arrays that are `n` independent numbers together."""
        left = n
        while left:
            numbers = self._accepted(min(BLOCK // 2, left + left // 16 + 8), words)[:left]
            left -= len(numbers)
            yield numbers

    def _accepted(self, count: int, words: Words) -> NDArray[np.int64]:
        """What is left of `count` proposals."""
        both = words.next(2 * count)
        shape, coin = both[:count], both[count:]
        choice = np.bitwise_and(shape, _LOW_BITS).astype(np.intp)
        negative = np.right_shift(shape, _SIGN_SHIFT).astype(np.int64) & 1
        magnitude = np.take(self._starts, choice)
        if self._bits:
            magnitude += np.right_shift(shape, np.uint64(64 - self._bits)).astype(np.int64)
        magnitude += negative  # 0 has one sign: the negative side starts at 1
        chance = self._chances(magnitude, choice)
        uniform = np.right_shift(coin, np.uint64(12)).astype(np.float64)
        uniform += 0.5
        uniform *= 2.0**-52
        uniform -= chance
        accepted = uniform < 0
        doubtful = np.flatnonzero(np.abs(uniform, out=uniform) < _DOUBT)
        if len(doubtful):
            coins = [int(coin[index]) for index in doubtful]  # the buffer is overwritten below
            for index, first in zip(doubtful, coins, strict=True):
                count_of_block = round(self._scale / self._heights[choice[index]])
                accepted[index] = self._decide(int(magnitude[index]), count_of_block, first, words)
        np.negative(magnitude, out=magnitude, where=negative.astype(bool))
        return magnitude[accepted]

    def _chances(
        self, magnitude: NDArray[np.int64], choice: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Probability to accept each proposal, in float64."""
        chance = magnitude.astype(np.float64)
        chance *= chance
        chance /= -2 * self.sigma * self.sigma
        np.exp(chance, out=chance)
        chance *= np.take(self._heights, choice)
        return chance

    def _decide(self, magnitude: int, count: int, coin: int, words: Words) -> bool:
        """Whether a uniform number that begins with the 64 bits `coin` is below the probability."""
        for word in words.next(_EXTRA_BITS // 64).tolist():
            coin = coin << 64 | word
        with localcontext() as context:
            context.prec = _DIGITS
            gamma = Decimal(magnitude) ** 2 / (2 * Decimal(self.sigma) ** 2)
            chance = (-gamma).exp() * Decimal(self._scale) / count
            return Decimal(coin) < chance * Decimal(2) ** (64 + _EXTRA_BITS)
