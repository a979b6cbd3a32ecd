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
from audits.group_scores import rows_explored, score_groups
from audits.models import LoadedModel, load
from audits.planting.canaries import CanarySet
from audits.planting.families import check_tokenizer, tokens_checked
from audits.planting.insertion import effective_exposures
from audits.planting.labels import Labels
from audits.private import PrivateCases, Rival, private_parts, rows_of_cases
from audits.subject import TESTS, Rules, judge, unscored, untestable
from audits.transcript import OpenLabels, Scored, score_all, transcript
from audits.verdict import power_of_tests
from dpmlm.artifacts import IntegrityError, UserError, digest

SCHEMA = "dpmlm.evidence/1"
_PACKAGES = ("torch", "transformers", "numpy", "scipy", "dp-accounting", "dpmlm-framework")

_DERIVED = frozenset({"digest", "sample_rate", "plateaus"})
"""What a run's plan.json adds to the fields that its digest is over."""

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
    labels: OpenLabels | None = None,
    commitment: str | None = None,
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

    `labels` is called with the transcript of all scores once they are there: it keeps that, and
    returns the labels of `canaries`, which need not be opened before. Without it the canaries have
    their labels, which are looked at then. `commitment` is what was published before training,
    where the plan does not say it.

    `private` adds attacks on private text. No secret, coin or text is in the result; parts labelled
    private hold counts and rates for the auditor. Raises UserError on an unfit plan, models of
    different vocabularies, or canaries beyond the model or without labels; IntegrityError when
    plan or commitment are of other canaries, the labels of others, or the tokenizer splits them
    otherwise than they were planned.
    """
    started = time.monotonic()
    terms = _terms(plan, canaries)
    bound = _check_commitment(terms, canaries, commitment)
    secrets, opener = canaries.without_labels(), _opener(canaries, labels)
    subjects = {"target": target, "control": control, "untrained": untrained}
    models = {name: _loaded(value) for name, value in subjects.items()}
    given = _loaded(reference)
    calibrator = models["untrained"] or given  # a reference may have seen the canaries
    rival, cases = _rival(given, models), private or PrivateCases()
    _check_vocabularies(models, calibrator)
    attacked = models["target"]
    assert attacked is not None
    check_tokenizer(secrets, attacked.tokenizer)
    rules, claim = _rules(terms, secrets, beta, guesses_per_side, threshold_bits)
    references = _references(given, models)
    total = _rows(models, given, secrets) + rows_of_cases(cases, attacked, rival, references)
    count = _Count(total, progress)
    scored = score_all(models, calibrator, secrets.canaries, count) if secrets.canaries else {}
    explored = score_groups(secrets, _compared(models), progress=count)
    answers = _spelled(transcript(secrets, scored, explored))
    opened = secrets.with_labels(opener(answers)).opened
    judged = _judge_all(models, scored, secrets, opened, rules)
    evidence = {
        "schema": SCHEMA,
        "claim": claim,
        "declared": {
            **_declared(secrets, terms, rules, calibrator, calibrator is given),
            "pre_registered": bound is not None,
            "bound_by": bound,
        },
        "transcripts": {"digest": digest(answers), "kept": labels is not None},
        "subjects": judged,
        "power": power_of_tests(judged),
        "groups": explore(secrets, opened, explored, terms),
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
    given: LoadedModel | None, models: Mapping[str, LoadedModel | None]
) -> list[LoadedModel]:
    """Models that read none of the private text, the one that calibrates membership first."""
    target, untrained = models["target"], models["untrained"]
    others = {
        model.digest: model
        for model in (given or untrained, models["control"], untrained)
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


def _terms(plan: Mapping[str, Any] | str | Path, canaries: CanarySet) -> dict[str, Any]:
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
    _check_units(plan, canaries)
    numbers = {name: float(plan[name]) for name in ("epsilon", "delta", "noise_multiplier")}
    return {**plan, **numbers, "digest": plan_digest(plan)}


def _check_units(plan: Mapping[str, Any], canaries: CanarySet) -> None:
    """A plan counts its units, canaries among them as if every coin included its own."""
    units = plan.get("units")
    most = sum(canary.copies for group in canaries.every_group for canary in group.canaries)
    if isinstance(units, int | float) and units < most:
        raise UserError(
            f"a plan of {units:g} units with canaries of {most}",
            "canaries count as units of the plan, so it has at least as many",
            "pass the plan that these canaries were planted under",
        )


def plan_digest(plan: Mapping[str, Any]) -> str:
    """Identity of a plan: over what it fixes, whatever digest it says of itself."""
    added = _DERIVED if "schema" in plan else {"digest"}
    try:
        return digest(_spelled({name: plan[name] for name in plan if name not in added}))
    except (ValueError, RecursionError):  # half a character in a text, or nested too deep
        raise UserError(
            "a plan", "no digest can be made of it", "pass the plan.json of the run"
        ) from None


def _check_commitment(
    plan: Mapping[str, Any], canaries: CanarySet, public: str | None
) -> str | None:
    """What binds the canaries: the plan, a public file whose date nobody knows here, or nothing.

    What does must be theirs.
    """
    bound = (plan.get("bindings") or {}).get("canary_commitment")
    for value, told in ((bound, "the plan was made for"), (public, "what was published is")):
        if value is not None and value != canaries.commitment:
            raise IntegrityError(
                f"canaries with commitment {canaries.commitment}",
                f"{told} {value}",
                "pass the canaries that were drawn for this run",
            )
    return "plan" if bound is not None else "commitment file" if public is not None else None


def _opener(canaries: CanarySet, given: OpenLabels | None) -> OpenLabels:
    if given is not None:
        return given
    told = canaries.opened
    return lambda transcript: told


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
    no_test = untestable(epsilon, curve, copies, canaries.space_bits)
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
        "plan_digest": plan["digest"],
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
    scored: Mapping[str, Scored | None],
    canaries: CanarySet,
    labels: Labels,
    rules: Rules,
) -> dict[str, Any]:
    if not canaries.canaries:
        return {
            name: None if model is None else unscored(model, "the run had no canaries")
            for name, model in models.items()
        }
    return {
        name: None
        if one is None
        else judge(one.model, canaries, labels, one.scores, one.reference, rules)
        for name, one in scored.items()
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
        "vocabulary": canaries.vocabulary,
        "tokens_checked": tokens_checked(canaries),
        "family": canaries.family,
        "copies": canaries.copies,
        "effective_exposures": effective_exposures(plan, copies=canaries.copies, arm="exempt"),
        "score": "joint, centred over the alphabets, less the reference's",
        "why_joint": "a sum over positions: its ranks in the whole space are counted, not sampled",
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
    return scored * 2 * len(canaries.canaries) + explored * rows_explored(canaries)


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
