"""`GridNoise`: the clipped sum on a grid of exact numbers, with discrete Gaussian noise.

**Mechanism.** Every entry of the float32 sum is rounded to the nearest multiple of a public pitch,
an integer m; the result is pitch * (m + x), x from a discrete Gaussian.

**Sensitivity.** Rounding moves each of the d entries by at most pitch / 2, on either of two
neighbouring sums, so what moved by at most C moves by at most C + pitch * sqrt(d) afterwards
(entries beyond +-2^61 pitches are cut off there, which moves nothing apart). The pitch is a power
of two, so that dividing by it is exact, and at most 1e-4 C / sqrt(d). The noise is
noise_multiplier * C * (1 + 1e-4): it has the plan's ratio to what one unit can do.

**Accounting.** With v the whole-number vector that a unit adds, let P = (1-q) N(0) + q N(v) and
Q = N(0), discrete Gaussians on Z^d. For a whole k, the mean of (N(v)/N(0))^k under N(0) is
exp(k (k-1) |v|^2 / (2 sigma^2)): completing the square shifts the sum by k v, a point of the grid.
That is the value for continuous noise. Hence by the binomial theorem the Renyi divergence of P from
Q at a whole order is *exactly* that of the continuous mechanism (Mironov, Talwar, Zhang 2019,
arXiv 1908.10530, section 3.3), and grows with |v|.

The other direction is never larger (Mironov, Talwar, Zhang show it for continuous noise in
theorem 5). With r = N(v)/N(0), a = 1-q+qr, c = r+q-qr, reflecting at v/2 maps Z^d onto itself and
exchanges N(0) and N(v); averaging over both ends, the difference of the two means at order t is
half the mean of F(t) = a^t + c^t r^(1-t) - a^(1-t) - c^(1-t) r^t. F is a sum of four exponentials
with bases 1/a <= c/r <= r/c <= a (for r >= 1; else exchange the ends) and signs -, +, -, +: three
changes, so by Descartes' rule at most three zeros, and 0, 1/2 and 1 are zeros. The largest base
has sign +, so F > 0 beyond 1.

PRV and PLD bound the continuous mechanism; for this one they are estimates, and are not used.

**What stays uncovered** is the float32 arithmetic before: the sum itself, which depends in its last
bits on the order of its terms.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from dpmlm.privacy.discrete import DiscreteGaussian
from dpmlm.privacy.stream import SecretStream

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING_SHARE = 1e-4
"""Part of the clipping norm that rounding may add to what one unit can do."""

_LIMIT = 2.0**61


class GridNoise:
    """Noise for a sum of `size` numbers, over all tensors of the model together.

    Formal guarantee: for sums that differ by at most `max_grad_norm` in L2 norm, what `add`
    returns on all their entries together has, at every whole Renyi order, at most the divergence
    of the Gaussian mechanism with `noise_multiplier`, also after Poisson sampling.
    """

    def __init__(self, noise_multiplier: float, max_grad_norm: float, size: int) -> None:
        """`size`: number of trainable entries. ValueError where the noise has no grid."""
        if not (0 < noise_multiplier < math.inf and 0 < max_grad_norm < math.inf and size > 0):
            raise ValueError(f"no grid for noise {noise_multiplier} on {max_grad_norm}, {size}")
        # One percent less than allowed: more than float64 errs in these lines.
        widest = 0.99 * ROUNDING_SHARE * max_grad_norm / math.sqrt(size)
        self.pitch = 2.0 ** math.floor(math.log2(widest))
        self.deviation = noise_multiplier * max_grad_norm * (1 + ROUNDING_SHARE)
        self._sampler = DiscreteGaussian(self.deviation / self.pitch)

    def add(self, total: "Tensor", stream: SecretStream, *, label: str, step: int) -> "Tensor":
        """float32 tensor like `total`: rounded to the grid, noised, and rounded once to float32.

        The last rounding sees the noised number alone. `label` and `step` are used once in the
        life of `stream` (ValueError otherwise). An entry that is not a number counts as 0:
        stopping here would tell of it.
        """
        import torch

        source = total.detach().to("cpu", torch.float32).contiguous().view(-1).numpy()
        result = np.empty_like(source)
        start = 0
        for noise in self._sampler.draws(len(source), stream.words(label, step)):
            stop = start + len(noise)
            scaled = source[start:stop].astype(np.float64) / self.pitch
            np.nan_to_num(scaled, copy=False, nan=0.0, posinf=_LIMIT, neginf=-_LIMIT)
            whole = np.clip(np.rint(scaled), -_LIMIT, _LIMIT).astype(np.int64)
            result[start:stop] = (whole + noise) * self.pitch
            start = stop
        return torch.from_numpy(result).reshape(total.shape).to(total.device)
