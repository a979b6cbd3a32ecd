"""`statement`: the privacy claim as one sentence with every blank filled."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version
from typing import Any

from dpmlm.errors import UserError
from dpmlm.privacy.accountants import describe
from dpmlm.privacy.ancestor import ancestor_of, ancestor_sentence
from dpmlm.privacy.details import details, epsilon_by_accountant
from dpmlm.privacy.plan import PrivacyPlan

SCHEMA = "dpmlm.statement/1"
PACKAGES = ("dpmlm-framework", "torch", "opacus", "dp-accounting", "cryptography")
"""Whose versions a statement names: they draw, add up and count."""
ROUNDING = {
    "gaussian": "rounding of the clipped sum and of the noise",
    "discrete_gaussian": "rounding of the clipped sum, before its noise,",
}
"""What no accountant covers, by kind of noise."""


@dataclass(frozen=True)
class Statement:
    """What a release promises, for people (`sentence`, `note`) and programs (`fields`)."""

    sentence: str
    """The claim."""
    note: str
    """How many steps survive in the model, how many the ledger was charged for, and its cap."""
    fields: Mapping[str, Any]
    """Every blank of the sentence and every number of the note; `inf` is written "inf"."""

    def __str__(self) -> str:
        return f"{self.sentence}\n{self.note}"

    def to_json(self) -> dict[str, Any]:
        """JSON object with the sentence, the note and the fields."""
        return {"sentence": self.sentence, "note": self.note, **self.fields}


def statement(
    plan: PrivacyPlan,
    *,
    what: str,
    summary: Mapping[str, Any],
    not_covered: Sequence[str] = (),
) -> Statement:
    """The claim about releasing `what`, from a run's plan and `Ledger.summary`.

    Epsilon and delta are the summary's: of the committed steps while the lineage holds this plan
    alone, with those of a release of another ledger that it continues, of the ledger's cap
    otherwise. It is rounded up. `not_covered` adds to what is never
    covered (`standard_exclusions`). Raises UserError when the summary is of another plan.
    """
    if summary["plan_digest"] != plan.digest:
        raise UserError(
            f"ledger summary of plan {summary['plan_digest'][:19]}",
            f"the statement is about plan {plan.digest[:19]}",
            "take the summary of the same run",
        )
    epsilon = math.inf if summary["epsilon"] == "inf" else float(summary["epsilon"])
    shown = "inf" if math.isinf(epsilon) else f"{math.ceil(epsilon * 1e4) / 1e4:.4f}"
    exclusions = [*standard_exclusions(plan), *not_covered]
    if math.isinf(epsilon):
        why = plan.unprotected or "epsilon inf"
        exclusions.insert(0, f"anything: with {why} nothing is promised")
    if not summary["choices_charged"]:
        exclusions.append(
            "choices among several runs, or of what to train on, which looked at private text "
            "uncharged"
        )
    sampler = _sampler(plan)
    accountant = summary["accountant"]
    if plan.noise == "discrete_gaussian":
        accountant += ", whole orders, which hold for discrete noise"
    elif plan.private and summary["basis"] == "plan" and plan.accountant != "pld":
        accountant += f", checked with {describe('pld')}"
    ancestor = ancestor_of(plan)
    vocabulary = vocabulary_of(plan)
    if vocabulary is not None and not _charged(vocabulary, summary):
        raise UserError(
            f"ledger summary of run {summary['run_id']!r}",
            "the run's vocabulary was chosen from private text and is not charged there",
            "take the summary of the ledger that the vocabulary was charged to",
        )
    sentence = (
        f"For any two corpora that differ by adding or removing one {plan.unit}, the probability "
        f"of any outcome of releasing {what} differs by at most a factor e^{shown}, plus "
        f"{rounded_up(summary['delta'], 6)}. {ancestor_sentence(ancestor, summary)}"
        f"{_vocabulary_sentence(plan, vocabulary)}Sampling: "
        f"{sampler}; accountant: {accountant}; noise source: {_noise(plan)}; "
        f"scope: {plan.scope}. Not covered: {'; '.join(exclusions)}."
    )
    fields = {
        "schema": SCHEMA,
        "unit": plan.unit,
        "what": what,
        "epsilon": shown if math.isinf(epsilon) else float(shown),
        "delta": summary["delta"],
        "sampler": sampler,
        "accountant": accountant,
        "noise_source": plan.noise_source,
        "scope": plan.scope,
        "not_covered": exclusions,
        "vocabulary": vocabulary,
        "continues": ancestor.to_json() if ancestor else None,
        "basis": summary["basis"],
        "plan_digest": plan.digest,
        "committed_steps": summary["committed_steps"],
        "charged_steps": summary["charged_steps"],
        "lineage": dict(summary["lineage"]),
        "choices": list(summary["choices"]),
        "cap": dict(summary["cap"]),
        "details": details(plan),
        "epsilon_by_accountant": epsilon_by_accountant(plan),
        "versions": {package: version(package) for package in PACKAGES},
    }
    return Statement(sentence, _note(summary), fields)


def rounded_up(value: float, digits: int) -> str:
    """`value` with so many significant digits, never less than it is."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exact = Decimal(value)
    step = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    # A float that is spelt with so many digits is that number, not the binary one just above it.
    shown = f"{value:.{digits}g}"
    return shown if float(shown) >= value else f"{float(exact.quantize(step, ROUND_CEILING)):g}"


def _sampler(plan: PrivacyPlan) -> str:
    """How units come into a step, in words."""
    rates = [
        f"{batch * plan.bands / plan.units:.6g}"
        + (f" for {steps} steps" if plan.batch_schedule else "")
        for steps, batch in plan.plateaus
    ]
    turns = f"each of {plan.steps} steps"
    if plan.bands > 1:
        turns = f"one of every {plan.bands} of {plan.steps} steps, the turn of its group,"
    text = (
        f"{plan.sampler}, each {plan.unit} in {turns} independently with "
        f"probability {', then '.join(rates)}"
    )
    if plan.max_batch_size is None:
        return text
    return (
        f"{text}, of more than {plan.max_batch_size} as many at random, in a corpus of at most "
        f"{plan.units}"
    )


def _noise(plan: PrivacyPlan) -> str:
    """Where the noise comes from, and whether a step's is its own."""
    if plan.bands == 1 or not plan.noise_multiplier:
        return plan.noise_source
    return f"{plan.noise_source}, correlated over {plan.bands} steps by banded matrix factorisation"


def vocabulary_of(plan: PrivacyPlan) -> dict[str, float] | None:
    """Budget of the vocabulary that the plan binds; None for a public one."""
    found = {
        name: plan.bindings.get(f"vocabulary_{name}")
        for name in ("epsilon", "delta", "words_per_unit")
    }
    if found["epsilon"] is None:
        return None
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _charged(vocabulary: Mapping[str, float], summary: Mapping[str, Any]) -> bool:
    return any(
        all(one[name] == value for name, value in vocabulary.items())
        for one in summary["lineage"].get("selections", ())
    )


def _vocabulary_sentence(plan: PrivacyPlan, vocabulary: Mapping[str, float] | None) -> str:
    if vocabulary is None:
        return ""
    return (
        f"Both include the choice of the vocabulary from at most {vocabulary['words_per_unit']:g} "
        f"words of each {plan.unit} by partition selection (epsilon {vocabulary['epsilon']:g}, "
        f"delta {vocabulary['delta']:g}). "
    )


def standard_exclusions(plan: PrivacyPlan) -> list[str]:
    """What no run of this package covers."""
    more = {
        "document": "documents of one person",
        "sequence": "sequences of one document or person",
        "person": "persons",
    }[plan.unit]
    return [
        f"several {more} together, beyond {plan.unit} by {plan.unit}",
        *(
            ["documents that name no person, which count as a person each"]
            if plan.unit == "person"
            else []
        ),
        "timing and resource use of the run",
        "a model, a vocabulary or another run of the same text that was not charged to this ledger",
        "figures labelled private (validation loss, norms, clip fractions, batch sizes, scrub and "
        "dedup counts) wherever they are shown, and choices made after seeing them",
        "what can be concluded about somebody from what other people's text has in common",
        f"{ROUNDING[plan.noise]} to 32-bit floating point",
    ]


def _note(summary: Mapping[str, Any]) -> str:
    lineage, cap = summary["lineage"], summary["cap"]
    total = lineage["epsilon"]
    sum_shown = total if total == "inf" else f"{math.ceil(total * 1e4) / 1e4:.4f}"
    cap_shown = cap["epsilon"] if cap["epsilon"] == "inf" else f"{cap['epsilon']:g}"
    return (
        f"{summary['committed_steps']} committed steps survive in the model; the ledger was "
        f"charged for {summary['charged_steps']} steps of this run in "
        f"{_counted(summary['attempts'], 'attempt')} ({_interrupted(summary)}). "
        f"{_counted(lineage['runs'], 'run')} charged to the corpus: epsilon {sum_shown} "
        f"together, of a cap of {cap_shown} at delta {cap['delta']:g}."
    )


def _interrupted(summary: Mapping[str, Any]) -> str:
    """What became of the steps that were charged and are not in the model."""
    if summary["claimed_steps"] > summary["reserved_steps"]:
        return f"a checkpoint was lost, so that the claim counts {summary['claimed_steps']} steps"
    if 0 < summary["committed_steps"] < summary["reserved_steps"]:
        return "by public text an earlier step was kept, and the claim counts all steps of the plan"
    return "steps of interrupted attempts left no output"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
