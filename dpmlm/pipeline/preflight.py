"""What can be refused before anything is written, is."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmlm.config import RunConfig
from dpmlm.corpus import read_corpus
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.pipeline.ancestor import open_continued, refuse_unfit_ledger
from dpmlm.pipeline.base import load_reference, model_to_train, refuse_other_models, refuse_release
from dpmlm.pipeline.canaries import refuse_unfit
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import read_public
from dpmlm.pipeline.declared import Declared, declared_public, refuse_private_text
from dpmlm.pipeline.logged import check_run_log
from dpmlm.pipeline.models import plan_of
from dpmlm.pipeline.recall import check_gold
from dpmlm.pipeline.tombstones import refuse_forgotten
from dpmlm.pipeline.vocabulary import FOLDER, selection_of
from dpmlm.pipeline.watching import check_telemetry
from dpmlm.privacy import PartitionSelection
from dpmlm.release import load_policy as load_release_policy
from dpmlm.scrub import load_policy as load_scrub_policy
from dpmlm.tokens import least_size, load_tokenizer
from dpmlm.training import activation_checkpointing_if, refuse_inexact


def preflight(run: Run, *, to_plan: bool = True) -> None:
    """Check texts, policies, ledger, vocabulary, canaries and models of a run file.

    Of each text the first document is read, of the gold file every row. Where it comes `to_plan`,
    and so to a claim, all of what is declared public and of the corpus is read, and the ledger
    is asked for room, until there is a plan. Raises UserError.
    """
    config = run.config
    _check_texts(run)
    if to_plan and run.finished("plan") is None:
        with run.progress.bar("public texts"):
            refuse_private_text(config)
    check_gold(run)
    load_scrub_policy(config.scrub.policy)
    load_release_policy(config.release.policy)
    check_telemetry(config)
    _check_best(config)
    check_run_log(run)
    ledger = open_ledger(config.ledger, run.signing)
    refuse_forgotten(run, ledger)
    vocabulary = config.tokens.vocabulary
    if vocabulary is not None:
        refuse_release("tokens.vocabulary", str(vocabulary))
    tokenizer = None if vocabulary is None else load_tokenizer(vocabulary)
    if config.model.continues is not None:
        refuse_unfit_ledger(config)
        _, tokenizer = open_continued(config, run.identity)
    refuse_unfit(config, len(tokenizer) if tokenizer else _entries(config), tokenizer)
    _check_models(run, tokenizer)
    if to_plan and not run.workspace.stage("plan").exists():
        run.progress.say("calibrating the noise")
        with run.progress.bar("noise"):
            ledger.refuse_unaffordable(plan_of(config), beside=to_be_drawn(run))


def _entries(config: RunConfig) -> int:
    """Entries of a vocabulary that is to be trained: at most, or at least where words are drawn."""
    train, private = config.tokens.train, config.tokens.private
    if train is not None:
        return train.size
    return least_size(private.unused) if private is not None else 0


def to_be_drawn(run: Run) -> PartitionSelection | None:
    """What choosing the vocabulary costs, unless it is public or drawn already."""
    private = run.config.tokens.private
    if private is None or run.finished(f"tokens/{FOLDER}") is not None:
        return None
    return selection_of(private)


def check_declared(public: Mapping[str, Declared]) -> None:
    """Raise UserError unless each text that is declared public can be read."""
    for name, section in public.items():
        _present(section.corpus, f"{name}.corpus")
        next(read_public(section.corpus, section.text))


def _check_texts(run: Run) -> None:
    config = run.config
    corpus = config.corpus
    _present(corpus.path, "corpus.path")
    next(read_corpus(corpus.path, text=corpus.text, id=corpus.id, person=corpus.person))
    check_declared(declared_public(config))


def _check_best(config: RunConfig) -> None:
    best = config.training.best
    if best is None:
        return
    early = best.patience is not None or best.jump is not None
    planted = early and config.audit.gradient_canaries > 0
    for name, found, rule in (
        ("privacy.bands", config.privacy.bands > 1, "correlated noise is accounted for as a whole"),
        ("privacy.epsilon inf", math.isinf(config.privacy.epsilon), "no noise covers the choice"),
        ("audit.gradient_canaries", planted, "they are scored over all steps of the plan"),
    ):
        if found:
            raise UserError(f"training.best with {name}", rule, "drop one of the two")


def _check_models(run: Run, tokenizer: Any | None) -> None:
    if run.finished("plan") is not None:
        refuse_other_models(run)
        return
    asked = run.config.model
    if tokenizer is not None and asked.size is None:
        given = f"model.from {asked.from_}" if asked.from_ else f"model.continues {asked.continues}"
        model, training = model_to_train(run, tokenizer), run.config.training
        with activation_checkpointing_if(training.activation_checkpointing, model):
            refuse_inexact(model, len(tokenizer), given=given)
    load_reference(run, tokenizer)


def _present(path: Path, field: str) -> None:
    if not path.is_file() and not path.is_dir():
        raise UserError(f"{field} {path}", "there is no such file or folder", "check the path")
