"""What can be refused before anything is written, is."""

from pathlib import Path

from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import initial_model, open_ledger, plan_of
from dpmlm.release import load_policy as load_release_policy
from dpmlm.scrub import load_policy as load_scrub_policy
from dpmlm.tokens import load_tokenizer
from dpmlm.training import refuse_inexact


def preflight(run: Run) -> None:
    """Check files, policies, ledger and model of a run file; raises UserError."""
    config = run.config
    _present(config.corpus.path, "corpus.path")
    if config.audit.control is not None:
        _present(config.audit.control.corpus, "audit.control.corpus")
    if config.tokens.train is not None:
        _present(config.tokens.train.corpus, "tokens.train.corpus")
    load_scrub_policy(config.scrub.policy)
    load_release_policy(config.release.policy)
    ledger = open_ledger(config.ledger)
    if not run.workspace.stage("plan").exists():
        ledger.refuse_unaffordable(plan_of(config))
    if config.model.from_ is not None and config.tokens.vocabulary is not None:
        tokenizer = load_tokenizer(config.tokens.vocabulary)
        model = initial_model(run, tokenizer)
        refuse_inexact(model, len(tokenizer), given=f"model.from {config.model.from_}")


def _present(path: Path, field: str) -> None:
    if not path.is_file() and not path.is_dir():
        raise UserError(f"{field} {path}", "there is no such file or folder", "check the path")
