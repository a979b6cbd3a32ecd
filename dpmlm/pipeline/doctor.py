"""`examine`: what `check_model` finds on a model that a folder, hub name or run file names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpmlm.artifacts import load_identity
from dpmlm.clipping import ModelReport, check_model
from dpmlm.config import RunConfig, load_config, names_run_file
from dpmlm.errors import UserError
from dpmlm.pipeline.ancestor import open_continued
from dpmlm.pipeline.base import restricted
from dpmlm.pipeline.models import best_device
from dpmlm.tokens import load_tokenizer
from dpmlm.tokens.wordpiece import SPECIALS, wordpiece_tokenizer
from dpmlm.training import activation_checkpointing_if, load_base_model, new_model

WINDOW = 128
"""Tokens a row where nobody names a number and the model has so many."""
_NAMED = 5
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
_COST = {
    "one pass": "about the price of a step without privacy",
    "row by row": "each row runs alone: two to four times the price of one pass",
}


@dataclass(frozen=True)
class Examination:
    """One model, and what was found on it."""

    given: str
    """What the caller named."""
    kind: str
    """Class of the model."""
    window: int
    """Tokens a row."""
    vocabulary: int | None
    """Entries of the tokenizer; None where none was found."""
    precision: str
    """Of matrix products: "float32" or "bfloat16"."""
    device: str
    """Where it ran."""
    report: ModelReport
    """The verdict."""

    @property
    def next_step(self) -> str:
        """What to do about a refusal; empty for an exact model."""
        if self.report.exact:
            return ""
        return "mend what the reason names, or take a type that docs/models.md lists as exact"

    def to_json(self) -> dict[str, Any]:
        """As `dpmlm.doctor/1`."""
        found = self.report
        return {
            "model": self.given,
            "class": self.kind,
            "window": self.window,
            "vocabulary": self.vocabulary,
            "precision": self.precision,
            "device": self.device,
            "exact": found.exact,
            "max_relative_error": found.max_relative_error,
            "path": found.path,
            "trainable": found.trainable,
            "unused": list(found.unused),
            "padding_matters": found.padding_matters,
            "reason": found.reason,
            "next_step": self.next_step,
        }

    def text(self) -> str:
        """For people."""
        found = self.report
        verdict = "exact" if found.exact else "NOT EXACT: training refuses it"
        lines = [f"{self.given} ({self.kind}): {verdict}"]
        if not found.exact:
            lines += [f"  reason      {found.reason}", f"  next step   {self.next_step}"]
        if found.max_relative_error is not None:
            lines.append(
                f"  error       {found.max_relative_error:.1e} relative at most, of norms and "
                f"clipped sum ({self.precision}, {self.window} tokens, {self.device})"
            )
        if found.path is not None:
            lines.append(f"  path        {found.path}: {_COST[found.path]}")
            lines.append(f"  trainable   {found.trainable:,} numbers")
        if found.exact:
            lines += [f"  unused      {self._unused()}", f"  padding     {self._padding()}"]
        lines.append(
            f"  tokenizer   {self.vocabulary} entries"
            if self.vocabulary
            else "  tokenizer   none found; ids below the size of the embedding were used"
        )
        return "\n".join(lines)

    def _unused(self) -> str:
        unused = self.report.unused
        if not unused:
            return "no parameter"
        more = f" and {len(unused) - _NAMED} more" if len(unused) > _NAMED else ""
        named = ", ".join(unused[:_NAMED])
        return f"{len(unused)} parameters take noise and learn nothing: {named}{more}; freeze them"

    def _padding(self) -> str:
        if self.report.padding_matters:
            return "changes results: every row is padded to the window, which costs time"
        return "does not matter"


def examine(
    given: str,
    *,
    window: int | None = None,
    tokenizer: Path | None = None,
    precision: str | None = None,
) -> Examination:
    """Load the model, and measure it where and at the types that training would use.

    `given` is a folder or hub name as `model.from`, or a run file (a file, or any name that ends
    in .yaml or .yml), whose model, window, vocabulary and precision count unless named here, and
    whose activation checkpointing.

    Raises UserError where model, tokenizer or run file cannot be loaded, or the window is longer
    than the model's positions.
    """
    run = load_config(given) if _is_run_file(given) else None
    entries = entries_of(given, run, tokenizer)
    if run is not None:
        window = window or run.tokens.window
        precision = precision or run.training.precision
        model = model_of(run, window, entries)
    else:
        model = load_base_model(given, _stand_in(), window or 1)
    window = window or min(WINDOW, getattr(model.config, "max_position_embeddings", WINDOW))
    precision, device = precision or "float32", best_device()
    nn.Module.to(model, device)
    model.eval()
    recompute = run is not None and run.training.activation_checkpointing
    reduced = torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16")
    with activation_checkpointing_if(recompute, model), reduced:
        report = check_model(model, entries, window=window)
    return Examination(given, type(model).__name__, window, entries, precision, device, report)


def _is_run_file(given: str) -> bool:
    return Path(given).is_file() or names_run_file(Path(given))


def entries_of(given: str, run: RunConfig | None, tokenizer: Path | None) -> int | None:
    """Entries of the tokenizer: the one named, the run file's, or the model's own if it has one."""
    if tokenizer is not None:
        return len(load_tokenizer(tokenizer))
    if run is not None and run.tokens.train is not None:
        return run.tokens.train.size
    if run is not None and run.tokens.private is not None:
        return run.tokens.private.size
    if run is not None and run.tokens.vocabulary is None:
        return len(open_continued(run, load_identity(run.keys.identity))[1])
    if run is not None:
        return len(load_tokenizer(str(run.tokens.vocabulary)))
    folder = Path(given)
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return None  # transformers would make one of the special tokens alone
    try:
        return len(load_tokenizer(given))
    except UserError:
        return None


def model_of(run: RunConfig, window: int, entries: int | None) -> Any:
    """The model that a run file trains, before it does; its vocabulary may not be trained yet."""
    if run.model.size is not None:
        return new_model(run.model.size, _stand_in(entries or 0), window, run.seed)
    if run.model.continues is not None:
        return restricted(run, open_continued(run, load_identity(run.keys.identity))[0])
    return restricted(run, load_base_model(str(run.model.from_), _stand_in(), window))


def _stand_in(entries: int = 0) -> Any:
    """A tokenizer of so many entries (those of BERT's special tokens at least): nothing is
    tokenized here, and the vocabulary of a run may not be trained yet."""
    names = [*SPECIALS, *(f"[unused{n}]" for n in range(entries - len(SPECIALS)))]
    return wordpiece_tokenizer({name: place for place, name in enumerate(names)})
