"""The transcript: what each model says of each canary, written before any label is opened.

A score is a function of a model and a secret. Whoever computes it has no coin; whoever judges it
later can show by the transcript's digest that the scores were there before the coins were.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from audits.exposures.exposure import Exposure
from audits.extraction import extracted
from audits.group_scores import Answer, GroupsScored
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.planting.canary import Canary
from audits.planting.labels import Labels
from audits.scores.scoring import Progress, secret_positions
from audits.subject import Scores, membership_scores, score

SCHEMA = "dpmlm.transcript/1"

OpenLabels = Callable[[Mapping[str, Any]], Labels]
"""Takes the transcript, keeps it, and only then opens the labels."""


class Scored(NamedTuple):
    """A model's answers, and those of the model that calibrates them."""

    model: LoadedModel
    scores: Scores
    reference: Scores | None
    """None where nothing calibrates the model, or it would calibrate itself."""


def score_all(
    models: Mapping[str, LoadedModel | None],
    calibrator: LoadedModel | None,
    canaries: Sequence[Canary],
    progress: Progress | None = None,
) -> dict[str, Scored | None]:
    """Every model on every gating canary, each model once; None for a model that is not there."""
    kept: dict[int, Scores] = {}

    def of(model: LoadedModel) -> Scores:
        if id(model) not in kept:
            kept[id(model)] = score(model, canaries, progress)
        return kept[id(model)]

    result: dict[str, Scored | None] = {}
    for name, model in models.items():
        if model is None:
            result[name] = None
            continue
        # A model calibrated by itself scores zero everywhere, and guesses nothing.
        calibrated = calibrator is not None and calibrator.digest != model.digest
        reference = of(calibrator) if calibrated and calibrator is not None else None
        result[name] = Scored(model, of(model), reference)
    return result


def transcript(
    canaries: CanarySet, scored: Mapping[str, Scored | None], groups: GroupsScored
) -> dict[str, Any]:
    """JSON of all scores, by subject and canary id; it says nothing of who was included.

    `joint` is the joint log-probability of the secret (nats),
    `membership` the score that guesses are made by, `hit` whether the secret was read out. Of
    groups, by score: the exact exposure (bits), or how many of `others` drawn alike are `as_high`.
    """
    subjects = {
        name: None
        if one is None
        else {
            "model_digest": one.model.digest,
            "canaries": _rows(canaries.canaries, one.scores, one.reference),
        }
        for name, one in scored.items()
    }
    explored = {
        group.name: {
            name: None
            if answers is None
            else {rule: _group_rows(group.canaries, answer) for rule, answer in answers.items()}
            for name, answers in groups[group.name].items()
        }
        for group in canaries.groups
    }
    return {
        "schema": SCHEMA,
        "commitment": canaries.commitment,
        "subjects": subjects,
        "groups": explored,
    }


def _group_rows(rows: Sequence[Canary], answer: Answer) -> dict[str, Any]:
    """Of each canary that was scored its exposure, or how many of some others score as high."""
    told: dict[str, Any] = {}
    for at, (canary, found) in enumerate(zip(rows, answer.found)):
        if isinstance(found, Exposure):
            told[canary.id] = {"bits": found.conservative, "bits_optimistic": found.optimistic}
        else:
            own, others = found
            as_high = int((others >= own).sum())
            told[canary.id] = {"score": own, "as_high": as_high, "others": len(others)}
        if answer.extracted is not None:
            told[canary.id]["hit"] = bool(answer.extracted[at])
    return told


def _rows(rows: Sequence[Canary], scores: Scores, reference: Scores | None) -> dict[str, Any]:
    if not rows:
        return {}
    index = secret_positions(rows)[:, :, None]
    joint = np.take_along_axis(scores.logprobs, index, axis=2)[:, :, 0].sum(axis=1)
    calibrated = None if reference is None else reference.logprobs
    membership = membership_scores(rows, scores.logprobs, calibrated)
    hits = extracted(rows, scores.logprobs, scores.decoded)
    return {
        canary.id: {"joint": float(own), "membership": float(guess), "hit": bool(hit)}
        for canary, own, guess, hit in zip(rows, joint, membership, hits, strict=True)
    }
