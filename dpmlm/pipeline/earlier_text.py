"""Public text of an earlier domain, on which a run's model is held against the one before it."""

from collections.abc import Mapping
from typing import Any

from dpmlm.canonical import digest
from dpmlm.config import ForgettingConfig, RunConfig, claim_fields
from dpmlm.errors import UserError
from dpmlm.evaluation import EvaluationSpec, Forgetting, forgetting
from dpmlm.pipeline.data import public_digest, sample_public
from dpmlm.pipeline.progress import Report


def forgetting_binding(config: RunConfig) -> dict[str, str]:
    """What freezes the text and the margin in the plan; nothing where none is named."""
    asked = config.model.forgetting
    return {} if asked is None else {"forgetting": _frozen(asked)}


def _frozen(asked: ForgettingConfig) -> str:
    return digest(claim_fields(asked) | {"source": public_digest(asked.corpus)})


def forgotten(
    config: RunConfig,
    bindings: Mapping[str, Any],
    models: tuple[Any, Any],
    tokenizer: Any,
    report: Report,
) -> Forgetting | None:
    """The model after training beside the one before it; None where the run file asks for none.

    Raises UserError where the text is another one than the plan froze, or holds nothing to hide.
    """
    from dpmlm.pipeline.evaluation import HeldOut

    asked = config.model.forgetting
    if asked is None:
        return None
    given = f"model.forgetting.corpus {asked.corpus}"
    if bindings.get("forgetting") != _frozen(asked):
        raise UserError(
            given,
            "it is not the text that the run's plan was made with",
            "put that back, or use another workspace (--set workspace=...)",
        )
    documents = sample_public(asked.corpus, asked.text, asked.documents)
    held_out = HeldOut(documents, [document.id for document in documents], None)
    spelled, spec = held_out.asked(tokenizer), EvaluationSpec(config.tokens.window)
    before, after = (held_out.measured(model, spelled, spec, report) for model in models)
    found = forgetting(before, after, text=public_digest(asked.corpus), margin=asked.points)
    if found is None:
        raise UserError(
            given, "no token of it can be hidden", "name text in the language of the vocabulary"
        )
    return found


def told(found: Mapping[str, Any]) -> dict[str, Any]:
    """For the public facts of the training: public text was asked, and weights that a claim
    covers."""
    return {
        "forgetting": found["verdict"],
        "forgotten_points": found["lost"]["value"],
        "forgotten_points_high": found["lost"]["high"],
        "forgetting_margin": found["margin"],
        "forgetting_text": found["text"],
    }
