"""`dpmlm evaluate`: a run, a bundle or a model folder, alone or beside another."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from dpmlm.config import RunConfig, load_config, names_run_file
from dpmlm.corpus import read_corpus
from dpmlm.errors import UserError
from dpmlm.evaluation import (
    EvaluationSpec,
    Forgetting,
    Group,
    Measurement,
    beside,
    by_group,
    forgetting,
    pseudo_likelihood,
)
from dpmlm.pipeline.base import initial_model
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import public_digest
from dpmlm.pipeline.evaluated import Evaluated, Label
from dpmlm.pipeline.evaluation import (
    AFTER,
    BEFORE,
    FORGETTING,
    HeldOut,
    asked_of,
    grouped,
    grouped_by,
)
from dpmlm.pipeline.models import best_device, planned
from dpmlm.pipeline.probes import Probe, ProbeText, probed
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.run import execute_until
from dpmlm.pipeline.status import telling_status
from dpmlm.pipeline.subjects import Subject, of_run, opened_model
from dpmlm.tokens import tokenizer_digest

OTHER, THIS = "other", "this"


@dataclass(frozen=True)
class Request:
    """What to measure."""

    model: Path
    """A run file, a bundle, or a model folder, plain or sealed."""
    against: Path | None = None
    """Another of these, measured on the same text."""
    text: Path | None = None
    """Held-out documents for a model without a run."""
    text_field: str = "text"
    """Its field with the text, and that of `counts`."""
    groups: str | None = None
    """Field of the documents that names their group."""
    counts: Path | None = None
    """Public text to count words in, for a model without a run."""
    pseudo: int = 0
    """Documents of which every token is hidden alone."""
    probes: Mapping[Probe, ProbeText] = field(default_factory=dict)
    """Public text by probe."""
    public: bool = False
    """Whether the models and the text are nobody's secret."""
    identity: Path | None = None
    trusted_keys: Path | None = None
    forgetting: float | None = None
    """Points of top-1 accuracy that the model may have lost to the other on the text."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the run file, by dotted keys, that the command line overrides."""


def evaluate(request: Request) -> Evaluated:
    """Measure what the request names.

    Raises UserError for a request that measures nothing, options that do not go together, a model
    that cannot be opened, and text that cannot be read.
    """
    _refuse_verdict(request)
    if names_run_file(request.model):
        return _evaluate_run(request)
    _refuse_idle(request)
    if request.against is not None and names_run_file(request.against):
        raise UserError(
            f"--against {request.against}",
            "a run is measured on its own held-out text",
            f"turn them round: `dpmlm evaluate {request.against} --against {request.model}`",
        )
    subjects = {THIS: _opened(request.model, request)}
    if request.against is not None:
        subjects = {OTHER: _opened(request.against, request), **subjects}
    held_out = None
    if request.text is not None:
        public = (request.counts, request.text_field) if request.counts else None
        held_out = HeldOut.of_file(request.text, request.text_field, public)
        if request.groups is not None:
            fields = {"text": request.text_field, "id": None, "person": None}
            held_out = grouped(held_out, request.text, request.groups, fields)
    return _measured(request, subjects, held_out, private=not request.public)


def _evaluate_run(request: Request) -> Evaluated:
    _refuse_text(request)
    config = load_config(request.model, dict(request.settings))
    if request.groups is not None:  # a field that is missing is said now, and not after the run
        corpus = config.corpus
        next(read_corpus(corpus.path, text=corpus.text, id=corpus.id, person=request.groups))
    execute_until(config, "evaluation")
    run = Run.load(config, Progress(quiet=True))
    if run.finished("release") is not None:  # the status file tells how that ended
        with run.workspace.locked():
            return _evaluate_finished(request, config, run)
    # What is measured beside the run may end otherwise than the run did.
    with run.workspace.locked(), telling_status(config.workspace, config.name) as ending:
        found = _evaluate_finished(request, config, run)
        if found.refused() and found.forgetting is not None:
            ending.verdict = found.forgetting.verdict
        return found


def _evaluate_finished(request: Request, config: RunConfig, run: Run) -> Evaluated:
    asks_more = request.against or request.groups or request.pseudo or request.probes
    if not asks_more:
        kept = run.folder("evaluation").read_json("evaluation")
        names = {BEFORE: "the model before training", AFTER: f"run {config.name}"}
        claimed = planned(run)[0].private
        return Evaluated(
            names, kept, [], None, {}, [], True, "dp" if claimed else "private", [],
            forgetting=_kept_forgetting(run), private_forgetting=not claimed,
        )  # fmt: skip
    held_out = HeldOut.of_run(run)
    if request.groups is not None:
        held_out = grouped_by(run, held_out, request.groups)
    this = of_run(run)
    if request.against is None:
        start = initial_model(run, this.tokenizer)
        nn.Module.to(start, best_device())
        subjects = {BEFORE: Subject(start, this.tokenizer, this.window, True), AFTER: this}
    else:
        subjects = {OTHER: _opened(request.against, request), THIS: this}
    found = _measured(request, subjects, held_out, private=True)
    if request.against is not None:
        return found
    kept = run.folder("evaluation").read_json("evaluation")
    return replace(found, held_out={**(found.held_out or {}), "trained_on": kept.get("trained_on")})


def _kept_forgetting(run: Run) -> Forgetting | None:
    """What the run's evaluation measured of it."""
    folder = run.folder("evaluation")
    return Forgetting.from_json(folder.read_json(FORGETTING)) if folder.has(FORGETTING) else None


def _measured(
    request: Request,
    subjects: Mapping[str, Subject],
    held_out: HeldOut | None,
    *,
    private: bool,
) -> Evaluated:
    spec = EvaluationSpec(min(subject.window for subject in subjects.values()))
    digests = {tokenizer_digest(subject.tokenizer) for subject in subjects.values()}
    progress = Progress()
    told: dict[str, Any] | None = None
    groups: list[Group] = []
    pseudo = {}
    lost = None
    if held_out is not None:
        measured = {}
        for name, subject in subjects.items():
            asked = held_out.asked(subject.tokenizer)
            with progress.bar(f"held-out text, {name}") as report:
                measured[name] = held_out.measured(subject.model, asked, spec, report)
            if request.pseudo:
                with progress.bar(f"every token, {name}") as report:
                    found = pseudo_likelihood(
                        subject.model, asked.examples, spec, table=asked.table,
                        documents=request.pseudo, bytes_of=held_out.bytes_of, report=report,
                    )  # fmt: skip
                shown = {"perplexity": found.perplexity, "bits_per_byte": found.bits_per_byte}
                pseudo[name] = asdict(found) | shown
        told = {
            "asked": asked_of(spec),
            **beside(measured, alike=len(digests) == 1),
        }
        if request.forgetting is not None and request.text is not None:
            lost = _forgotten(request, measured, alike=len(digests) == 1)
        if held_out.groups is not None:
            *others, last = measured.values()
            against = others[0] if others and len(digests) == 1 else None
            groups = by_group(last, held_out.groups, against)
    models = {name: (subject.model, subject.tokenizer) for name, subject in subjects.items()}
    probes = [
        probed(probe, text, models, spec.window, progress) for probe, text in request.probes.items()
    ]
    notes = []
    if private and held_out is not None and request.against is not None:
        notes.append(
            "note: who chooses between models by these figures looks at private text; "
            "`dpmlm runs select --epsilon` charges such a choice"
        )
    return Evaluated(
        models=_names(request, subjects),
        held_out=told,
        groups=groups,
        group_field=request.groups,
        pseudo=pseudo,
        probes=probes,
        private=private,
        probes_label=_probes_label(request, subjects),
        notes=notes,
        forgetting=lost,
    )


def _probes_label(request: Request, subjects: Mapping[str, Subject]) -> Label:
    """`dp` is a promise, and made where a plan stands behind each model; never on a person's word.

    One model without a claim is enough for `private`: a difference to it tells of its data, too.
    """
    if request.public:
        return "public"
    return "dp" if all(subject.released for subject in subjects.values()) else "private"


def _forgotten(request: Request, measured: Mapping[str, Measurement], *, alike: bool) -> Forgetting:
    assert request.text is not None
    assert request.forgetting is not None
    if not alike:
        raise UserError(
            f"--forgetting of {request.model} against {request.against}",
            "their vocabularies differ, so that their first guesses are not of the same things",
            "compare bits a byte, without --forgetting",
        )
    digest = public_digest(request.text)
    found = forgetting(measured[OTHER], measured[THIS], text=digest, margin=request.forgetting)
    if found is None:
        raise UserError(
            f"--text {request.text}",
            "no token of it can be hidden",
            "give text in the language of the vocabulary",
        )
    return found


def _names(request: Request, subjects: Mapping[str, Subject]) -> dict[str, str]:
    places = {
        BEFORE: "the model before training",
        AFTER: str(request.model),
        THIS: str(request.model),
        OTHER: str(request.against),
    }
    return {name: places[name] for name in subjects}


def _opened(path: Path, request: Request) -> Subject:
    return opened_model(path, identity=request.identity, trusted_keys=request.trusted_keys)


def _refuse_verdict(request: Request) -> None:
    """An exit status is read by whoever started the command: it says nothing of private text."""
    if request.forgetting is None:
        return
    if names_run_file(request.model):
        raise UserError(
            "--forgetting with a run file",
            "a run is compared with what it began from on the text of model.forgetting",
            "name that text there, or name the run's bundle here",
        )
    if request.against is None or request.text is None or not request.public:
        raise UserError(
            f"--forgetting {request.forgetting:g}",
            "it compares two models on public text, and its exit status is no secret",
            "give --against, --text and --public",
        )


def _refuse_text(request: Request) -> None:
    given = {"--text": request.text, "--counts": request.counts, "--public": request.public}
    named = [option for option, value in given.items() if value]
    if named:
        raise UserError(
            f"{', '.join(named)} with a run file",
            "a run is measured on the text that it kept out of its training",
            "leave them out, or name the model's folder instead of the run file",
        )


def _refuse_idle(request: Request) -> None:
    if request.text is None and not request.probes:
        raise UserError(
            f"dpmlm evaluate {request.model}",
            "a model without its run needs text to be measured on",
            "give --text FILE or --probe NAME=FILE",
        )
    given = {"--groups": request.groups, "--counts": request.counts, "--pseudo": request.pseudo}
    named = ", ".join(option for option, value in given.items() if value)
    if request.text is None and named:
        raise UserError(f"{named} without --text", "it is about held-out text", "give --text FILE")
    if request.settings:
        raise UserError("--set without a run file", "it changes fields of one", "leave it out")
