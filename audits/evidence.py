"""`audit`: from models, a plan and canaries to the evidence that a gate or a reader decides on."""

import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from audits.claim.gating import check_plan, needed_guesses, trade_off_curve
from audits.claim.power import DEFAULT_SHARE, best_guesses, smallest_caught
from audits.coverage import attacks
from audits.exploring import explore
from audits.exposures.exposure import default_threshold
from audits.models import LoadedModel, load
from audits.planting.canaries import CanarySet
from audits.planting.families import check_tokenizer
from audits.planting.insertion import effective_exposures
from audits.private import PrivateCases, Rival, private_parts, rows_of_cases
from audits.recheck import power_shown
from audits.subject import TESTS, Rules, Scores, judge, score, unscored
from dpmlm.artifacts import IntegrityError, UserError, digest

SCHEMA = "dpmlm.evidence/1"
_PACKAGES = ("torch", "transformers", "numpy", "scipy", "dp-accounting", "dpmlm-framework")

Subject = LoadedModel | str | Path
"""A model in memory, or the folder of a plain Hugging Face model."""


def audit(
    target: Subject,
    *,
    plan: Mapping[str, Any] | str | Path,
    canaries: CanarySet,
    control: Subject | None = None,
    untrained: Subject | None = None,
    reference: Subject | None = None,
    private: PrivateCases | None = None,
    beta: float = 0.05,
    guesses_per_side: int | None = None,
    threshold_bits: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Try to contradict the claim of `plan` on `target`; returns JSON evidence, `dpmlm.evidence/1`.

    `control` is trained without noise or clipping on public text and the same canaries: where no
    test rejects it, the audit had no power. `untrained` is the model before training: a test that
    rejects it is broken. `reference` calibrates membership scores (the untrained model stands in
    for it) and shows what a model says that never read the text (the control stands in for it).
    `plan` is a plan.json, parsed or by path, of which epsilon, delta, noise_multiplier,
    sample_rate and steps are read. `guesses_per_side` (see `best_guesses`) and
    `threshold_bits` (see `default_threshold`) are fixed before any score. `progress` is called
    with rows done and rows in all.

    `private` adds attacks on private text. No secret, coin or text is in the result; parts labelled
    private hold counts and rates for the auditor. Raises UserError on an unfit plan, models of
    different vocabularies, or canaries beyond the model; IntegrityError when the plan commits to
    other canaries, or the tokenizer splits them otherwise than they were planned.
    """
    started = time.monotonic()
    terms = _terms(plan)
    _check_commitment(terms, canaries)
    subjects = {"target": target, "control": control, "untrained": untrained}
    models = {name: _loaded(value) for name, value in subjects.items()}
    given = _loaded(reference)
    calibrator = given or models["untrained"]
    rival, cases = _rival(given, models), private or PrivateCases()
    _check_vocabularies(models, calibrator)
    attacked = models["target"]
    assert attacked is not None
    check_tokenizer(canaries, attacked.tokenizer)
    rules, claim = _rules(terms, canaries, beta, guesses_per_side, threshold_bits)
    references = _references(calibrator, models)
    total = _rows(models, given, canaries) + rows_of_cases(cases, attacked, rival, references)
    count = _Count(total, progress)
    judged = _judge_all(models, calibrator, canaries, rules, count)
    evidence = {
        "schema": SCHEMA,
        "claim": claim,
        "declared": _declared(canaries, terms, rules, calibrator, given is not None),
        "subjects": judged,
        "power": _power(judged),
        "groups": explore(canaries, _compared(models), terms, progress=count),
        **private_parts(cases, attacked, rival, references, terms, beta=beta, progress=count),
        "attacks": attacks(
            canaries=bool(canaries.canaries),
            control=control is not None,
            groups=[group.name for group in canaries.groups],
            cases=cases.given - (set() if rival else {"verbatim", "identifiers"}),
        ),
        "versions": _versions(),
        "seconds": round(time.monotonic() - started, 1),
    }
    spelled: dict[str, Any] = _spelled(evidence)
    return spelled


def _rival(given: LoadedModel | None, models: Mapping[str, LoadedModel | None]) -> Rival | None:
    """Whom verbatim extraction is held against: the likeliest to guess well without leaking.

    An untrained model says nothing of language, so every common phrase would count as gained.
    """
    found = {"given": given, "control": models["control"], "untrained": models["untrained"]}
    for name, model in found.items():
        if model is not None:
            return model, name
    return None


def _references(
    calibrator: LoadedModel | None, models: Mapping[str, LoadedModel | None]
) -> list[LoadedModel]:
    """Models that read none of the private text, the one that calibrates first."""
    target = models["target"]
    others = {
        model.digest: model
        for model in (calibrator, models["control"], models["untrained"])
        if model is not None and target is not None and model.digest != target.digest
    }
    return list(others.values())


def _compared(models: Mapping[str, LoadedModel | None]) -> dict[str, LoadedModel | None]:
    """Whom exploratory groups are looked at in: an untrained model has taken up none of them."""
    return {name: models[name] for name in ("target", "control")}


class _Count:
    """Adds up rows of many calls into one progress."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._total, self._done, self._progress = total, 0, progress

    def __call__(self, rows: int) -> None:
        self._done += rows
        if self._progress is not None:
            self._progress(self._done, self._total)


def _terms(plan: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    if not isinstance(plan, Mapping):
        try:
            plan = json.loads(Path(plan).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"plan {plan}", "it is read as a JSON file", "pass the plan.json of the run"
            ) from error
    if not isinstance(plan, Mapping):
        raise UserError("a plan", "it is a JSON object", "pass the plan.json of the run")
    check_plan(plan)
    numbers = {name: float(plan[name]) for name in ("epsilon", "delta", "noise_multiplier")}
    return {**plan, **numbers}


def _digest(plan: Mapping[str, Any]) -> str:
    """Identity of a plan that was written by hand."""
    try:
        return digest(_spelled(plan))
    except (ValueError, RecursionError):  # half a character in a text, or nested too deep
        raise UserError(
            "a plan", "no digest can be made of it", "pass the plan.json of the run"
        ) from None


def _check_commitment(plan: Mapping[str, Any], canaries: CanarySet) -> None:
    bound = (plan.get("bindings") or {}).get("canary_commitment")
    if bound is not None and bound != canaries.commitment:
        raise IntegrityError(
            f"canaries with commitment {canaries.commitment}",
            f"the plan was made for {bound}",
            "pass the canaries that were drawn for this run",
        )


def _loaded(subject: Subject | None) -> LoadedModel | None:
    return load(subject) if isinstance(subject, str | Path) else subject


def _check_vocabularies(
    models: Mapping[str, LoadedModel | None], reference: LoadedModel | None
) -> None:
    target = models["target"]
    for name, other in {**models, "reference": reference}.items():
        if target is None or other is None or other.tokenizer is target.tokenizer:
            continue
        if other.tokenizer.get_vocab() != target.tokenizer.get_vocab():
            raise UserError(
                f"a {name} model with another vocabulary than the target's",
                "token ids are compared, so all models share one vocabulary",
                f"leave the {name} out, or pass one of the same tokenizer",
            )


def _rules(
    plan: Mapping[str, Any],
    canaries: CanarySet,
    beta: float,
    per_side: int | None,
    threshold: float | None,
) -> tuple[Rules, dict[str, Any]]:
    """Fix every rule from public facts: the plan and the shape of the canary set."""
    private = math.isfinite(plan["epsilon"]) and plan["noise_multiplier"] > 0
    copies, delta = canaries.copies, plan["delta"]
    single = trade_off_curve(plan) if private else None
    curve = trade_off_curve(plan, copies) if private and copies > 1 else single
    recomputed = single.epsilon(delta) if single is not None else math.inf
    epsilon = plan["epsilon"]
    if curve is not None and copies > 1:
        epsilon = curve.epsilon(delta)
    no_test = None
    if curve is None:
        no_test = "the plan promises nothing (epsilon inf), so there is no claim to contradict"
    elif epsilon / math.log(2) >= canaries.space_bits:
        no_test = f"{copies} copies a canary: what the claim covers for them exceeds the space"
    count, level = len(canaries.canaries), beta / len(TESTS)
    if per_side is None and curve is not None and no_test is None:
        per_side = best_guesses(plan, count, curve, level, copies)
    per_side = per_side or max(1, int(DEFAULT_SHARE * count))
    multiple = None
    if curve is not None and no_test is None and 2 <= 2 * per_side <= count:
        needed = needed_guesses(count, 2 * per_side, curve, level)
        multiple = smallest_caught(plan, copies, count, 2 * per_side, needed, epsilon)
    if threshold is None:
        threshold = default_threshold(epsilon, delta, canaries.space_bits, level=level)
    claim = {
        "epsilon": _number(plan["epsilon"]),
        "delta": delta,
        "plan_digest": plan.get("digest") or _digest(plan),
        "recomputed_epsilon": _number(recomputed),
        "canary_epsilon": _number(epsilon),
    }
    rules = Rules(
        beta=beta,
        per_side=per_side,
        smallest_multiple=multiple,
        threshold_bits=threshold,
        epsilon=epsilon,
        delta=delta,
        curve=curve,
        no_test=no_test,
    )
    return rules, claim


def _judge_all(
    models: Mapping[str, LoadedModel | None],
    calibrator: LoadedModel | None,
    canaries: CanarySet,
    rules: Rules,
    count: _Count,
) -> dict[str, Any]:
    if not canaries.canaries:
        return {
            name: None if model is None else unscored(model, "the run had no canaries")
            for name, model in models.items()
        }
    scored: dict[int, Scores] = {}

    def of(model: LoadedModel) -> Scores:
        if id(model) not in scored:
            scored[id(model)] = score(model, canaries, count)
        return scored[id(model)]

    result: dict[str, Any] = {}
    for name, model in models.items():
        if model is None:
            result[name] = None
            continue
        # A model calibrated by itself scores zero everywhere, and guesses nothing.
        calibrated = calibrator is not None and calibrator.digest != model.digest
        reference = of(calibrator) if calibrated and calibrator is not None else None
        result[name] = judge(model, canaries, of(model), reference, rules)
    return result


def _power(judged: Mapping[str, Any]) -> dict[str, Any]:
    control, untrained = judged["control"], judged["untrained"]
    return {
        "control_rejected_by": control["rejected_by"] if control else None,
        "untrained_rejected_by": untrained["rejected_by"] if untrained else None,
        "status": "shown" if power_shown(control, untrained) else "not shown",
    }


def _declared(
    canaries: CanarySet,
    plan: Mapping[str, Any],
    rules: Rules,
    calibrator: LoadedModel | None,
    given: bool,
) -> dict[str, Any]:
    return {
        "beta": rules.beta,
        "correction": "Holm",
        "tests": list(TESTS),
        "guesses": 2 * rules.per_side,
        "threshold_bits": rules.threshold_bits,
        "commitment": canaries.commitment,
        "family": canaries.family,
        "copies": canaries.copies,
        "effective_exposures": effective_exposures(plan, copies=canaries.copies, arm="exempt"),
        "score": "joint, centred over the alphabets, less the reference's",
        "reference": (
            None
            if calibrator is None
            else {"model_digest": calibrator.digest, "is": "given" if given else "untrained"}
        ),
    }


def _rows(
    models: Mapping[str, LoadedModel | None], given: LoadedModel | None, canaries: CanarySet
) -> int:
    scored = len([model for model in (*models.values(), given) if model is not None])
    explored = len([model for model in _compared(models).values() if model is not None])
    others = sum(len(group.canaries) for group in canaries.groups)
    return scored * 2 * len(canaries.canaries) + explored * others


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def _number(value: float) -> float | str:
    """JSON has no infinity: it is written "inf"."""
    return value if math.isfinite(value) else str(value)


def _spelled(value: Any) -> Any:
    """`value` as plain JSON, numbers that it cannot spell as text."""
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return {name: _spelled(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    return value
