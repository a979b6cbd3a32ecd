"""The DP optimizer: Opacus' contract, with noise from a cryptographic generator.

`clip_and_sum` leaves the clipped sum of a logical batch in `p.grad`. One `step()` adds noise of
standard deviation noise_multiplier * max_grad_norm to every trainable parameter (discrete noise:
a little more, `dpmlm/privacy/grid.py`; correlated noise: `dpmlm/privacy/bands.py`), divides by the
plan's expected batch size (a public constant), and updates.
"""

import torch
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import nn
from torch.optim import AdamW, Optimizer

from dpmlm.privacy import BandedNoise, GridNoise, PrivacyPlan, SecretStream, gaussian_noise
from dpmlm.training.schedules import learning_rate_at as learning_rate_at


class SecureDPOptimizer(DPOptimizerFastGradientClipping):
    """`DPOptimizerFastGradientClipping` whose noise is keyed by the operating system.

    Every trainable tensor is noised once a step, also when this batch left it without a
    gradient: a tensor without noise would tell that nothing reached it.
    """

    def __init__(self, optimizer: Optimizer, plan: PrivacyPlan, stream: SecretStream) -> None:
        self._stream = stream
        noised = plan.noise_multiplier > 0
        self._noise_std = plan.noise_multiplier * plan.max_grad_norm if noised else 0.0
        self._step_index = 0
        self._plan = plan
        super().__init__(
            optimizer,
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.max_grad_norm,
            expected_batch_size=plan.expected_batch_size,
            loss_reduction="mean",
        )
        self._grid: GridNoise | None = None
        if noised and plan.noise == "discrete_gaussian":
            numbers = sum(parameter.numel() for parameter in self.params)
            self._grid = GridNoise(plan.noise_multiplier, plan.max_grad_norm, numbers)
        # A new optimizer begins a new chain: nothing of an earlier attempt's noise is kept.
        self._bands = BandedNoise(plan.coefficients) if plan.bands > 1 else None

    def start_step(self, index: int) -> None:
        """Name the step whose noise is drawn next: no step may reuse another's.

        The sum is divided by its expected batch size, a constant of the plan.
        """
        self._step_index = index
        self.expected_batch_size = self._plan.batch_at(index)

    def signal_skip_step(self, do_skip: bool = True) -> None:
        """Refused: the clipped sum accumulates in `p.grad`, and a skipped step counts it twice."""
        if do_skip:
            raise RuntimeError(
                "signal_skip_step would count gradients twice; call clip_and_sum for every "
                "micro-batch and step() once"
            )

    def accumulate(self) -> None:
        """Take the clipped sum from `p.grad`; a parameter nothing reached sums to zero."""
        for parameter in self.params:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter, dtype=torch.float32)
            parameter.summed_grad = parameter.grad.detach().float()

    def add_noise(self) -> None:
        """p.grad = clipped sum + noise, in float32."""
        for index, parameter in enumerate(self.params):
            total = self._noised(parameter.summed_grad, f"noise/{index}")
            parameter.grad = total.to(parameter.dtype)

    def _noised(self, total: torch.Tensor, label: str) -> torch.Tensor:
        stream, step = self._stream, self._step_index
        if self._noise_std == 0:
            return total
        if self._grid is not None:
            return self._grid.add(total, stream, label=label, step=step)
        fresh = gaussian_noise(tuple(total.shape), self._noise_std, stream, label=label, step=step)
        noise = fresh.to(total.device)
        return total + (self._bands.correlate(noise, label) if self._bands else noise)


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> AdamW:
    """AdamW over the trainable parameters; biases and norms (one axis) do not decay."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=learning_rate)
