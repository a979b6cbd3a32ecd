"""The same questions to the model of every cell, whatever it was trained with.

Masks, rows and buckets are those of `EvaluationSpec`: a model that was trained on few hidden words
is not asked easier questions, and words are counted in text that is not asked about (`counted`).
Canaries were drawn for each cell alone and their scores are written down before a coin is looked
at; what is said of them is computed from the noised model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from audits.exposures.exposure import exposures
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.planting.labels import Labels
from audits.scores.scoring import joint_logprobs, secret_positions
from dpmlm.artifacts import SealedFolder, load_model
from dpmlm.corpus import read_shards
from dpmlm.errors import UserError
from dpmlm.evaluation import EvaluationSpec, Measurement, estimates
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import public_digest
from dpmlm.pipeline.evaluation import Asked, HeldOut
from dpmlm.pipeline.grid.counted import asked_by, parted, trained_texts
from dpmlm.pipeline.models import best_device, planned
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.sources import standing_alone
from dpmlm.pipeline.stages import Stage
from dpmlm.release.facts import spelled

MEASURED = "measured"
"""Name of the stage and of its sealed file."""
Question = tuple[HeldOut, Asked]
"""Documents, and how one tokenizer spells them."""


def measured_stage(
    cpu_seconds: float | None, *, public: bool, exposing: bool, apart: Sequence[str] = ()
) -> Stage:
    """The stage of a cell; `cpu_seconds` of its training are kept with the figures.

    `exposing` looks for the planted secrets: not in a model that is to be audited by them later.
    Held-out documents of the sources `apart` are not asked about.
    """

    def settings(run: Run) -> dict[str, Any]:
        control = run.config.audit.control
        text = public_digest(control.corpus) if control else None
        settings = {"public": public, "exposing": exposing, "text": text}
        return {**settings, "apart": list(apart)} if apart else settings

    def build(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
        figures = _figures(run, public, exposing, apart, report) | {"cpu_seconds": cpu_seconds}
        folder.write_json(MEASURED, spelled(figures))
        return {}

    return Stage(MEASURED, ("training", "tokens", "canaries"), settings, build)


def read_measured(run: Run) -> dict[str, Any]:
    """`held_out`, `public_text` and `exposure`, each with its label or None, and `cpu_seconds`."""
    found: dict[str, Any] = run.folder(MEASURED).read_json(MEASURED)
    return found


def refuse_looked_at(run: Run) -> None:
    """Raise UserError where the run's planted secrets were looked at beside those of others.

    Its audit would ask for the very secrets that it may have been chosen by.
    """
    if run.finished(MEASURED) is None or read_measured(run)["exposure"] is None:
        return
    raise UserError(
        f"run {run.config.name} in {run.workspace.path}",
        "`dpmlm masks compare` looked at its planted secrets, and an audit by secrets that a run "
        "may have been chosen by shows nothing",
        "train its setting again, with secrets of its own and at its own charge: repeat this with "
        "--set workspace=FOLDER, a new one",
    )


def _figures(
    run: Run, public: bool, exposing: bool, apart: Sequence[str], report: Report
) -> dict[str, Any]:
    model, tokenizer = load_model(run.folder("training"))
    spec = EvaluationSpec(run.config.tokens.window)
    noised = "public" if public else "dp" if planned(run)[0].private else "private"

    def told(label: str, question: Question | None) -> dict[str, Any] | None:
        if question is None:
            return None
        held_out, asked = question
        return _told(label, held_out.measured(model, asked, spec, report))

    label = "public" if public else "private"
    return {
        "held_out": told(label, _held_out(run, public, apart, tokenizer)),
        "public_text": None if public else told(noised, _public_text(run, tokenizer)),
        "exposure": _exposure(run, model, tokenizer, noised) if exposing else None,
    }


def _held_out(run: Run, public: bool, apart: Sequence[str], tokenizer: Any) -> Question:
    """Words are counted in public text: in what the models train on, where that is public."""
    found = HeldOut.of_run(run)
    if apart:
        found = found.without(standing_alone(run, apart))
    if public:
        return found, asked_by(found, trained_texts(run), tokenizer)
    return found, found.asked(tokenizer)


def refuse_unanswerable(base: Run, apart: Sequence[str]) -> None:
    """UserError where cells could be trained and asked about nothing; before any is charged.

    `base` holds the text of all cells, and the sources `apart` are left out of what is asked.
    """
    if not apart:
        return
    left = standing_alone(base, apart)
    rows = read_shards(base.source("tokens"))
    if all(row["id"] in left for row in rows if row["split"] == "validation"):
        raise UserError(
            f"{len(apart)} sources to leave out",
            "all held-out documents are of them, so that nothing is left to ask about",
            "name fewer of them at once, or hold out more (split.validation)",
        )


def _public_text(run: Run, tokenizer: Any) -> Question | None:
    """Text that nobody owns; None where the run file declares none."""
    source = run.config.audit.control or run.config.tokens.train
    if source is None:
        return None
    documents, others = parted(source)
    found = HeldOut(documents, [one.id for one in documents], None)
    return found, asked_by(found, others, tokenizer)


def _told(label: str, found: Measurement) -> dict[str, Any] | None:
    """Averages over all masked tokens and by bucket; None where none could be masked."""
    figures = found.figures
    if figures is None:
        return None
    top1 = estimates(found)["top1"]
    by_bucket: Mapping[str, Any] = {name: asdict(one) for name, one in found.by_bucket.items()}
    return {
        "label": label,
        "documents": len(found.documents),
        **asdict(figures),
        "bits_per_byte": found.bits_per_byte,
        "top1_interval": None if top1.low is None else [top1.low, top1.high],
        "by_bucket": by_bucket,
    }


def _exposure(run: Run, model: Any, tokenizer: Any, label: str) -> dict[str, Any] | None:
    """Bits by which inserted canaries, and those left out, stand above chance (1.44 bits)."""
    folder = run.folder("canaries")
    rows = CanarySet.read(folder).canaries
    if not rows:
        return None
    subject = LoadedModel.of(model, tokenizer, device=best_device())
    logprobs = joint_logprobs(subject, rows)
    if not np.isfinite(logprobs).all():
        return None
    bits = np.array([one.conservative for one in exposures(logprobs, secret_positions(rows))])
    inside = np.array(Labels.read(folder).of(rows))  # only now: the scores are there
    return {
        "label": label,
        "inserted": int(inside.sum()),
        "mean_bits": _mean(bits[inside]),
        "interval": _of_mean(bits[inside]),
        "left_out_bits": _mean(bits[~inside]),
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _of_mean(values: np.ndarray) -> list[float] | None:
    """95 % by the normal approximation: canaries are drawn alike and apart."""
    if len(values) < 2:
        return None
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return [float(values.mean()) - half, float(values.mean()) + half]
