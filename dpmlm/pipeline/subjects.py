"""Models to be measured, and how each kind is opened: a run's, a bundle's, a folder's."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import audits
from dpmlm.artifacts import load_identity, load_model
from dpmlm.config import load_config, names_run_file
from dpmlm.errors import UserError
from dpmlm.masking.spec import SPECIALS_PER_ROW
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import best_device, planned
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.tombstones import refuse_forgotten
from dpmlm.privacy.plan import PrivacyPlan
from dpmlm.release import load_released
from dpmlm.release.inventory import MANIFEST

WINDOW = 128
"""Tokens a row of a model that comes without a run, if it has as many positions."""


@dataclass(frozen=True)
class Subject:
    """A model to measure."""

    model: Any
    tokenizer: Any
    window: int
    """Tokens a row it takes."""
    released: bool
    """Whether the weights are private by themselves: any figure that looks at public text and
    such weights alone is covered by their claim."""


def of_run(run: Run) -> Subject:
    """A run's trained model."""
    refuse_forgotten(run, open_ledger(run.config.ledger))
    model, tokenizer = load_model(run.folder("training"))
    nn.Module.to(model, best_device())
    return Subject(model, tokenizer, run.config.tokens.window, planned(run)[0].private)


def opened_model(
    path: Path, *, identity: Path | None = None, trusted_keys: Path | None = None
) -> Subject:
    """A run's trained model, a bundle's, or that of a folder."""
    if names_run_file(path):
        return of_run(Run.load(load_config(path), Progress(quiet=True)))
    if (path / MANIFEST).exists():
        if identity is None or trusted_keys is None:
            raise UserError(
                f"bundle {path}",
                "its model is sealed, and its signature is checked before it is opened",
                "give --identity and --trusted-keys",
            )
        model, tokenizer = load_released(path, identity=identity, trusted_keys=trusted_keys)
        # Its keepers can open one that did not pass, and that may promise nothing.
        claimed = PrivacyPlan.from_json(json.loads((path / "plan.json").read_bytes())).private
        loaded = audits.LoadedModel.of(model, tokenizer, device="auto")
        return _subject(path, loaded, released=claimed)
    identities = [load_identity(identity)] if identity else []
    return _subject(path, audits.load(path, identities), released=False)


def _subject(path: Path, loaded: audits.LoadedModel, *, released: bool) -> Subject:
    if loaded.longest_row <= SPECIALS_PER_ROW:
        raise UserError(
            f"{path}, whose rows have {loaded.longest_row} tokens",
            f"a row has {SPECIALS_PER_ROW + 1} at least: CLS, SEP and a token to guess",
            "name a model with more positions",
        )
    return Subject(loaded.model, loaded.tokenizer, min(WINDOW, loaded.longest_row), released)
