"""Membership inference on real records: does the model show whose text it was trained on?

Three attacks on one set of losses, which all models give on identical masks: the loss less the
reference's, LiRA offline, and RMIA. Each is held against what anybody could tell without the
model. Who was a member must have been drawn at random, or text and membership go together and the
attack measures that. Shapes: N records, Z population records, K reference models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from audits.models import LoadedModel
from audits.scores.masked_loss import masked_losses
from audits.scores.scoring import NOT_FINITE, Progress
from audits.statistics import holm
from audits.text import blind
from audits.text.roc import LEAST_UNITS, Scores, auc, auc_interval, gain, tpr_at
from dpmlm.artifacts import UserError

RATES = (0.01, 0.001)
"""False-alarm rates at which the hits are reported."""
LEAST_MODELS = 2
"""Reference models for a variance over them."""
PER_RECORD = 64
"""Reference models from which LiRA's variance is each record's own (Carlini et al. 2022)."""
LEAST_POPULATION = 30
"""Population records for RMIA's pairs."""


@dataclass(frozen=True)
class Record:
    """A text as token ids, and whose it is."""

    tokens: tuple[int, ...] = field(repr=False)
    """Token ids without special ones, at least one."""
    unit: str = field(repr=False)
    """The privacy unit, a person or a document; all records of one unit are on one side."""


@dataclass(frozen=True)
class MembershipCase:
    """Records whose membership was drawn at random, and some that only serve as a yardstick."""

    members: Sequence[Record] = field(repr=False)
    """Of units that were trained on."""
    non_members: Sequence[Record] = field(repr=False)
    """Of units that a coin, a keyed hash or the like held out; chosen as the members were."""
    randomised: bool
    """Whether membership was drawn so, whatever a text says and whenever it was written."""
    population: Sequence[Record] = field(default=(), repr=False)
    """Of other units that were held out; RMIA compares every record with each of them."""


def membership(
    target: LoadedModel,
    references: Sequence[LoadedModel],
    case: MembershipCase,
    *,
    masks: int = 20,
    ratio: float = 0.15,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Attack `target` on the records of `case`; returns private rates, never text or a record.

    `references` never trained on any record of the case; the first calibrates the loss, and all
    of them serve LiRA and RMIA. `record_level` has the attacks and the blind baselines with the
    same metrics, and `leaks`: the attacks whose area is above chance and above that of every
    blind baseline (DeLong's paired test over units), Holm over the attacks at 1 - confidence.
    `person_level` is the same with one score a unit, the mean over its records.

    Not applicable, with what is missing, where membership was not random, no reference is there,
    units are too few, or a score is not finite. Raises UserError on a unit on two sides.
    """
    _check_case(case)
    refused = _refusal(references, case)
    if refused:
        return {"label": "private", "applicable": False, **refused}
    records = [*case.members, *case.non_members, *case.population]
    losses = masked_losses(
        [target, *references],
        [record.tokens for record in records],
        masks=masks,
        ratio=ratio,
        seed=seed,
        progress=progress,
    )
    if not np.isfinite(losses).all():
        who = "a reference" if np.isfinite(losses[0]).all() else "the model"
        return {"label": "private", "applicable": False, "reason": f"{who}: {NOT_FINITE}"}
    asked = len(case.members) + len(case.non_members)
    attacks, skipped = _attacks(losses[:, :asked], losses[:, asked:])
    baselines = _baselines(records[:asked], len(case.members), losses[1, :asked], seed)
    both = {name: _split(score, case) for name, score in (attacks | baselines).items()}
    rules = _Rules(list(attacks), len(case.population), confidence, seed)
    return {
        "label": "private",
        "applicable": True,
        "records": {name: len(getattr(case, name)) for name in _SIDES},
        "units": {name: len({r.unit for r in getattr(case, name)}) for name in _SIDES},
        "references": len(references),
        "masks": masks,
        "ratio": ratio,
        "confidence": confidence,
        "record_level": _level(both, rules) | skipped,
        "person_level": _person_level(both, rules, asked),
    }


_SIDES = ("members", "non_members", "population")


def calibrated(target_N: np.ndarray, reference_N: np.ndarray) -> np.ndarray:
    """Loss of the reference less the target's: what training took off this very record."""
    return reference_N - target_N


def lira_offline(target_N: np.ndarray, references_KN: np.ndarray) -> np.ndarray:
    """How many standard deviations the target's loss is below models that never saw the record.

    Carlini et al. 2022 (arXiv 2112.03570), section V-C, with losses in place of logits. The
    deviation is pooled over records below 64 models, as a record's own from a handful is noise.
    """
    spread = references_KN.std(axis=0, ddof=1)
    if len(references_KN) < PER_RECORD:
        spread = np.full_like(spread, np.sqrt((spread**2).mean()))
    scores: np.ndarray = (references_KN.mean(axis=0) - target_N) / np.maximum(spread, 1e-12)
    return scores


def rmia(
    target_N: np.ndarray,
    references_KN: np.ndarray,
    target_Z: np.ndarray,
    references_KZ: np.ndarray,
    *,
    gamma: float = 1.0,
) -> np.ndarray:
    """Share of population records z that the record x beats: LR(x, z) >= gamma; float64 [N].

    Zarifzadeh, Liu, Shokri 2024 (arXiv 2312.03262), equation 8, offline: LR(x, z) is
    p(x | model)/p(x) over the same of z. p(x | model) is the geometric mean probability of a
    masked token, exp(-loss), and p(x) its mean over models that never saw x (their a = 1, as
    tokens' probabilities are far from 1). With one reference it orders records as `calibrated`
    does, but for ties: then it is the same evidence with a threshold that a population sets.
    """
    own = _log_ratio(target_N, references_KN)
    population = np.sort(_log_ratio(target_Z, references_KZ))
    beaten = np.searchsorted(population, own - np.log(gamma), side="right")
    return np.asarray(beaten / len(population), dtype=np.float64)


def _log_ratio(target: np.ndarray, references: np.ndarray) -> np.ndarray:
    """log of p(x | model)/p(x)."""
    typical = np.logaddexp.reduce(-references, axis=0) - np.log(len(references))
    return np.asarray(-target - typical, dtype=np.float64)


def _attacks(
    losses: np.ndarray, population: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Scores of the attacks that can be run, and why the others cannot."""
    scores = {"calibrated_loss": calibrated(losses[0], losses[1])}
    skipped = {}
    models = len(losses) - 1
    if models >= LEAST_MODELS:
        scores["lira_offline"] = lira_offline(losses[0], losses[1:])
    else:
        skipped["lira_offline"] = _too_few(models, LEAST_MODELS, "reference models")
    if population.shape[1] >= LEAST_POPULATION:
        scores["rmia"] = rmia(losses[0], losses[1:], population[0], population[1:])
    else:
        skipped["rmia"] = _too_few(population.shape[1], LEAST_POPULATION, "population records")
    return scores, {"skipped": skipped}


def _baselines(
    records: Sequence[Record], members: int, reference: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    member = np.arange(len(records)) < members
    units = np.unique([record.unit for record in records], return_inverse=True)[1]
    rows = [record.tokens for record in records]
    lengths = np.array([float(len(row)) for row in rows])
    return {
        "reference_alone": blind.directed(-reference, member, units, seed=seed),
        "bag_of_words": blind.bag_of_words(rows, member, units, seed=seed),
        "length": blind.directed(lengths, member, units, seed=seed),
    }


def _split(scores: np.ndarray, case: MembershipCase) -> Scores:
    count = len(case.members)
    units = [[record.unit for record in side] for side in (case.members, case.non_members)]
    return Scores.of(scores[:count], scores[count:], *units)


@dataclass(frozen=True)
class _Rules:
    attacks: list[str]
    population: int
    confidence: float
    seed: int


def _level(scores: Mapping[str, Scores], rules: _Rules) -> dict[str, Any]:
    rivals = {name: score for name, score in scores.items() if name not in rules.attacks}
    found = {name: _metrics(name, score, rules) for name, score in scores.items()}
    above = {name: above_blind(scores[name], rivals, rules.confidence) for name in rules.attacks}
    p_values = {name: value["p_value"] for name, value in above.items()}
    return {
        "attacks": {name: found[name] | {"above_blind": above[name]} for name in rules.attacks},
        "blind": {name: found[name] for name in rivals},
        "leaks": holm(p_values, 1 - rules.confidence),
    }


def _person_level(scores: Mapping[str, Scores], rules: _Rules, records: int) -> dict[str, Any]:
    merged = {name: score.by_unit() for name, score in scores.items()}
    some = next(iter(merged.values()))
    if len(some.positive) + len(some.negative) == records:
        reason = "every unit has one record: this level is the record level"
        return {"applicable": False, "reason": reason}
    return {"applicable": True, **_level(merged, rules)}


def _metrics(name: str, scores: Scores, rules: _Rules) -> dict[str, Any]:
    hits = {}
    for rate in RATES:
        needed = round(1 / rate)
        if name == "rmia" and rules.population < needed:
            # It counts in steps of one population record, so too many scores would be 1.
            hits[f"{rate:g}"] = _too_few(rules.population, needed, "population records")
        else:
            hits[f"{rate:g}"] = tpr_at(scores, rate, seed=rules.seed, confidence=rules.confidence)
    return {
        "auc": auc(scores),
        "auc_interval": auc_interval(scores, rules.confidence),
        "tpr_at": hits,
    }


def above_blind(attack: Scores, rivals: Mapping[str, Scores], confidence: float) -> dict[str, Any]:
    """The attack against the rival that it beats least: to beat all is to beat that one.

    An intersection-union test, so the largest p-value is valid without a correction.
    """
    compared = {name: gain(attack, rival, confidence) for name, rival in rivals.items()}
    compared["chance"] = gain(attack, None, confidence)
    name = max(compared, key=lambda other: compared[other][2])
    difference, interval, p_value = compared[name]
    return {"rival": name, "gain": difference, "gain_interval": interval, "p_value": p_value}


def _refusal(references: Sequence[LoadedModel], case: MembershipCase) -> dict[str, Any] | None:
    """Why nothing can be said, with the number that is missing; None where something can."""
    if not case.randomised:
        return {
            "reason": "membership was not drawn at random, so text alone may tell it: hold units "
            "out by a keyed hash or a coin before training"
        }
    if not references:
        return _too_few(0, 1, "reference models that never saw the records")
    for name in ("members", "non_members"):
        units = len({record.unit for record in getattr(case, name)})
        if units < LEAST_UNITS:
            return _too_few(units, LEAST_UNITS, f"units among the {name.replace('_', '-')}")
    return None


def _too_few(there: int, needed: int, what: str) -> dict[str, Any]:
    reason = f"it needs {needed} {what}; there are {there}"
    return {"applicable": False, "reason": reason, "missing": needed - there}


def _check_case(case: MembershipCase) -> None:
    units = [{record.unit for record in getattr(case, name)} for name in _SIDES]
    if len(set().union(*units)) != sum(map(len, units)):
        raise UserError(
            "a membership case with a unit on two sides",
            "a unit is a member, held out, or of the population",
            "split by unit, not by record",
        )
