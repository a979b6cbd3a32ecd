"""The public models of a run: the one that training starts from, and the auditors' reference.

A run file names them by a place. What lies there is bound to the plan: other weights in the same
place are refused, before a stage begins and again whenever the model is read for training.
"""

from typing import Any

import audits
from dpmlm.artifacts import model_digest
from dpmlm.canonical import digest
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.tokens import load_sealed_tokenizer, tokenizer_digest
from dpmlm.training import load_base_model, new_model

INITIAL, REFERENCE = "initial_model", "audit_reference"
"""The plan's bindings."""


def initial_model(run: Run, tokenizer: Any) -> Any:
    """The model before the first step: the same for the run, the control and the baseline.

    Raises UserError if the plan is made and names other weights.
    """
    config = run.config
    if config.model.size is not None:
        return new_model(config.model.size, tokenizer, config.tokens.window, config.seed)
    model = load_base_model(str(config.model.from_), tokenizer, config.tokens.window)
    _refuse_other(run, INITIAL, f"model.from {config.model.from_}", model_digest(model))
    return model


def load_reference(run: Run, tokenizer: Any | None) -> audits.LoadedModel | None:
    """The reference of the audits, if the run file names one.

    Raises UserError if there is none, the plan is made and names other weights, or its vocabulary
    is not the one of `tokenizer`, where that is known.
    """
    name = run.config.audit.reference
    if name is None:
        return None
    try:
        reference = audits.load(name)
    except UserError as error:
        raise UserError(f"audit.reference {name}", error.rule, error.next_step) from None
    if tokenizer is not None and reference.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"audit.reference {name}",
            "its vocabulary is not the run's, and the audits compare token by token",
            "leave it null, or name a model of the same tokenizer",
        )
    _refuse_other(run, REFERENCE, f"audit.reference {name}", reference.digest)
    return reference


def model_bindings(run: Run, tokenizer: Any) -> dict[str, str | None]:
    """Digests of both models for the plan; read once a run.

    A model made from a size is a function of seed, tokenizer and window: these stand for it, since
    the last bits of its weights may differ from one kind of processor to another.
    """
    if INITIAL not in run.memo:
        config = run.config
        if config.model.size is not None:
            made_of = [config.model.size, config.seed, config.tokens.window]
            run.memo[INITIAL] = digest([*made_of, tokenizer_digest(tokenizer)])
        else:
            run.memo[INITIAL] = model_digest(initial_model(run, tokenizer))
        reference = load_reference(run, tokenizer)
        run.memo[REFERENCE] = reference.digest if reference else None
    return {name: run.memo[name] for name in (INITIAL, REFERENCE)}


def refuse_other_models(run: Run) -> None:
    """Raise UserError where the finished plan names other weights than those that are there."""
    model_bindings(run, load_sealed_tokenizer(run.folder("tokens")))


def _bound(run: Run) -> dict[str, Any] | None:
    """The bindings of the plan; None before it is made."""
    folder = run.finished("plan")
    return folder.read_json("plan")["bindings"] if folder else None


def _refuse_other(run: Run, name: str, given: str, found: str) -> None:
    bound = _bound(run)
    if bound is not None and bound.get(name) != found:
        raise UserError(
            given,
            "its weights are not those that the run's plan was made with",
            "put those back, or use another workspace (--set workspace=...)",
        )
