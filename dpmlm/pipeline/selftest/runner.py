"""`selftest`: train with each fault and with none, over seeds, and ask everybody what they see."""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import audits
from audits.claim import whitebox
from audits.models import LoadedModel
from audits.subject import TESTS
from audits.verdict import verdict_of
from dpmlm.errors import UserError
from dpmlm.pipeline.models import control_plan
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.selftest import checks
from dpmlm.pipeline.selftest.faults import CORRECT, FAULTS, Fault
from dpmlm.pipeline.selftest.result import BLACK_BOX, CODE, CONTROL, WHITE_BOX, SelfTest, Trial
from dpmlm.pipeline.selftest.world import Size, World
from dpmlm.privacy import PrivacyPlan

SEEDS = 2
"""Of the command: three and a half minutes of a core."""


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
    returned is private. Raises UserError for a fault that is not known, for no seed, and for an
    epsilon or beta that nothing can be tested at.
    """
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not numbers:
        raise UserError(
            "no seed", "a fault that is never planted is never caught", "give 1 or more"
        )
    if not 0 < epsilon < math.inf:
        raise UserError(
            f"epsilon {epsilon:g}",
            "plans claim a positive, finite epsilon, or there is nothing to contradict",
            "leave it at 8",
        )
    if not 1e-3 <= beta < 0.5:
        raise UserError(f"beta {beta:g}", "it lies between 0.001 and 0.5", "leave it at 0.05")
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
    return [known[name] for name in dict.fromkeys(names)]


def _one_seed(
    world: World, seed: int, faults: Sequence[Fault], epsilon: float, beta: float
) -> Iterable[Trial]:
    begun = time.process_time()
    honest = world.plan(epsilon)
    control, _ = world.train(world.people(), control_plan(honest))
    evidence = _audited(world, control, honest, beta, alone=True)
    yield _trial(CONTROL, seed, epsilon, math.inf, evidence, {}, {}, begun)
    for fault in (CORRECT, *faults):
        begun = time.process_time()
        people = world.people()
        with fault.plant():
            plan = world.plan(epsilon)
            model, transcript = world.train(people, plan)
            found = {name: check(world, plan) for name, check in checks.OF_CODE.items()}
        found["sampling"] = checks.sampling(people, plan)
        found["accountant"] = checks.accountant(plan)
        kept = fault.epsilon(plan, world.size.documents)
        evidence = _audited(world, model, plan, beta, alone=fault is not CORRECT)
        assert transcript is not None  # every plan but the control's has noise
        white = whitebox.judge_whitebox(world.gradients, transcript, plan.to_json(), beta=beta)
        yield _trial(fault.name, seed, epsilon, kept, evidence, white, found, begun)


def _audited(
    world: World, target: LoadedModel, plan: PrivacyPlan, beta: float, *, alone: bool
) -> dict[str, Any]:
    """What the audits say of one model, and, unless `alone`, of the one before training, which
    calibrates the scores either way."""
    return audits.audit(
        target,
        plan=plan.to_json(),
        canaries=world.canaries,
        untrained=None if alone else world.untrained,
        reference=world.untrained if alone else None,
        beta=beta,
    )


def _trial(
    name: str,
    seed: int,
    claimed: float,
    kept: float,
    evidence: dict[str, Any],
    white: dict[str, Any],
    checked: dict[str, str],
    begun: float,
) -> Trial:
    target, untrained = evidence["subjects"]["target"], evidence["subjects"]["untrained"]
    parts = {BLACK_BOX: (target, TESTS), WHITE_BOX: (white, whitebox.TESTS if white else ())}
    found = {
        kind: {test: _words(part[test]) for test in tests if test in part["rejected_by"]}
        for kind, (part, tests) in parts.items()
    }
    verdict = verdict_of(evidence)
    if verdict.word == "FAIL" and not found[BLACK_BOX]:
        found[BLACK_BOX]["verdict"] = verdict.reason
    return Trial(
        name=name,
        seed=seed,
        claimed=claimed,
        kept=kept,
        found=found | {CODE: {check: words for check, words in checked.items() if words}},
        p_values={
            kind: {test: part[test].get("p_value") for test in tests}
            for kind, (part, tests) in parts.items()
        },
        untrained_rejected_by=tuple(untrained["rejected_by"] if untrained else ()),
        right=target["gating"].get("correct"),
        guesses=target["gating"].get("guesses"),
        seconds=round(time.process_time() - begun, 1),
    )


def _words(part: dict[str, Any]) -> str:
    """Why a test rejects."""
    if "measured" in part:
        return f"{part['measured'] / part['expected']:.2f} of the planned"
    return f"p {part['p_value']:.1g}"
