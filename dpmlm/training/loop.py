"""The training loop: charge, draw, clip, noise, update, checkpoint.

The order within a step is the claim. A step is charged, durably, before its units are drawn; every
attempt draws its samples and its noise from a stream of its own, so nothing of an interrupted one
is drawn again (windows and masks are functions of seed, example and step, and repeat); and what a
step logged counts only once a checkpoint holds it.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dpmlm.clipping import clip_and_sum, own_scratch
from dpmlm.errors import UserError
from dpmlm.privacy import PoissonSampler, PrivacyPlan, SecretStream, groups_of
from dpmlm.telemetry import Event, Sink, event
from dpmlm.training.charges import Charges
from dpmlm.training.checkpoint import Checkpoints, Progress
from dpmlm.training.gradients import NO_GRADIENT_CANARIES, GradientCanaries, PlantedGradients
from dpmlm.training.interrupts import Interrupted, stop_requests
from dpmlm.training.memory import rows_that_fit
from dpmlm.training.model import activation_checkpointing_if, refuse_inexact
from dpmlm.training.optimizer import SecureDPOptimizer, adamw, learning_rate_at
from dpmlm.training.pace import arithmetic
from dpmlm.training.ranks import Ranks
from dpmlm.training.recipe import Recipe
from dpmlm.training.units import Units, View

Report = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


def train(
    model: nn.Module,
    units: Units,
    plan: PrivacyPlan,
    recipe: Recipe,
    *,
    charges: Charges,
    checkpoints: Checkpoints,
    report: Report = lambda done, total: None,
    telemetry: Sequence[Sink] = (),
    gradients: GradientCanaries = NO_GRADIENT_CANARIES,
) -> Progress:
    """Train `model` in place for `plan.steps` noisy steps, resuming from the last checkpoint.

    Dropout is off: its masks would have to be keyed by example to keep one unit's gradient
    independent of the others in its batch. Each of `telemetry` gets the events
    that a checkpoint holds. `gradients` are units beside `units`.

    Raises:
        UserError: the model's gradients are not exact, the ledger refuses, the weights stop
            being finite, or of several ranks one has ended or is at another step.
        Interrupted: SIGINT or SIGTERM, after a checkpoint was written.
        SystemExit: on ranks after the first one, where that one failed.
    """
    ranks = Ranks.current()
    model.eval()
    with (
        ranks.together(),
        own_scratch(model),
        activation_checkpointing_if(recipe.activation_checkpointing, model),
    ):
        recipe = ranks.same(_fitted(model, recipe) if ranks.first else None, "recipe")
        optimizer = adamw(model, recipe.learning_rate, recipe.weight_decay)
        progress = checkpoints.load(model, optimizer) or Progress(0, 0, [])
        ranks.agree_on("privacy plan", plan.digest)
        ranks.agree_on("checkpoint of step", progress.step)
        ranks.agree(model)
        if progress.step >= plan.steps:  # killed between the last checkpoint and its commit
            if ranks.first:
                charges.commit(progress.attempt, plan.steps)
                _tell(telemetry, progress.events)
            return progress
        trainable = [param for group in optimizer.param_groups for param in group["params"]]
        planted = PlantedGradients(
            gradients, trainable, plan, begun=progress.step, kept=progress.transcript
        )
        attempt = ranks.same(charges.begin(progress.step) if ranks.first else None, "attempt")
        stream = _stream(plan, ranks)
        private = SecureDPOptimizer(optimizer, plan, stream)
        sampler = _sampler(plan, [*units.names, *planted.names], recipe, stream)
        events, saved = list(progress.events), time.monotonic()
        with stop_requests() as stop:
            for step in range(progress.step, plan.steps):
                if ranks.first:
                    charges.charge(attempt, step)
                ranks.agree_on("step", step)  # nobody draws before the charge is on disk
                views, texts, sample = recipe.windows_per_draw, len(units.names), sampler.draw(step)
                drawn = [units.views(index, step, views) for index in sample if index < texts]
                planted.draw(step, [index - texts for index in sample if index >= texts])
                rate = learning_rate_at(
                    step, steps=plan.steps, peak=recipe.learning_rate, warmup=recipe.warmup
                )
                told = _step(model, private, drawn, planted, step, rate, plan, recipe, ranks)
                events.append(told)
                if not _finite(model):
                    if ranks.first:
                        charges.keep(attempt, step + 1)  # that it diverged is a result, too
                    raise _diverged(step)
                if ranks.first:
                    report(step + 1, plan.steps)
                due = time.monotonic() - saved >= 60 * recipe.checkpoint_minutes
                stopping = max(ranks.all(stop.signum or 0))
                if ranks.same(bool(stopping) or due or step + 1 == plan.steps, "checkpoint"):
                    if ranks.first:
                        done = Progress(step + 1, attempt, events, planted.transcript)
                        checkpoints.save(model, optimizer, done)
                        charges.keep(attempt, step + 1)
                        _tell(telemetry, events)
                    saved = time.monotonic()
                if stopping and step + 1 < plan.steps:
                    raise Interrupted(stopping)
            if ranks.first:
                charges.commit(attempt, plan.steps)
            if stop.signum is not None:
                raise Interrupted(stop.signum)
        return Progress(plan.steps, attempt, events, planted.transcript)


def _tell(telemetry: Sequence[Sink], events: Sequence[Event]) -> None:
    for sink in telemetry:
        sink.write(events)


def _sampler(
    plan: PrivacyPlan, names: Sequence[str], recipe: Recipe, stream: SecretStream
) -> PoissonSampler:
    groups = None
    if plan.bands > 1:
        groups = plan.bands, groups_of(names, plan.bands, recipe.mask_seed)
    return PoissonSampler(
        names, plan.rate_at, stream=stream, largest=plan.max_batch_size, groups=groups
    )


def _stream(plan: PrivacyPlan, ranks: Ranks) -> SecretStream:
    """What samples and noise are drawn from: one key on all ranks, a new one each attempt."""
    if plan.noise_seed is not None:  # the plan says of itself that it is not private
        return SecretStream.reproducible(plan.noise_seed)
    return SecretStream(ranks.same(secrets.token_bytes(32) if ranks.first else None, "key"))


def _fitted(model: nn.Module, recipe: Recipe) -> Recipe:
    """The recipe with what only a look at the model tells."""
    with arithmetic(model, recipe.precision):
        checked = refuse_inexact(model, recipe.table.vocab_size, window=recipe.window)
        rows = recipe.physical_batch_size
        if recipe.memory_limit is not None:
            rows = rows_that_fit(
                model,
                recipe.table,
                recipe.masking,
                recipe.window,
                recipe.memory_limit,
                rows_a_unit=recipe.windows_per_draw,
            )
            _refuse_too_little(recipe, rows)
    return replace(recipe, pad_to_window=checked.padding_matters, physical_batch_size=rows)


def _refuse_too_little(recipe: Recipe, rows: int) -> None:
    if rows < recipe.windows_per_draw:
        raise UserError(
            f"memory limit of {recipe.memory_limit} bytes",
            f"not even one unit of {recipe.windows_per_draw} rows of {recipe.window} tokens fits, "
            "and its rows are clipped together",
            "raise memory_gib, lower windows_per_draw or the window, or set "
            "activation_checkpointing",
        )


def _step(
    model: nn.Module,
    optimizer: SecureDPOptimizer,
    drawn: Sequence[Sequence[View]],
    planted: PlantedGradients,
    step: int,
    rate: float,
    plan: PrivacyPlan,
    recipe: Recipe,
    ranks: Ranks,
) -> Event:
    optimizer.zero_grad(set_to_none=True)
    losses, norms = [torch.zeros(0)], [torch.zeros(0)]
    for units in ranks.share(recipe.micro_batches(drawn)):
        batch = recipe.batch(units).to(_device(model))
        with arithmetic(model, recipe.precision):
            result = clip_and_sum(model, batch, plan.max_grad_norm)
        losses.append(result.losses[: len(units)].cpu())
        norms.append(result.norms[: len(units)].cpu())
    ranks.add_up(optimizer.params)
    planted.add()
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.start_step(step)
    optimizer.step()
    planted.observe()
    of_all = ranks.all((torch.cat(losses), torch.cat(norms)))
    losses_U, norms_U = (torch.cat(parts) for parts in zip(*of_all))
    figures = {
        "learning_rate": rate,
        "sample_rate": plan.rate_at(step),
        "noised_gradient_norm": _norm_of_gradients(optimizer),
        **_of_units(losses_U, norms_U, plan.max_grad_norm),
    }
    return event(step + 1, figures, private_plan=plan.private)


def _norm_of_gradients(optimizer: SecureDPOptimizer) -> float:
    """Norm of what the optimizer has just used: noised, and divided by the expected batch size."""
    grads = [parameter.grad for parameter in optimizer.params]
    return float(torch.nn.utils.get_total_norm([grad for grad in grads if grad is not None]))


def _of_units(losses: torch.Tensor, norms: torch.Tensor, max_grad_norm: float) -> dict[str, Any]:
    """Figures computed from private text without noise."""
    finite = torch.isfinite(norms) & torch.isfinite(losses)
    kept = int(finite.sum())
    return {
        "units": len(norms),
        "non_finite_units": len(norms) - kept,
        "loss": float(losses[finite].mean()) if kept else None,
        "median_norm": float(norms[finite].median()) if kept else None,
        "clipped": float((norms[finite] > max_grad_norm).float().mean()) if kept else None,
    }


def _finite(model: nn.Module) -> bool:
    # The weights are noised already: looking at them reveals nothing the release does not.
    return all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad)


def _diverged(step: int) -> UserError:
    return UserError(
        f"weights at step {step + 1}",
        "training diverged: a weight is no longer a finite number",
        "lower training.learning_rate; the last checkpoint and the ledger's charges stand",
    )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
