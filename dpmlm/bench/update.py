"""What happens once a logical batch: the optimizer's step, and the noise before it."""

from dpmlm.bench.models import Workload
from dpmlm.bench.steps import MAX_GRAD_NORM, Step
from dpmlm.bench.timing import WARM_UP, Failure, Timing, attempt, seconds_of, timing_of
from dpmlm.privacy import PrivacyPlan, SecretStream
from dpmlm.training import SecureDPOptimizer
from dpmlm.training.optimizer import adamw

UPDATES = {
    "plain": "AdamW",
    "private": "noise from the cipher stream for every trainable number, then AdamW",
}
"""Column -> what its update does."""


def time_updates(
    work: Workload, steps: dict[str, Step], repeats: int
) -> dict[str, Timing | Failure]:
    """Seconds of the update of each column in `steps` that has one; their weights change."""
    return {
        name: attempt(_time, work, name, steps[name], repeats) for name in UPDATES if name in steps
    }


def _time(work: Workload, name: str, step: Step, repeats: int) -> Timing:
    optimizer = adamw(step.model, 1e-4, 0.01)
    private = SecureDPOptimizer(optimizer, _plan(work, repeats), SecretStream.from_os())
    step.run(work.batch())
    turns = []
    for turn in range(WARM_UP + repeats):
        private.start_step(turn)
        turns.append(seconds_of((optimizer if name == "plain" else private).step, work.device))
    step.clear()
    return timing_of(turns[WARM_UP:])  # the first makes the optimizer's state


def _plan(work: Workload, repeats: int) -> PrivacyPlan:
    """A plan with some noise: how much does not change the time."""
    return PrivacyPlan(
        epsilon=8.0,
        delta=1e-6,
        units=1000 * work.rows,
        unit="document",
        expected_batch_size=work.rows,
        steps=WARM_UP + repeats,
        max_grad_norm=MAX_GRAD_NORM,
        accountant="rdp",
        noise_multiplier=1.0,
        scope="source corpus",
    )
