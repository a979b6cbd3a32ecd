"""The figures of a step, and what each is computed from."""

from collections.abc import Iterable
from typing import Any

import torch

from dpmlm.telemetry import Event, event


def norm_of_gradients(params: Iterable[torch.nn.Parameter]) -> float:
    """Norm of what the optimizer has just used: noised, and divided by the expected batch size."""
    grads = [param.grad for param in params]
    return float(torch.nn.utils.get_total_norm([grad for grad in grads if grad is not None]))


def of_units(losses: torch.Tensor, norms: torch.Tensor, max_grad_norm: float) -> dict[str, Any]:
    """Figures computed from private text without noise; float32 [U] each, of the units drawn."""
    finite = torch.isfinite(norms) & torch.isfinite(losses)
    kept = int(finite.sum())
    return {
        "units": len(norms),
        "non_finite_units": len(norms) - kept,
        "loss": float(losses[finite].mean()) if kept else None,
        "median_norm": float(norms[finite].median()) if kept else None,
        "clipped": float((norms[finite] > max_grad_norm).float().mean()) if kept else None,
    }


def add_figure(told: Event, name: str, value: float, private_plan: bool) -> None:
    """Put one more figure into an event, under its label."""
    for label, values in event(told["step"], {name: value}, private_plan=private_plan).items():
        if label != "step":
            told[label] |= values
