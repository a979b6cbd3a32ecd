"""Gradient canaries in a run: drawn beside the canaries of text, planted in its training, judged.

Coins and directions' seed are sealed in the stage `canaries` and committed to in the plan; what
noised sums say along the directions is sealed in the stage `training`. The control has none: it
clips nothing, so that there is no norm for them to have.
"""

from typing import Any

from audits.claim.whitebox import (
    COMMITMENT,
    GradientCanarySet,
    Transcript,
    plan_gradient_canaries,
)
from dpmlm.artifacts import SealedFolder
from dpmlm.pipeline.context import Run
from dpmlm.privacy import PrivacyPlan
from dpmlm.training import NO_GRADIENT_CANARIES, GradientCanaries, Progress


def draw_gradient_canaries(count: int, folder: SealedFolder) -> dict[str, Any]:
    """Draw and seal them; returns what of them is public, empty where none are asked for."""
    if not count:
        return {}
    drawn = plan_gradient_canaries(count)
    drawn.write(folder)
    return {"gradient_canaries": drawn.public()}


def gradient_bindings(canaries: SealedFolder) -> dict[str, str]:
    """What binds them to the plan; nothing in a run without them."""
    drawn = GradientCanarySet.read(canaries)
    return {} if drawn is None else {COMMITMENT: drawn.commitment}


def planted_gradients(run: Run) -> GradientCanaries:
    """Those that this run's training includes."""
    drawn = GradientCanarySet.read(run.folder("canaries"))
    return NO_GRADIENT_CANARIES if drawn is None else gradient_units(drawn)


def gradient_units(drawn: GradientCanarySet) -> GradientCanaries:
    """The drawn ones as a training takes them."""
    return GradientCanaries(len(drawn.included), drawn.members, bytes.fromhex(drawn.seed))


def transcript_of(progress: Progress, plan: PrivacyPlan) -> Transcript | None:
    """What the training saw of them; None of one without them."""
    if progress.transcript is None:
        return None
    return Transcript(progress.transcript, plan.digest, str(plan.bindings[COMMITMENT]))


def keep_transcript(folder: SealedFolder, progress: Progress, plan: PrivacyPlan) -> None:
    """Seal what the training saw of them beside its model."""
    transcript = transcript_of(progress, plan)
    if transcript is not None:
        transcript.write(folder)


def kept_gradients(run: Run) -> tuple[GradientCanarySet, Transcript] | None:
    """What the audits judge them by; None in a run without them."""
    drawn = GradientCanarySet.read(run.folder("canaries"))
    return None if drawn is None else (drawn, Transcript.read(run.folder("training")))
