"""Choosing among trained runs, and what that costs: `dpmlm runs select`.

Every candidate was charged when it was trained, and the ledger adds all of them up, so that they
may be compared in any way that does not look at private text again. A comparison on held-out
documents does look: it is made with noise and charged, or it is recorded as not charged, and then
no run on the corpus passes a gate. Choosing from repeated runs at less than the sum of their costs
(Papernot and Steinke 2022) needs a number of runs that was drawn beforehand and settings drawn
from one law; nothing here sees either, so all runs are added up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dpmlm.artifacts import load_model
from dpmlm.clipping import evaluate_batch
from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.evaluation import SEED, EvaluationSpec
from dpmlm.masking import TokenTable, make_batch
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import best_device, planned
from dpmlm.pipeline.progress import Progress, Report
from dpmlm.pipeline.tombstones import refuse_forgotten
from dpmlm.pipeline.workspace import deciding_settings
from dpmlm.privacy import SecretStream, noisy_best
from dpmlm.tokens import TokenStore, load_sealed_tokenizer
from dpmlm.training import Units, units_of

METRIC = "held-out top-1"
"""Mean over a unit's masked tokens of whether the first guess was right, added up over units: the
same tokens for every candidate, whatever it was trained with."""


@dataclass(frozen=True)
class Choice:
    """Which run was chosen, by what, and whether that is paid for."""

    chosen: str
    """Name of its run file."""
    candidates: tuple[str, ...]
    """Names of all."""
    label: str
    """"dp": with noise, charged; "private": by figures of private text, not charged; "public"."""
    epsilon: float | None
    """What the choice was charged, beside the runs; None where it was not."""
    scores: Mapping[str, float] | None = field(repr=False)
    """Of each candidate, without noise: private. None where nothing was measured, and where the
    choice is charged: whoever saw them could choose again."""

    def to_json(self, *, private: bool = False) -> dict[str, Any]:
        return {
            "chosen": self.chosen,
            "candidates": list(self.candidates),
            "label": self.label,
            "epsilon": self.epsilon,
            "private": dict(self.scores) if private and self.scores else None,
        }

    def text(self, *, private: bool = False) -> str:
        how = {
            "dp": f"by {METRIC} with noise, charged epsilon {self.epsilon}",
            "private": f"by {METRIC} without noise, NOT charged: the corpus passes no gate now",
            "public": "without figures of private text, nothing to charge",
        }[self.label]
        rows = [f"chosen  {self.chosen}, of {len(self.candidates)} runs, {how}"]
        if private and self.scores:
            rows += [f"  {name:<24}{score:>12.3f}" for name, score in self.scores.items()]
        rows += [
            "`dpmlm run` of its run file makes its release; all runs count in its claim",
            "(a cell of `masks compare` is trained again first: its canaries were looked at)",
        ]
        return "\n".join(rows)


def select_run(
    configs: Sequence[RunConfig], *, epsilon: float | None = None, public: str | None = None
) -> Choice:
    """Choose among trained runs of one corpus, and record it in their ledger.

    With `epsilon` by held-out text, with noise, charged before anything is measured; with `public`,
    the name of a run, that one; with neither by held-out text, exactly, and recorded as not
    charged. Raises UserError for fewer than two runs, runs of several ledgers or with other
    held-out units, untrained ones, and an epsilon over what is left.
    """
    runs = [_loaded(config) for config in configs]
    names = tuple(run.config.name for run in runs)
    if public is not None and public not in names:
        raise UserError(f"run {public!r}", f"the candidates are {', '.join(names)}", "name one")
    _refuse_unlike(runs, names)
    held_out = [_held_out(run) for run in runs]
    if any(units.names != held_out[0].names for units in held_out) or not held_out[0].names:
        raise UserError(
            f"runs {', '.join(names)}",
            "runs are compared on the same held-out units, and there is at least one",
            "give them the same corpus, split, scrubbing and deduplication",
        )
    label = "public" if public else "dp" if epsilon is not None else "private"
    ledger = open_ledger(runs[0].config.ledger, runs[0].signing)
    # On the disk before anything of the text is looked at.
    ledger.choose([planned(run)[1] for run in runs], label=label, epsilon=epsilon)
    if public:
        return Choice(public, names, label, None, None)
    with Progress().bar("held-out units") as report:
        spec = EvaluationSpec(min(run.config.tokens.window for run in runs))
        scores = [_score(run, units, spec, report) for run, units in zip(runs, held_out)]
    if epsilon is None:
        best = max(range(len(scores)), key=scores.__getitem__)
    else:
        best = noisy_best(scores, epsilon, SecretStream.from_os())
    shown = dict(zip(names, scores)) if epsilon is None else None
    return Choice(names[best], names, label, epsilon, shown)


def _loaded(config: RunConfig) -> Run:
    run = Run.load(config, Progress(quiet=True))
    run.workspace.check(config.name, deciding_settings(config))
    run.folder("training")
    refuse_forgotten(run, open_ledger(config.ledger))
    return run


def _refuse_unlike(runs: Sequence[Run], names: Sequence[str]) -> None:
    if len(set(names)) < 2 or len(set(names)) != len(names):
        raise UserError(
            f"runs {', '.join(names)}",
            "a choice is between at least two runs of different names",
            "name more run files",
        )
    if len({run.config.ledger.path.resolve() for run in runs}) > 1:
        raise UserError(
            f"runs {', '.join(names)}",
            "runs are compared on one corpus, whose ledger counts all of them",
            "name runs of one ledger",
        )


def _held_out(run: Run) -> Units:
    config = run.config
    store = TokenStore.open(run.folder("tokens"))
    return units_of(store, "validation", config.privacy.unit, SEED, config.tokens.window)


def _score(run: Run, units: Units, spec: EvaluationSpec, report: Report) -> float:
    """Sum over units of the share of its masked tokens that the model guesses first.

    Unit by unit, one row each: what one of them adds, between 0 and 1, depends on no other.
    """
    model, _ = load_model(run.folder("training"))
    nn.Module.to(model, device := best_device())
    table = TokenTable.of(load_sealed_tokenizer(run.folder("tokens")))
    total = 0.0
    for index in range(len(units.names)):
        batch = make_batch(
            [view.example for view in units.views(index, 0, 1)],
            [0],
            seed=spec.seed,
            table=table,
            spec=spec.masking,
            window=spec.window,
            pad_to_window=True,
        )
        found = evaluate_batch(model, batch.to(device))
        if found.weight_sum > 0:
            total += min(1.0, max(0.0, found.top1 / found.weight_sum))
        report(index + 1, len(units.names))
    return total
