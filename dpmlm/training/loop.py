"""The training loop: charge, draw, clip, noise, update, checkpoint.

The order within a step is the claim. A step is charged, durably, before its units are drawn; every
attempt draws its samples and its noise from a stream of its own, so nothing of an interrupted one
is drawn again (windows and masks are functions of seed, example and step, and repeat); and what a
step logged counts only once a checkpoint holds it. A step that is stopped before its noise leaves
nothing but its charge.
"""

import secrets
import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import nn

from dpmlm.clipping import ClipResult, clip_and_sum, own_scratch
from dpmlm.masking import MaskedBatch
from dpmlm.privacy import PoissonSampler, PrivacyPlan, SecretStream, groups_of
from dpmlm.telemetry import Event, Sink, event
from dpmlm.training.average import Average
from dpmlm.training.best import PublicChoice, PublicLoss
from dpmlm.training.charges import Charges
from dpmlm.training.checkpoint import Checkpoints, Progress
from dpmlm.training.divergence import Diverged, diverged, finite
from dpmlm.training.figures import add_figure, norm_of_gradients, of_units
from dpmlm.training.gradients import NO_GRADIENT_CANARIES, GradientCanaries, PlantedGradients
from dpmlm.training.interrupts import Interrupted, StopRequest, stop_requests
from dpmlm.training.jumps import jump_of
from dpmlm.training.memory import rows_that_fit
from dpmlm.training.model import activation_checkpointing_if, refuse_inexact
from dpmlm.training.optimizer import SecureDPOptimizer, adamw, learning_rate_at
from dpmlm.training.pace import arithmetic
from dpmlm.training.physical import PhysicalBatches, StepGivenUp
from dpmlm.training.ranks import Ranks
from dpmlm.training.recipe import Recipe, refuse_too_little
from dpmlm.training.saving import Saving
from dpmlm.training.timing import TimeLimit
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
    public: PublicLoss | None = None,
) -> Progress:
    """Train `model` in place for `plan.steps` noisy steps, resuming from the last checkpoint.

    With `public` the weights are in the end those with the least loss on public text, and training
    may end before the plan does.

    Dropout is off: its masks would have to be keyed by example to keep one unit's gradient
    independent of the others in its batch. Each of `telemetry` gets the events
    that a checkpoint holds. `gradients` are units beside `units`.

    Raises:
        UserError: the model's gradients are not exact, the ledger refuses, a weight stops being
            finite, not even one unit fits into memory, the time of `recipe` was over before, or of
            several ranks one has ended or is at another step.
        Interrupted: SIGINT or SIGTERM, or time is over, after a checkpoint of the last finished
            step was written.
        SystemExit: on ranks after the first one, where that one failed.
    """
    ranks = Ranks.current()
    model.eval()
    with (
        ranks.together(),
        own_scratch(model),
        activation_checkpointing_if(recipe.activation_checkpointing, model),
    ):
        if ranks.first:
            checkpoints.take_up()  # the others load after they were told the recipe
        recipe = ranks.same(_fitted(model, recipe) if ranks.first else None, "recipe")
        optimizer = adamw(model, recipe.learning_rate, recipe.weight_decay)
        progress = checkpoints.load(model, optimizer) or Progress(0, 0, [])
        ranks.agree_on("privacy plan", plan.digest)
        ranks.agree_on("checkpoint of step", progress.step)
        ranks.agree(model)
        average = None if recipe.average is None else Average(model, recipe.average)
        if average is not None and progress.step:
            average.load(progress.average or {}, progress.step)
        saving = Saving(
            checkpoints, charges, telemetry, minutes=recipe.checkpoint_minutes, begun=progress.step
        )
        choice = PublicChoice(public, plan, progress.best)
        if choice.owed(progress.step, progress.events):
            progress = _look_again(choice, model, average, progress, plan, ranks)
        if progress.finished:  # killed between the last checkpoint and its commit
            if ranks.first:
                attempt = charges.take_over(progress.attempt, progress.step)
                saving.finish(model, replace(progress, attempt=attempt), plan, choice, average)
                saving.tell(progress.events)
            return progress
        limit = TimeLimit(recipe.max_hours, progress.seconds)
        trainable = [param for group in optimizer.param_groups for param in group["params"]]
        planted = PlantedGradients(
            gradients, trainable, plan, begun=progress.step, kept=progress.transcript
        )
        begun = charges.begin(progress.step, progress.attempt) if ranks.first else None
        attempt = ranks.same(begun, "attempt")
        stream = _stream(plan, ranks)
        clip = _clipping(model, plan, recipe)
        private = SecureDPOptimizer(optimizer, plan, stream)
        sampler = _sampler(plan, [*units.names, *planted.names], recipe, stream)
        events = list(progress.events)

        def so_far(steps: int, finished: bool = False) -> Progress:
            told = list(events)  # later steps add to it, while this is written
            kept = average.state_dict() if average is not None else None
            return Progress(
                steps, attempt, told, planted.transcript, kept, choice.best, finished, limit.spent
            )

        with stop_requests() as stop, saving:
            batches = PhysicalBatches(recipe, ranks, stop)
            for step in range(progress.step, plan.steps):
                if ranks.first:
                    saving.settle(wait=False)
                    charges.charge(attempt, step)
                ranks.agree_on("step", step)  # nobody draws before the charge is on disk
                views, texts, sample = recipe.windows_per_draw, len(units.names), sampler.draw(step)
                drawn = [units.views(index, step, views) for index in sample if index < texts]
                planted.draw(step, [index - texts for index in sample if index >= texts])
                rate = learning_rate_at(
                    step,
                    steps=plan.steps,
                    peak=recipe.learning_rate,
                    warmup=recipe.warmup,
                    shape=recipe.schedule,
                    decay=recipe.decay,
                )
                try:
                    told = _step(clip, private, drawn, planted, step, rate, plan, batches, ranks)
                except StepGivenUp as given_up:
                    if ranks.first:
                        saving.save(model, optimizer, so_far(step), wait=True)
                    raise Interrupted(given_up.signum) from None
                except Diverged:
                    if ranks.first:
                        charges.keep(attempt, step + 1)  # that it diverged is a result, too
                    raise diverged(step, rate, recipe) from None
                if (above := jump_of(events, told)) is not None:  # told, and nothing follows
                    add_figure(told, "loss_jump", above, plan.private)
                events.append(told)
                if average is not None:
                    average.update()
                looked = True
                if ranks.first:
                    if choice.due(step + 1):
                        looked = _look(choice, model, average, told, plan, stop)
                    report(step + 1, plan.steps)
                said = ranks.all((stop.signum or 0, choice.enough, looked, limit.reached))
                late = said[0][3]  # the first rank's clock counts
                stopping = max(signum for signum, *_ in said) or (signal.SIGTERM if late else 0)
                last = step + 1 == plan.steps or any(enough for _, enough, *_ in said)
                last = last and all(looked for *_, looked, _ in said)
                if ranks.first and (stopping or last or saving.due()):
                    done, wait = so_far(step + 1, last), bool(stopping) or last
                    saving.save(model, optimizer, done, wait=wait)
                if last:
                    break
                if stopping:
                    if late and ranks.first:
                        limit.tell()
                    raise Interrupted(stopping, limit.says if late else "a signal")
            progress = so_far(step + 1, True)
            if ranks.first:
                saving.finish(model, progress, plan, choice, average)
            if stop.signum is not None:
                raise Interrupted(stop.signum)
        return progress


def _look(
    choice: PublicChoice,
    model: nn.Module,
    average: Average | None,
    told: Event,
    plan: PrivacyPlan,
    stop: StopRequest,
) -> bool:
    """Look at what would be released after the step of `told`, which gets the loss; False where a
    request to stop came first."""
    with average.in_place() if average is not None else nullcontext():
        loss = choice.look(told["step"], model, lambda: bool(stop))
    if loss is not None:
        add_figure(told, "public_loss", loss, plan.private)
    return loss is not None


def _look_again(
    choice: PublicChoice,
    model: nn.Module,
    average: Average | None,
    progress: Progress,
    plan: PrivacyPlan,
    ranks: Ranks,
) -> Progress:
    """Make the look that a stop cut off, at the weights of the checkpoint that followed: what is
    kept, and when training ends, is then the same as without the stop.

    Raises Interrupted, with the look still owed.
    """
    with stop_requests() as stop:
        if ranks.first:
            _look(choice, model, average, progress.events[-1], plan, stop)
        said = ranks.all((stop.signum or 0, choice.enough))
    if signum := max(signum for signum, _ in said):
        raise Interrupted(signum)
    ends = progress.step == plan.steps or any(enough for _, enough in said)
    return replace(progress, best=choice.best, finished=ends)


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
            refuse_too_little(recipe, rows)
    return replace(recipe, pad_to_window=checked.padding_matters, physical_batch_size=rows)


def _clipping(
    model: nn.Module, plan: PrivacyPlan, recipe: Recipe
) -> Callable[[MaskedBatch], ClipResult]:
    """Adds a batch's clipped sum to the gradients of `model`."""
    device, scales = _device(model), None
    if recipe.scales is not None:
        trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        scales = {
            p: recipe.scales[name].to(device) for name, p in trainable if name in recipe.scales
        }

    def clip(batch: MaskedBatch) -> ClipResult:
        with arithmetic(model, recipe.precision):
            return clip_and_sum(model, batch.to(device), plan.max_grad_norm, scales=scales)

    return clip


def _step(
    clip: Callable[[MaskedBatch], ClipResult],
    optimizer: SecureDPOptimizer,
    drawn: Sequence[Sequence[View]],
    planted: PlantedGradients,
    step: int,
    rate: float,
    plan: PrivacyPlan,
    batches: PhysicalBatches,
    ranks: Ranks,
) -> Event:
    """Raises StepGivenUp before any noise is drawn, and Diverged."""
    found = batches.each(
        drawn,
        lambda: optimizer.zero_grad(set_to_none=True),
        clip,
        step_share=step / max(1, plan.steps - 1),
    )
    losses = torch.cat([torch.zeros(0), *(result.losses[:n].cpu() for n, result in found)])
    norms = torch.cat([torch.zeros(0), *(result.norms[:n].cpu() for n, result in found)])
    ranks.add_up(optimizer.params)
    planted.add()
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.start_step(step)
    optimizer.pre_step()
    if not finite(p.grad for p in optimizer.params):
        raise Diverged  # before the weights are touched
    optimizer.original_optimizer.step()
    planted.observe()
    if not finite(optimizer.params):
        raise Diverged
    of_all = ranks.all((losses, norms))
    losses_U, norms_U = (torch.cat(parts) for parts in zip(*of_all))
    figures = {
        "learning_rate": rate,
        "sample_rate": plan.rate_at(step),
        "noised_gradient_norm": norm_of_gradients(optimizer.params),
        **of_units(losses_U, norms_U, plan.max_grad_norm),
    }
    return event(step + 1, figures, private_plan=plan.private)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
