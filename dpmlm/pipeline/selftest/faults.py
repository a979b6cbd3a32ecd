"""Faults that are planted: a piece of the trainer is replaced while one is entered.

Each is one that was found in published or hand-written DP-SGD. What is trained is really changed;
plan, canaries and everything that judges stay as they are.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpmlm.clipping import ClipResult, clip_and_sum, grad_sample_module
from dpmlm.clipping.layers import Term, squared_norms
from dpmlm.clipping.layers.embedding import LookupTerm
from dpmlm.clipping.scratch import Scratch
from dpmlm.clipping.units import UnitLayout
from dpmlm.masking import MaskedBatch
from dpmlm.pipeline.selftest.replaced import replaced
from dpmlm.privacy import (
    PoissonSampler,
    PrivacyPlan,
    SecretStream,
    epsilon_of,
    gaussian_noise,
    planning,
)
from dpmlm.training import loop, optimizer

TIMES = 4
"""By how much the wrong sampling rates are wrong."""


@dataclass(frozen=True)
class Fault:
    """One way to break a claim."""

    name: str
    words: str
    plant: Callable[[], AbstractContextManager[Any]]
    epsilon: Callable[[PrivacyPlan, int], float]
    """What such a training keeps, of a plan whose people have so many documents; infinite where
    nothing can be promised."""


def _noise(factor: float) -> Callable[[], AbstractContextManager[Any]]:
    def smaller(shape: Any, std: float, *rest: Any, **names: Any) -> Tensor:
        return gaussian_noise(shape, std * factor, *rest, **names)

    return lambda: replaced(optimizer, gaussian_noise=smaller)


def _unclipped() -> AbstractContextManager[Any]:
    def free(model: Any, batch: MaskedBatch, bound: float, **more: Any) -> ClipResult:
        return clip_and_sum(model, batch, math.inf, **more)

    return replaced(loop, clip_and_sum=free)


def _embedding_left_out() -> AbstractContextManager[Any]:
    def partial(terms: list[Term], layout: UnitLayout, scratch: Scratch) -> Tensor:
        found = squared_norms(terms, layout, scratch)
        tied = len(terms) > 1 and any(isinstance(term, LookupTerm) for term in terms)
        return torch.zeros_like(found) if tied else found

    return replaced(grad_sample_module, squared_norms=partial)


def _wrong_rate() -> AbstractContextManager[Any]:
    """Noise for people drawn a quarter as often: as if there were four times as many."""
    real = planning._noise_for
    return replaced(planning, _noise_for=lambda plan: real(replace(plan, units=TIMES * plan.units)))


def _drawn_too_often() -> AbstractContextManager[Any]:
    class Eager(PoissonSampler):
        def __init__(self, units: Any, rate: Callable[[int], float], **more: Any) -> None:
            super().__init__(units, lambda step: min(1.0, TIMES * rate(step)), **more)

    return replaced(loop, PoissonSampler=Eager)


def _same_seed() -> AbstractContextManager[Any]:
    return replaced(loop, _stream=lambda plan, ranks: SecretStream.reproducible(1))


def _batch_mean() -> AbstractContextManager[Any]:
    def shared(model: Any, batch: MaskedBatch, bound: float, **more: Any) -> ClipResult:
        weights = batch.masked_weights / batch.masked_weights.sum().clamp_min(1)
        return clip_and_sum(model, replace(batch, masked_weights=weights), bound, **more)

    return replaced(loop, clip_and_sum=shared)


def _documents_alone() -> AbstractContextManager[Any]:
    def by_row(model: Any, batch: MaskedBatch, bound: float, **more: Any) -> ClipResult:
        return clip_and_sum(model, replace(batch, unit_index=None), bound, **more)

    return replaced(loop, clip_and_sum=by_row)


def _kept(plan: PrivacyPlan, noise: float = 1.0) -> float:
    """Epsilon of the plan's steps at a multiple of its noise."""
    sigma = noise * plan.noise_multiplier
    return epsilon_of("pld", plan.composition(noise_multiplier=sigma), plan.delta)


def _nothing(plan: PrivacyPlan, documents: int) -> float:
    return math.inf


def _often(plan: PrivacyPlan, documents: int) -> float:
    batch = min(TIMES * plan.expected_batch_size, plan.units)
    return _kept(replace(plan, expected_batch_size=batch))


CORRECT = Fault("correct", "nothing is broken", nullcontext, lambda plan, _: _kept(plan))
FAULTS = (
    Fault("no noise", "the clipped sum is released", _noise(0.0), _nothing),
    Fault(
        "half the noise",
        "noise of half the planned deviation",
        _noise(0.5),
        lambda plan, _: _kept(plan, 0.5),
    ),
    Fault("clipping off", "gradients enter the sum as long as they are", _unclipped, _nothing),
    Fault(
        "embedding left out",
        "the tied embedding is not in the norm that clips",
        _embedding_left_out,
        _nothing,
    ),
    Fault(
        "wrong rate accounted",
        f"noise calibrated for a {TIMES}th of the sampling rate",
        _wrong_rate,
        lambda plan, _: _kept(plan),
    ),
    Fault("drawn too often", f"people drawn {TIMES} times as often as planned",
          _drawn_too_often, _often),
    Fault("noise seed reused", "every training draws the same noise", _same_seed, _nothing),
    Fault(
        "batch-mean loss",
        "the loss is the mean over all masked tokens of the batch",
        _batch_mean,
        _nothing,
    ),
    Fault(
        "person as document",
        "each document of a person is clipped alone",
        _documents_alone,
        lambda plan, documents: _kept(plan, 1 / documents),
    ),
)  # fmt: skip
"""In the order of the table."""
