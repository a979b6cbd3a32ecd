"""What each field of the page's plain tables means: one line for somebody who sees it first."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dpmlm.release import provenance
from dpmlm.release.report import words


class Field(NamedTuple):
    """A row of a table."""

    name: str
    value: str
    says: str
    """What it means; empty for a field that nobody has described."""
    digest: bool
    """Whether the value is one."""


PLAN = {
    "unit": "what the promise is about: all that one of them contributed",
    "units": "how many there are at most; planted secrets count too",
    "epsilon": "limit that the noise was made for",
    "delta": "chance with which the limit may fail",
    "noise_multiplier": "noise in each step, as a multiple of the largest pull of a unit",
    "sample_rate": "chance of each unit to be drawn in a step",
    "expected_batch_size": "units drawn in a step, on average",
    "steps": "how often the model was changed",
    "max_grad_norm": "largest pull that a unit may have; whatever is above is cut back to it",
    "accountant": "calculation that turns noise and steps into epsilon",
    "sampler": "how the units of a step are drawn",
    "bands": "steps whose noise belongs together; 1 means that each step has its own",
    "noise": "distribution of the noise",
    "noise_source": "where its random numbers come from",
    "noise_seed": "number from which all noise could be made again; a dash means that none exists",
    "scope": "which text the promise speaks of",
    "audit_reference": "model that the attacks compare with; a dash means that none was named",
    "canary_commitment": "fingerprint of the planted secrets, taken before the training",
    "held_out": "keyed fingerprint of the text kept out of the training",
    "gradient_canary_commitment": "fingerprint of the known directions of the white-box attack",
    "dropout": "random silence inside the model while it is trained",
    "initial_model": "fingerprint of the model before the first step",
    "learning_rate": "how far each step moves the model",
    "masked_slots": "places of a row at which a word can be hidden",
    "masking": "how words to hide are chosen",
    "masking_ratio": "share of the words that are hidden",
    "model": "fingerprint of the settings of the model",
    "model_digest": "fingerprint of the trained weights",
    "precision": "kind of numbers that are calculated with",
    "stride": "a row begins at each multiple of so many tokens",
    "warmup": "share of the steps in which the learning rate rises to its full size",
    "weight_decay": "how much the weights are pulled towards 0",
    "window": "tokens in a row of text",
    "windows_per_draw": "rows that a drawn unit contributes to a step",
    "ancestor_release": "fingerprint of the release that was trained further",
    "ancestor_model": "fingerprint of its weights",
    "ancestor_run_id": "run that made it",
    "ancestor_plan": "fingerprint of the plan of that run",
    "ancestor_corpus": "corpus that it was charged to",
    "ancestor_trainings": "private trainings behind it",
    "ancestor_epsilon": "its epsilon, which is part of this promise",
    "ancestor_delta": "its delta, which is part of this promise",
    "forgetting": "in the plan a fingerprint of the public text on which forgetting is measured; "
    "of the training what came of it",
    "forgotten_points": "share of first guesses on that text, in points, lost by the training",
    "forgotten_points_high": "upper end of the 95 % interval of that",
    "forgetting_margin": "points that were allowed to be lost",
    "forgetting_text": "fingerprint of that text",
    "vocabulary_epsilon": "part of epsilon that finding the words of the vocabulary cost",
    "vocabulary_delta": "part of delta that it cost",
    "vocabulary_words_per_unit": "words that each unit could add to the vocabulary",
    "near_duplicates": "likeness from which one of two documents was removed",
    "repeated_passages": "what became of passages that many documents share",
    "scrub_policy": "which identifiers were looked for and replaced",
    "schedule": "how the size of the steps changes over the training",
    "decay": "share of the steps at the end in which the learning rate falls",
    "scale": "fingerprint of the public text by which gradients were scaled, and of how",
    "best": "fingerprint of the public text by which the released step was chosen, and of how",
    "average": "share that a step keeps of the average of weights that is released",
    "batch_schedule": "steps from which on more or fewer units are drawn",
    "max_batch_size": "most units that a step may take; a dash means no limit",
}
"""Settings of the plan and of the training."""

TEXT = {
    "read": "documents in the files",
    "forgotten": "those of forgotten persons, which went no further",
    "quarantined": "those of quarantined sources, which went no further",
    "with text": "those that are not empty",
    "after scrubbing": "those left when identifiers were replaced",
    "after deduplication": "those left when repeats were removed",
    "shortened by repeated passages": "those from which a passage was cut that many share",
    "units": "units of the promise that the documents belong to",
    "held-out units": "of these, kept out of the training to measure with",
    "held-out documents like one in training": "of these, nearly equal to one trained on; "
    "more than 0 flatters the figures on held-out text",
}
"""Counts of documents and units."""

EVALUATION = {
    "loss": "how wrong it is about hidden words, in nats; 0 would be always right",
    "perplexity": "as unsure as between so many equally likely words",
    "tokens": "hidden words that it was asked for",
    "top1": "share of them that its first guess gets right",
    "top5": "share of them that is among its first five guesses",
    "bits_per_byte": "bits that hidden words cost it, a byte of text; the less the better",
    "confidence": "how sure it says it is of its first guess, on average",
    "calibration_error": "how far that is off, on average; 0 would be honest",
    "brier": "the same for each single guess, squared; 0 would be best",
}
"""Figures on held-out text."""
COMMON = "top1 of words, a million:"
"""Beginning of the names of figures by how common words are."""
_COMMON_SAYS = "share of first guesses that are right, by how often the word occurs in public text"
_SHARES = ("top1", "top5", "confidence", "calibration_error")

STAGES = provenance.STAGES | {
    "control": "the leaky twin",
    "evaluation": "figures on held-out text",
    "recall": "what scrubbing finds of what people marked",
}
"""Parts of a run that take time."""


def plan_rows(plan: Mapping[str, Any], training: Mapping[str, Any]) -> list[Field]:
    """Plan, settings bound to it, and facts of the training; each name once.

    A setting of the training in words takes the place of its digest in the plan.
    """
    own = {name: plan[name] for name in PLAN if name in plan}
    if schedule := own.pop("batch_schedule", None):
        own["batch_schedule"] = [f"{batch:g} from step {step}" for step, batch in schedule]
    facts = {name: value for name, value in training.items() if not isinstance(value, Mapping)}
    shown = own | dict(plan["bindings"]) | {n: v for n, v in facts.items() if n not in own}
    return rows(shown, PLAN)


def rows(values: Mapping[str, Any], says: Mapping[str, str]) -> list[Field]:
    """A table of values with the sentences of one of the maps above."""
    return [field(name, value, says) for name, value in values.items()]


def field(name: str, value: Any, says: Mapping[str, str]) -> Field:
    """One row."""
    digest = str(value).startswith("sha256:")
    return Field(name.replace("_", " "), words.shown(value), says.get(name, ""), digest)


def seconds(times: Mapping[str, float]) -> list[Field]:
    """Wall times of the stages."""
    return rows({name: f"{value:.1f} s" for name, value in times.items()}, STAGES)


def compared(figures: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Held-out figures by name, side by side over the moments; shares as percentages."""
    moments = list(figures.values())
    return [
        {
            "name": name.replace("_", " "),
            "says": _COMMON_SAYS if name.startswith(COMMON) else EVALUATION.get(name, ""),
            "of": [_held_out(name, moment.get(name)) for moment in moments],
        }
        for name in (moments[0] if moments else ())
    ]


def _held_out(name: str, value: float | None) -> str:
    share = (name in _SHARES or name.startswith(COMMON)) and value is not None
    return words.kept_together(value) if share and value is not None else words.shown(value)
