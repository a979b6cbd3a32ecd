"""`check_model`: whether a model's per-unit gradients are exact, measured on the model itself."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dpmlm.clipping.evaluate import evaluating
from dpmlm.clipping.grad_sample_module import MaskedLMGradSampleModule, own_scratch
from dpmlm.clipping.head import masked_logits, max_tokens, used_slots
from dpmlm.clipping.precision import full_float32
from dpmlm.clipping.probe import (
    UNITS,
    embedding_lines,
    probe_batch,
    with_another_unit,
    with_more_padding,
)
from dpmlm.clipping.rowwise import unit_gradient
from dpmlm.clipping.structure import Structure, unwrapped
from dpmlm.errors import UserError
from dpmlm.masking import MaskedBatch

EXACT = 1e-5
"""Largest relative error that counts as exact, in float32."""
CLOSE = 0.05
"""The same against one-unit gradients under autocast, which rounds otherwise in a batch than
alone. The norm of a unit is held to `EXACT` against what it adds to the sum all the same."""
PADDING = 3
"""Tokens by which a row is padded more to see whether that matters."""


@dataclass(frozen=True)
class ModelReport:
    """What `dpmlm doctor` prints."""

    exact: bool
    """Whether the model can be trained with the clipping norm it claims."""
    max_relative_error: float | None
    """Largest relative error of a norm or of the clipped sum; None where nothing was measured."""
    reason: str
    """Why not, naming the module; empty when exact."""
    path: Literal["one pass", "row by row"] | None = None
    """How the clipped sum is formed; None for a model that is refused."""
    trainable: int = 0
    """Trainable numbers, tied ones once."""
    unused: tuple[str, ...] = ()
    """Trainable parameters that the forward pass does not use: they take noise, learn nothing."""
    padding_matters: bool = False
    """Whether a row's result depends on how far it is padded: then every row is padded alike."""


def check_model(
    model: nn.Module, vocab_size: int | None = None, *, window: int = 12
) -> ModelReport:
    """Compares `clip_and_sum` with one-unit-at-a-time autograd through the model's own forward.

    The batch is synthetic: padding, a row of one token, a row without masks, a unit of two rows,
    `window` tokens at most. It runs under the caller's autocast, dropout off. `vocab_size` is the
    tokenizer's; ids are drawn below it, and a tokenizer with more ids than the embedding is a
    reason. Beside norms and sum: no parameter that a unit reaches is missing, another unit in the
    batch changes nothing, a second call gives the same. Gradients, mode and random state are as
    before afterwards. Memory: about ten gradients.
    """
    try:
        structure = Structure.of(model)
        trainable = sum(p.numel() for p in structure.trainable)
        lines = embedding_lines(structure.model)
        if vocab_size is not None and vocab_size > lines:
            reason = f"the tokenizer has {vocab_size} ids, the embedding {lines} lines"
            return ModelReport(False, None, reason, structure.path, trainable)
        if not structure.trainable:
            return ModelReport(False, None, "every parameter is frozen", structure.path)
        width = int(min(window, max_tokens(structure.model) - PADDING))
        batch = probe_batch(structure.model, min(vocab_size or lines, lines), width)
        with (
            _undisturbed(structure.trainable),
            evaluating(structure.model),
            own_scratch(structure.model),
        ):
            error, reason, unused = _measure(structure, batch)
            padding = reason == "" and _padding_matters(structure.model, batch)
    except UserError as refusal:
        return ModelReport(False, None, str(refusal))
    return ModelReport(reason == "", error, reason, structure.path, trainable, unused, padding)


def padding_matters(model: nn.Module, vocab_size: int, *, window: int = 12) -> bool:
    """Whether a row's result depends on how far it is padded: then all rows are padded alike.

    Two forward passes on the batch of `check_model`, for whoever forms no gradients; arguments as
    there. Raises UserError for a tokenizer with more ids than the embedding has lines, and for a
    compiled model.
    """
    model = unwrapped(model)
    if vocab_size > (lines := embedding_lines(model)):
        raise UserError(
            f"a tokenizer with {vocab_size} ids",
            f"the model has {lines} embeddings: they are not a pair",
            "take the tokenizer that the model was trained with",
        )
    width = int(min(window, max_tokens(model) - PADDING))
    if width < 1:
        return True  # too few positions to see it
    with _undisturbed(()), evaluating(model):
        return _padding_matters(model, probe_batch(model, vocab_size, width))


class _Sum(NamedTuple):
    """Norms of the units and the sum over them of their clipped gradients."""

    norms: Tensor
    """float64 [U]."""
    of_parameter: list[Tensor]
    """One a trainable parameter."""


def _measure(structure: Structure, batch: MaskedBatch) -> tuple[float | None, str, tuple[str, ...]]:
    """(largest relative error, why the model is refused or nothing, unused parameters)."""
    try:
        truth, bound, reached = _one_unit_at_a_time(structure, batch)
    except UserError:
        raise
    except Exception as failure:  # whatever a forward pass may raise, on a batch of ours
        return None, f"it cannot run on plain rows of token ids ({type(failure).__name__})", ()
    if not bound > 0 or not math.isfinite(bound):
        return None, "no unit of a plain batch has a finite gradient", ()
    ours = _clipped(structure, batch, bound)
    names = {id(p): name for name, p in structure.model.named_parameters()}
    unused = tuple(names[id(p)] for p, used in zip(structure.trainable, reached) if not used)
    errors = {
        names[id(p)]: _norm([mine - true]) / _norm(truth.of_parameter)
        for p, mine, true in zip(structure.trainable, ours.of_parameter, truth.of_parameter)
    }
    errors["the norm of a unit"] = _furthest(ours.norms, truth.norms)
    for param, mine, true in zip(structure.trainable, ours.of_parameter, truth.of_parameter):
        if bool(true.any()) and not bool(mine.any()):
            return math.inf, f"parameter {names[id(param)]} is missing in the sum", unused
    where = max(errors, key=lambda name: _or_inf(errors[name]))
    error = _or_inf(errors[where])
    held = _held(batch)
    if not error <= held:
        against = f"relative error {error:.1e} against one-unit gradients in {where}"
        return error, f"{against}, {held:g} held", unused
    return error, _what_else(structure, batch, ours, bound), unused


def _what_else(structure: Structure, batch: MaskedBatch, ours: _Sum, bound: float) -> str:
    """What breaks the bound although a sum on its own is right; nothing if all holds.

    Shapes are the same throughout, so reduced types round the same: `EXACT` holds for them too.
    """
    lines = embedding_lines(structure.model)
    again = _clipped(structure, batch, bound)
    if not _furthest(again.norms, ours.norms) <= EXACT:
        return "a second call gives other norms: the forward pass is random, or something stays"
    other = _clipped(structure, with_another_unit(batch, lines), bound)
    if not _furthest(other.norms[1:], ours.norms[1:]) <= EXACT:
        return "the norm of a unit depends on the other units of its batch"
    assert batch.unit_index is not None
    for unit in range(UNITS):
        rows = (batch.unit_index == unit).nonzero()[:, 0]
        single = replace(batch.rows(rows), unit_index=torch.zeros_like(rows))
        alone = _clipped(structure, single, math.inf)
        added = _norm(alone.of_parameter)
        if not abs(float(alone.norms[0]) - added) <= EXACT * added:
            return "a unit adds another vector to the sum than its norm was taken of"
    return ""


def _padding_matters(model: nn.Module, batch: MaskedBatch) -> bool:
    """Whether the logits of a row move when it is padded further."""
    wider = with_more_padding(model, batch, PADDING)
    used = used_slots(batch)
    # Reduced types would hide small effects.
    with torch.no_grad(), full_float32(batch.input_ids.device):
        short, long = (masked_logits(model, None, each)[used] for each in (batch, wider))
    return not float((short - long).abs().max() / short.abs().max()) <= EXACT


def _held(batch: MaskedBatch) -> float:
    return CLOSE if torch.is_autocast_enabled(batch.input_ids.device.type) else EXACT


def _one_unit_at_a_time(structure: Structure, batch: MaskedBatch) -> tuple[_Sum, float, list[bool]]:
    """(the truth at a bound on the median norm, that bound, which parameters a unit reaches).

    Gradients are formed twice, for norm and for sum: those of all units would not fit.
    """

    def gradient(unit: int) -> list[Tensor | None]:
        assert batch.unit_index is not None
        rows = (batch.unit_index == unit).nonzero()[:, 0].tolist()
        return unit_gradient(structure.model, structure.trainable, batch, rows)[1]

    norms = torch.tensor(
        [_norm([g for g in gradient(unit) if g is not None]) for unit in range(UNITS)],
        dtype=torch.float64,
    )
    bound = float(norms[norms > 0].median()) if bool((norms > 0).any()) else 0.0
    total = [torch.zeros_like(p, requires_grad=False) for p in structure.trainable]
    reached = [False] * len(total)
    for unit, norm in enumerate(norms.tolist()):
        for place, g in enumerate(gradient(unit)):
            if g is not None:
                total[place].add_(g, alpha=min(1.0, bound / norm) if norm > 0 else 1.0)
                reached[place] = True
    return _Sum(norms, total), bound, reached


def _clipped(structure: Structure, batch: MaskedBatch, bound: float) -> _Sum:
    """The same by the engine, without its allowance for rounding."""
    for param in structure.trainable:
        param.grad = None
    result = MaskedLMGradSampleModule(structure.model, tau=0.0).clip_and_sum(batch, bound)
    sums = [p.grad for p in structure.trainable if p.grad is not None]
    return _Sum(result.norms.double().cpu(), sums)


def _norm(gradient: list[Tensor]) -> float:
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradient))


def _furthest(found: Tensor, true: Tensor) -> float:
    """Largest relative error; where the truth is 0, the size of what was found."""
    return max(
        _or_inf(abs(f - t) / t if t > 0 else abs(f)) for f, t in zip(found.tolist(), true.tolist())
    )


def _or_inf(error: float) -> float:
    return math.inf if math.isnan(error) else error


@contextmanager
def _undisturbed(trainable: tuple[nn.Parameter, ...]) -> Iterator[None]:
    """Gradients and random state as they were."""
    found = [p.grad for p in trainable]
    try:
        with torch.random.fork_rng():
            yield
    finally:
        for param, grad in zip(trainable, found):
            param.grad = grad
