"""Evaluation on held-out text, and the audits."""

from dataclasses import asdict
from typing import Any

import numpy as np

import audits
from audits.canaries import CanarySet
from audits.extraction import Span, VerbatimCase
from audits.models import LoadedModel
from dpmlm.artifacts import SealedFolder, load_model, model_digest, save_model
from dpmlm.config import claim_fields
from dpmlm.masking import Example, TokenTable, counter_rng
from dpmlm.pipeline.base import initial_model, load_reference
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import planned, recipe_of
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.stages import Stage
from dpmlm.release.facts import spelled
from dpmlm.tokens import TokenStore, load_sealed_tokenizer
from dpmlm.training import evaluate

UNTRAINED = "untrained"
"""Folder of the model before training, in the audit's folder."""
SPAN = 10
"""Tokens of a verbatim span."""


def _evaluation(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    """Loss, perplexity, top-1 and top-5 before and after, on held-out documents: private."""
    store = TokenStore.open(run.folder("tokens"))
    tokenizer = load_sealed_tokenizer(run.folder("tokens"))
    recipe = recipe_of(run, TokenTable.of(tokenizer))
    held_out = [
        Example(store.id(document), store.tokens(document))
        for unit in store.units("validation")
        for document in store.documents_of(unit)
    ]
    trained, _ = load_model(run.folder("training"))
    figures: dict[str, Any] = {"label": "private", "documents": len(held_out)}
    for name, model in (("before", initial_model(run, tokenizer)), ("after", trained)):
        result = evaluate(model, held_out, recipe, report)
        figures[name] = spelled(asdict(result)) if result else None
    folder.write_json("evaluation", figures)
    return {}


def _audit(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    tokenizer = load_sealed_tokenizer(run.folder("tokens"))
    plan, _ = planned(run)
    control = run.folder("control")
    trained = control.manifest is not None and control.manifest["counts"]["trained"]
    untrained = initial_model(run, tokenizer)
    _keep_untrained(run, folder, untrained, tokenizer)
    evidence = audits.audit(
        LoadedModel.of(*load_model(run.folder("training"))),
        plan=plan.to_json(),
        canaries=CanarySet.read(run.folder("canaries")),
        control=LoadedModel.of(*load_model(control)) if trained else None,
        untrained=LoadedModel.of(untrained, tokenizer),
        reference=load_reference(run, tokenizer),
        verbatim=_verbatim(run),
        beta=run.config.audit.beta,
        progress=report,
    )
    folder.write_json("evidence", evidence)
    return {}


def _keep_untrained(run: Run, folder: SealedFolder, model: Any, tokenizer: Any) -> None:
    """Seal the model before training beside the evidence: `dpmlm audit` repeats the tests on it."""
    beside = SealedFolder.open_or_create(
        folder.path / UNTRAINED, [run.identity], run.own, role="untrained"
    )
    if beside.manifest is None:
        save_model(beside, model, tokenizer)
        beside.finish({"model": model_digest(model)})


def _verbatim(run: Run) -> VerbatimCase | None:
    """One span of a training unit each, and as many of held-out units.

    Empty where no document is long enough: whether one is, is private, so the public evidence
    must not depend on it.
    """
    wanted = run.config.audit.verbatim_spans
    if not wanted:
        return None
    store = TokenStore.open(run.folder("tokens"))
    train = _spans(run, store, "train", wanted)
    twins = _spans(run, store, "validation", wanted)
    return VerbatimCase(train=train, twins=twins)


def _spans(run: Run, store: TokenStore, split: str, wanted: int) -> list[Span]:
    """At most one span a unit, from units and places that the run's seed picks.

    A span stands in a window with as many tokens or more on either side.
    """
    rng = counter_rng(run.secrets.mask_seed, "verbatim", split)
    units = store.units(split)
    spans: list[Span] = []
    content = run.config.tokens.window - 2
    for index in rng.permutation(len(units)):
        document = store.documents_of(units[int(index)])[0]
        tokens = store.tokens(document)
        if min(len(tokens), content) < 3 * SPAN:
            continue
        begin = int(rng.integers(max(1, len(tokens) - content + 1)))
        window = np.asarray(tokens[begin : begin + content])
        start = int(rng.integers(SPAN, len(window) - 2 * SPAN + 1))
        spans.append(
            Span(
                left=tuple(int(t) for t in window[:start]),
                secret=tuple(int(t) for t in window[start : start + SPAN]),
                right=tuple(int(t) for t in window[start + SPAN :]),
            )
        )
        if len(spans) == wanted:
            break
    return spans


EVALUATION = Stage("evaluation", ("training", "tokens"), lambda run: {}, _evaluation)
AUDIT = Stage(
    "audit",
    ("training", "control", "canaries", "tokens"),
    lambda run: claim_fields(run.config.audit),
    _audit,
)
