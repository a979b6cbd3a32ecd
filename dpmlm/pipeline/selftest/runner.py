"""`selftest`: train with each fault and with none, over seeds, and ask everybody what they see."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import audits
from audits.models import LoadedModel
from audits.subject import TESTS
from dpmlm.errors import UserError
from dpmlm.pipeline.models import control_plan
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.selftest import checks
from dpmlm.pipeline.selftest.faults import CORRECT, FAULTS, Fault
from dpmlm.pipeline.selftest.result import CONTROL, SelfTest, Trial
from dpmlm.pipeline.selftest.world import Size, World
from dpmlm.privacy import PrivacyPlan

SEEDS = 2
"""Of the command: about three minutes of a core."""


def selftest(
    *,
    seeds: int | Iterable[int] = SEEDS,
    faults: Sequence[str] | None = None,
    epsilon: float = 8.0,
    beta: float = 0.05,
    size: Size | None = None,
    progress: Report = lambda done, total: None,
) -> SelfTest:
    """Train the control, the correct run and each fault once a seed; about ten seconds each.

    `seeds` are numbers, or how many from 0 on; `faults` names some of `FAULTS`, none of them if
    empty. `epsilon` is what all plans claim, `beta` the error budget of the audits in a seed.
    `progress` gets (trainings done, trainings in all). All text is made up, so nothing that is
    returned is private. Raises UserError for a fault that is not known and for no seed.
    """
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not numbers:
        raise UserError(
            "no seed", "a fault that is never planted is never caught", "give 1 or more"
        )
    chosen = _chosen(faults)
    trials: list[Trial] = []
    total = len(numbers) * (len(chosen) + 2)
    for seed in numbers:
        for trial in _one_seed(World.of(seed, size or Size()), seed, chosen, epsilon, beta):
            trials.append(trial)
            progress(len(trials), total)
    return SelfTest(trials, beta=beta)


def _chosen(names: Sequence[str] | None) -> list[Fault]:
    if names is None:
        return list(FAULTS)
    known = {fault.name: fault for fault in FAULTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"fault {unknown[0]!r}", f"the faults are {', '.join(known)}", "name one of them"
        )
    return [known[name] for name in names]


def _one_seed(
    world: World, seed: int, faults: Sequence[Fault], epsilon: float, beta: float
) -> Iterable[Trial]:
    begun = time.process_time()
    honest = world.plan(epsilon)
    control = world.train(world.people(), control_plan(honest))
    evidence = _audited(world, control, honest, beta, alone=True)
    yield _trial(CONTROL, seed, evidence, epsilon, float("inf"), {}, begun)
    for fault in (CORRECT, *faults):
        begun = time.process_time()
        people = world.people()
        with fault.plant():
            plan = world.plan(epsilon)
            model = world.train(people, plan)
            found = {name: check(world, plan) for name, check in checks.OF_CODE.items()}
        found["sampling"] = checks.sampling(people, plan)
        found["accountant"] = checks.accountant(plan)
        kept = fault.epsilon(plan, world.size.documents)
        evidence = _audited(world, model, plan, beta, alone=fault is not CORRECT)
        yield _trial(fault.name, seed, evidence, epsilon, kept, found, begun)


def _audited(
    world: World, target: LoadedModel, plan: PrivacyPlan, beta: float, *, alone: bool
) -> dict[str, Any]:
    """What the audits say of one model, and, unless `alone`, of the one before training, which
    calibrates the scores either way. Whoever rejects gets a column."""
    return audits.audit(
        target,
        plan=plan.to_json(),
        canaries=world.canaries,
        untrained=None if alone else world.untrained,
        reference=world.untrained if alone else None,
        beta=beta,
        guesses_per_side=world.size.guesses_per_side,
    )


def _trial(
    name: str,
    seed: int,
    evidence: dict[str, Any],
    claimed: float,
    kept: float,
    found: dict[str, str],
    begun: float,
) -> Trial:
    target, untrained = evidence["subjects"]["target"], evidence["subjects"]["untrained"]
    return Trial(
        name=name,
        seed=seed,
        claimed=claimed,
        kept=kept,
        p_values={test: target[test].get("p_value") for test in TESTS},
        rejected_by=tuple(target["rejected_by"]),
        untrained_rejected_by=tuple(untrained["rejected_by"] if untrained else ()),
        right=target["gating"].get("correct"),
        guesses=target["gating"].get("guesses"),
        bound=target["lower_bound"].get("fdp_one_run"),
        checks=found,
        seconds=round(time.process_time() - begun, 1),
    )
