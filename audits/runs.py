"""Several independent trainings of one plan: a bound from nothing but counts of right guesses.

    python -m audits.runs MODEL_DIR... --canaries FILE... --plan plan.json

Each training has canaries of its own, of which the first is declared; it is guessed IN where it
scores above the median of the training's other canaries. So a guess follows from one model and from
coins that are independent of the one that is guessed: under the claim it is right as often as
(epsilon, delta) lets it be, and guesses of different trainings are independent, which is what
Clopper-Pearson limits on their errors take (Nasr et al. 2021, arXiv 2101.04535).

It is weak: trainings with the canary and without it are needed, at least six of each, and the
ceiling of the bound grows with the logarithm of their number.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audits.claim.gating import check_plan
from audits.files import labels_beside, read_claim, read_labels, read_set, refuse_absent
from audits.models import LoadedModel, load
from audits.planting.canaries import CanarySet
from audits.planting.families import check_tokenizer
from audits.scores.scoring import NOT_FINITE, joint_logprobs
from audits.statistics import fewest_runs, several_runs_epsilon
from audits.subject import membership_scores
from dpmlm.artifacts import Identity, IntegrityError, UserError, canonical_json, load_identity

SCHEMA = "dpmlm.several-runs/1"


def several_runs(
    trainings: Sequence[tuple[LoadedModel, CanarySet]],
    plan: Mapping[str, Any],
    *,
    reference: LoadedModel | None = None,
    beta: float = 0.05,
) -> dict[str, Any]:
    """Lower bound on epsilon from one guess a training; JSON-able, `dpmlm.several-runs/1`.

    `plan` is the claim that all were trained under; `reference`, a model that none of them made,
    calibrates scores. Raises UserError when two trainings share a model or canaries, when a canary
    has several copies, and with the number that is missing when there are too few trainings.
    """
    check_plan(plan)
    _check_independent(trainings)
    guessed = np.array([_guess(model, canaries, reference) for model, canaries in trainings])
    coins = np.array([canaries.opened.of(canaries.canaries[:1])[0] for _, canaries in trainings])
    runs: dict[str, Any] = {"in_runs": int(coins.sum()), "out_runs": int((~coins).sum())}
    wrong = {
        "false_negatives": int((coins & ~guessed).sum()),
        "false_positives": int((~coins & guessed).sum()),
    }
    claim, delta = float(plan["epsilon"]), float(plan["delta"])
    bound = several_runs_epsilon(**runs, **wrong, delta=delta, beta=beta)
    flawless = dict.fromkeys(wrong, 0)
    return {
        "schema": SCHEMA,
        "claim": {"epsilon": claim if math.isfinite(claim) else "inf", "delta": delta},
        "beta": beta,
        **runs,
        **wrong,
        "epsilon": bound,
        "ceiling": several_runs_epsilon(**runs, **flawless, delta=delta, beta=beta),
        "runs_for_claim": fewest_runs(delta, beta, claim) if math.isfinite(claim) else None,
        "exceeds_claim": bound > claim,
    }


def guessed_in(scores: np.ndarray) -> bool:
    """Whether the first of a training's scores, float64 [canaries], is above the others' median."""
    return bool(scores[0] > np.median(scores[1:]))


def told(found: Mapping[str, Any]) -> str:
    """For a terminal: counts, bound, and what so many trainings could show."""
    epsilon, needed = found["claim"]["epsilon"], found["runs_for_claim"]
    lines = [
        f"guesses  {found['false_negatives']} wrong of {found['in_runs']} trainings with their "
        f"declared canary, {found['false_positives']} wrong of {found['out_runs']} without it",
        f"bound    epsilon is at least {found['epsilon']:.2f} (at most {found['ceiling']:.2f} can "
        "be shown by so many)",
    ]
    if found["exceeds_claim"]:
        return "\n".join([f"CONTRADICTED: the claim is epsilon {epsilon:g}", *lines])
    if needed is None:
        return "\n".join(["no claim was tested: the plan promises nothing", *lines])
    weak = (
        f"not contradicted: the claim is epsilon {epsilon:g}, which takes {needed} trainings of "
        "each kind to contradict, all guessed right"
    )
    return "\n".join([weak, *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where the claim is not contradicted, 1 where it is, 2 where nothing can be said."""
    options = _parser().parse_args(arguments)
    try:
        found = several_runs(
            _read(options.models, options.canaries, options.identity),
            read_claim(options.plan),
            reference=load(options.reference) if options.reference else None,
            beta=options.beta,
        )
    except (UserError, IntegrityError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(canonical_json(found).decode() if options.json else told(found))
    return 1 if found["exceeds_claim"] else 0


def _guess(model: LoadedModel, canaries: CanarySet, reference: LoadedModel | None) -> bool:
    check_tokenizer(canaries, model.tokenizer)
    rows = canaries.canaries
    calibration = None if reference is None else joint_logprobs(reference, rows)
    scores = membership_scores(rows, joint_logprobs(model, rows), calibration)
    if not np.isfinite(scores).all():
        raise UserError(f"a model with digest {model.digest}", NOT_FINITE, "leave its training out")
    return guessed_in(scores)


def _check_independent(trainings: Sequence[tuple[LoadedModel, CanarySet]]) -> None:
    for what, names in (
        ("model", [model.digest for model, _ in trainings]),
        ("set of canaries", [canaries.commitment for _, canaries in trainings]),
    ):
        if len(set(names)) < len(names):
            raise UserError(
                f"one {what} in two trainings",
                "trainings are independent, each with coins of its own",
                "draw canaries anew for every training",
            )
    for _, canaries in trainings:
        if len(canaries.canaries) < 2 or canaries.copies != 1:
            raise UserError(
                f"{len(canaries.canaries)} canaries of {canaries.copies} copies",
                "one canary is guessed by the scores of others, each of one copy",
                "plan 100 canaries with one copy each",
            )


def _read(
    models: Sequence[Path], canaries: Sequence[Path], identity: Path | None
) -> list[tuple[LoadedModel, CanarySet]]:
    if len(models) != len(canaries):
        raise UserError(
            f"{len(models)} models and {len(canaries)} files of canaries",
            "every training has canaries of its own, named in the order of the models",
            "name as many of either",
        )
    keys = [load_identity(identity)] if identity else []
    for file in canaries:
        refuse_absent(labels_beside(file))
    return [(load(model, keys), _joined(file, keys)) for model, file in zip(models, canaries)]


def _joined(file: Path, keys: Sequence[Identity]) -> CanarySet:
    labels = read_labels(labels_beside(file), keys)
    return read_set(file, keys, "--canaries").with_labels(labels)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m audits.runs",
        description="Bound epsilon from several independent trainings of one plan, each with"
        " canaries of its own, of which the first is guessed.",
        epilog="Exit status: 0 the claim is not contradicted, 1 it is, 2 bad input or too few"
        " trainings.",
    )
    add = parser.add_argument
    add("models", type=Path, nargs="+", metavar="MODEL_DIR", help="model of each training")
    add(
        "--canaries",
        type=Path,
        nargs="+",
        required=True,
        help="its canaries, in that order; labels beside them",
    )
    add("--plan", type=Path, required=True, help="JSON with the claim that all were trained under")
    add("--reference", type=Path, help="a model that none of them made: the one before training")
    add("--identity", type=Path, help="private key for sealed folders")
    add("--beta", type=float, default=0.05, help="false alarms")
    add("--json", action="store_true", help="one JSON object on standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
