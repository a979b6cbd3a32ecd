"""The models of a run: the one that training starts from, and the auditors' reference.

Both are public, but for a release that the run continues (`ancestor.py`). A run file names them by
a place. What lies there is bound to the plan: other weights in the same
place are refused, before a stage begins and again whenever the model is read for training.
"""

import json
from pathlib import Path
from typing import Any

import audits
from dpmlm.artifacts import model_digest
from dpmlm.canonical import digest
from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.ancestor import open_continued, refuse_other_ancestor
from dpmlm.pipeline.context import Run
from dpmlm.release.exports import RECORD
from dpmlm.release.inventory import MANIFEST
from dpmlm.tokens import load_sealed_tokenizer, load_tokenizer, tokenizer_digest
from dpmlm.tokens.tokenizer import fast_backend
from dpmlm.training import load_base_model, new_model, restrict

_PARTS = {"normalizer": "changes letters", "pre_tokenizer": "cuts text into words"}
INITIAL, REFERENCE = "initial_model", "audit_reference"
"""The plan's bindings."""


def initial_model(run: Run, tokenizer: Any) -> Any:
    """The model before the first step: the same for the run, the control and the baseline.

    Raises UserError for a model that was trained on private text, one of another vocabulary, and
    where the plan is made and names other weights.
    """
    config = run.config
    if config.model.size is not None:
        return new_model(config.model.size, tokenizer, config.tokens.window, config.seed)
    if config.model.continues is not None:
        return _continued(run, tokenizer)
    name = str(config.model.from_)
    refuse_release("model.from", name)
    model = load_base_model(name, tokenizer, config.tokens.window)
    _refuse_other_words(name, tokenizer)
    _refuse_other(run, INITIAL, f"model.from {config.model.from_}", model_digest(model))
    return model


def model_to_train(run: Run, tokenizer: Any) -> Any:
    """The initial model with what `model.train` freezes or puts beside it; `merged` undoes that."""
    return restricted(run.config, initial_model(run, tokenizer))


def restricted(config: RunConfig, model: Any) -> Any:
    """`model` as the run file trains it. Raises UserError where the library peft is missing."""
    asked = config.model
    return restrict(model, asked.train, rank=asked.lora_rank, seed=config.seed)


def _continued(run: Run, tokenizer: Any) -> Any:
    """The model of the release that the run continues."""
    given = f"model.continues {run.config.model.continues}"
    model, own = open_continued(run.config, run.identity)
    if own.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            given,
            "its vocabulary is not the one of the run's tokens: its embeddings would stand for "
            "other words",
            "put the bundle back with which the run began, or use another workspace",
        )
    _refuse_other(run, INITIAL, given, model_digest(model))
    return model


def refuse_release(field: str, name: str) -> None:
    """What a bundle holds and what was exported from one came of somebody's private text: weights,
    and the vocabulary too where it was drawn from that text.

    Nothing tells that of a folder whose record was removed (docs/claim.md, what is not promised).
    """
    place = Path(name).parent if Path(name).is_file() else Path(name)
    found = [record for record in (RECORD, MANIFEST) if (place / record).is_file()]
    if found:
        raise UserError(
            f"{field} {name}",
            f"it is a release ({found[0]} says so), and what is named there counts as public: its "
            "epsilon would be missing from the claim",
            "name a public model or vocabulary; a bundle is trained further by model.continues"
            if field == "model.from"
            else "name a public model or vocabulary; what is trained on one corpus is charged to "
            "its ledger",
        )


def _refuse_other_words(name: str, tokenizer: Any) -> None:
    """A row of embeddings stands for the same piece in the model's own tokenizer and in ours."""
    try:
        own = load_tokenizer(name)
    except UserError as error:
        raise UserError(
            f"model.from {name}",
            "it comes without a tokenizer that could be read, so nobody can tell which words its "
            f"embeddings stand for ({error.rule})",
            "put the tokenizer that it was trained with into its folder",
        ) from None
    if own.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"model.from {name}",
            "its own tokenizer has another vocabulary than the run's: its embeddings would stand "
            "for other words",
            "set tokens.vocabulary to the model's own folder or name",
        )
    for part, does in _PARTS.items():
        if _part(own, part) != _part(tokenizer, part):
            raise UserError(
                f"model.from {name}",
                f"its own tokenizer {does} otherwise than the run's ({part}): the same text would "
                "become other pieces than the model was trained on",
                "set tokens.vocabulary to the model's own folder or name",
            )


def _part(tokenizer: Any, part: str) -> Any:
    return json.loads(fast_backend(tokenizer).to_str())[part]


def load_reference(run: Run, tokenizer: Any | None) -> audits.LoadedModel | None:
    """The reference of the audits, if the run file names one.

    Raises UserError if there is none, the plan is made and names other weights, or its vocabulary
    is not the one of `tokenizer`, where that is known.
    """
    name = run.config.audit.reference
    if name is None:
        return None
    refuse_release("audit.reference", name)
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
    refuse_other_ancestor(run.config, _bound(run))
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
