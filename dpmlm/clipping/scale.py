"""`Scale`: what a parameter's gradient is multiplied by before it is clipped and noised.

Clipping and noise treat all numbers of a model alike, while its gradients are large for some and
small for others: noise of one size drowns the small ones. Scaled first, the noise that each number
gets follows the size of its gradient (scale-then-privatize: Li et al. 2022, arXiv 2202.05963;
Ganesh et al. 2025).

**Formal guarantee.** A unit's scaled gradient is clipped as a whole, and the noise is added to the
scaled sum. The mechanism and its sensitivity are those without scales, whatever the scales are, as
long as they do not come from private text.

A scale is a product of one positive vector an axis, so that a gradient that is kept as factors
stays so. AdamW takes the noised scaled sum as it is: its step does not change when all gradients of
a number are multiplied by one constant, but for an epsilon far below any noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpmlm.errors import UserError


@dataclass(frozen=True)
class Scale:
    """Of one parameter."""

    factors: tuple[Tensor, ...]
    """float32, finite and above 0, one vector an axis."""

    def __post_init__(self) -> None:
        """Raises UserError for a number that is not finite and above 0.

        Here and not with each batch: on a GPU to look at numbers is to wait for it.
        """
        if not all(bool(((v > 0) & torch.isfinite(v)).all()) for v in self.factors):
            raise UserError(
                "scales",
                "each number has to be finite and above 0, or clipping would bound something else",
                "compute them from public text whose gradients are finite",
            )

    def full(self) -> Tensor:
        """Of the parameter's shape."""
        found = self.factors[0]
        for vector in self.factors[1:]:
            found = found[..., None] * vector
        return found

    def to(self, device: torch.device) -> "Scale":
        """The same elsewhere."""
        return Scale(tuple(vector.to(device) for vector in self.factors))

    def fits(self, param: nn.Parameter) -> bool:
        """Whether it has one vector for each axis of `param`."""
        return tuple(len(vector) for vector in self.factors) == tuple(param.shape)


LEAST = 1e-6
"""Mean square of a parameter, in the median parameter's, below which it counts as that."""

Scales = Mapping[nn.Parameter, Scale]


def refuse_unfit(scales: Scales, trainable: Sequence[nn.Parameter]) -> None:
    """Raise UserError unless there is a scale of its shape for each of `trainable`."""
    missing = [param for param in trainable if param not in scales]
    if missing or not all(scales[param].fits(param) for param in trainable):
        raise UserError(
            "scales",
            "each trainable parameter needs one of its own shape, or clipping would bound "
            "something else",
            "compute them for this model, after whatever freezes parts of it",
        )


def scales_from(
    squares: Mapping[nn.Parameter, Tensor], power: float = 0.25, damping: float = 0.01
) -> dict[nn.Parameter, Scale]:
    """From mean squared gradients of the parameters' shapes: each number by its square^-power.

    With `power` 1/4 the noise, summed over all numbers, is least for what clipping leaves of the
    signal (minimize sum 1/s^2 where sum s^2 v is given: s^2 = v^-1/2). A matrix' squares are taken
    as the product of their means by line and by column (Shazeer and Stern 2018, arXiv 1804.04235).
    `damping`, in means of a parameter, bounds what a number gets that hardly any text reached, and
    `LEAST` what a parameter gets whose gradients are zero but for rounding, or until training moves
    another one (keys' biases; the first factors of LoRA). One number more multiplies all, so that
    the sum of the scaled squares is that of the squares: bounds on norms keep their size.
    """
    found, before, after = {}, 0.0, 0.0
    means = sorted(mean for square in squares.values() if (mean := float(square.mean())) > 0)
    least = LEAST * means[len(means) // 2] if means else 1.0
    for param, square in squares.items():
        found[param] = Scale(_factors(square, power, damping, least))
        before += float(square.sum())
        after += float((square * found[param].full().square()).sum())
    ratio = (before / after) ** 0.5 if after else 1.0
    return {p: Scale((one.factors[0] * ratio, *one.factors[1:])) for p, one in found.items()}


def _factors(square: Tensor, power: float, damping: float, least: float) -> tuple[Tensor, ...]:
    mean = float(square.mean())
    if not mean > least:
        square, mean = torch.full_like(square, least), least
    axes = range(square.ndim)
    lines = [square.mean([a for a in axes if a != axis]) if axes[1:] else square for axis in axes]
    relative = [line / mean + damping for line in lines]
    relative[0] = relative[0] * mean
    return tuple(line.pow(-power) for line in relative)
