"""The model stages: the plan, the private training, and the non-private control beside it."""

import hmac
import json
import math
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audits.planting.canaries import CanarySet
from dpmlm.artifacts import SealedFolder, model_digest, save_model
from dpmlm.canonical import digest
from dpmlm.config import RunConfig, claim_fields
from dpmlm.errors import UserError
from dpmlm.masking import TokenTable
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.pipeline.ancestor import ancestor_bindings
from dpmlm.pipeline.base import model_bindings, model_to_train
from dpmlm.pipeline.canaries import canary_units, labelled_canaries, masking_spec
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.data import names_finder, public_digest, sample_public
from dpmlm.pipeline.earlier_text import forgetting_binding
from dpmlm.pipeline.frequencies import weighted, weights_binding
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.public_loss import public_loss
from dpmlm.pipeline.public_scales import scales_of
from dpmlm.pipeline.soundness import refuse_spoiled
from dpmlm.pipeline.sources import standing_alone
from dpmlm.pipeline.stages import Stage
from dpmlm.pipeline.tombstones import refuse_forgotten
from dpmlm.pipeline.watching import Watched
from dpmlm.pipeline.whitebox import gradient_bindings, keep_transcript, planted_gradients
from dpmlm.privacy import PrivacyPlan, make_plan
from dpmlm.telemetry import Sink
from dpmlm.tokens import TokenStore, load_sealed_tokenizer
from dpmlm.training import (
    NO_GRADIENT_CANARIES,
    Checkpoints,
    CorpusUnits,
    GradientCanaries,
    JoinedUnits,
    LedgerCharges,
    Progress,
    PublicText,
    Ranks,
    Recipe,
    Units,
    in_bytes,
    merged,
    train,
    units_of,
)
from dpmlm.training.charges import Charges
from dpmlm.training.checkpoint import last_step

EVENTS = "events.jsonl"
"""One JSON object a step; what is under `private` was computed without noise."""
CHECKPOINTS = "checkpoints"
"""Folder of a training in its stage's folder."""
HELD_OUT = "held_out"
"""The plan's binding that locks the held-out documents."""


def plan_of(
    config: RunConfig,
    commitment: str | None = None,
    models: Mapping[str, str | None] | None = None,
) -> PrivacyPlan:
    """The plan that the run file asks for; calibrates the noise, which takes seconds.

    `commitment` binds the canaries to the plan once they are drawn, and `models` the models that
    the run starts from and is compared with (`model_bindings`) once the tokenizer is there.
    """
    privacy, training = config.privacy, config.training
    bindings: dict[str, str | int | float | None] = {
        "masked_slots": masking_spec(config).masked_slots(config.tokens.window),
        "window": config.tokens.window,
        "stride": config.tokens.stride,
        "windows_per_draw": training.windows_per_draw,
        "masking": digest(claim_fields(config.masking)),
        "model": digest(claim_fields(config.model)),
        "learning_rate": training.learning_rate,
        "warmup": training.warmup,
        **_recipe_bindings(config),
        "weight_decay": training.weight_decay,
        "precision": training.precision,
        "dropout": "off",
        "canary_commitment": commitment,
        **weights_binding(config),
        **_vocabulary_bindings(config),
        **_public_bindings(config),
        **ancestor_bindings(config),
        **forgetting_binding(config),
        **(models or {}),
    }
    return make_plan(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        units=privacy.units,
        unit=privacy.unit,
        expected_batch_size=training.expected_batch_size,
        steps=training.steps,
        max_grad_norm=privacy.max_grad_norm,
        accountant=privacy.accountant,
        batch_schedule=training.batch_schedule,
        max_batch_size=privacy.max_batch_size,
        noise=privacy.noise,
        noise_seed=privacy.noise_seed,
        bands=privacy.bands,
        scope=None if privacy.unit == "sequence" else config.dedup.scope,
        bindings=bindings,
    )


def _recipe_bindings(config: RunConfig) -> dict[str, str | float]:
    """The course of the learning rate, and the average that is released where there is one."""
    training = config.training
    found: dict[str, str | float] = {"schedule": training.schedule}
    if training.schedule == "wsd":
        found["decay"] = training.decay
    if training.average is not None:
        found["average"] = training.average
    return found


def _public_bindings(config: RunConfig) -> dict[str, str]:
    """The public text that decides which step's weights are released, and that which gradients are
    scaled by; nothing where none does."""
    found = {}
    for name, section in (("best", config.training.best), ("scale", config.training.scale)):
        if section is not None:
            source = {"source": public_digest(section.corpus)}
            found[name] = digest(claim_fields(section) | source)
    return found


def _vocabulary_bindings(config: RunConfig) -> dict[str, float]:
    """The budget of a vocabulary of private text; nothing for a public one."""
    private = config.tokens.private
    if private is None:
        return {}
    return {
        "vocabulary_epsilon": private.epsilon,
        "vocabulary_delta": private.delta,
        "vocabulary_words_per_unit": private.words_per_unit,
    }


def control_plan(plan: PrivacyPlan) -> PrivacyPlan:
    """The same run without noise and without clipping, and nothing else changed."""
    return replace(
        plan,
        epsilon=math.inf,
        noise_multiplier=0.0,
        max_grad_norm=math.inf,
        noise_source="none",
    )


def recipe_of(run: Run, table: TokenTable) -> Recipe:
    """How weights follow from batches: shared by the run and its control."""
    training = run.config.training
    return Recipe(
        table=weighted(run, table),
        masking=masking_spec(run.config),
        window=run.config.tokens.window,
        stride=run.config.tokens.stride,
        mask_seed=run.secrets.mask_seed,
        learning_rate=training.learning_rate,
        warmup=training.warmup,
        schedule=training.schedule,
        decay=training.decay,
        average=training.average,
        weight_decay=training.weight_decay,
        windows_per_draw=training.windows_per_draw,
        physical_batch_size=training.physical_batch_size,
        memory_limit=in_bytes(training.memory_gib),
        activation_checkpointing=training.activation_checkpointing,
        precision=training.precision,
        checkpoint_minutes=training.checkpoint_minutes,
        max_hours=training.max_hours,
    )


def _plan(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    canaries = run.folder("canaries")
    # Random, so that the same run file in two workspaces is two runs in the ledger.
    run_id = f"{run.config.name}-{secrets.token_hex(6)}"
    locked = {HELD_OUT: held_out_digest(run, run_id)}
    bindings = _model_bindings(run) | gradient_bindings(canaries) | locked
    plan = plan_of(run.config, CanarySet.read(canaries).commitment, bindings)
    open_ledger(run.config.ledger).refuse_unaffordable(plan)
    refuse_spoiled(run, folder)
    folder.write_json("run", {"id": run_id})
    folder.write_json("plan", plan.to_json())
    return {"counts": {"plan": plan.digest}}


def planned(run: Run) -> tuple[PrivacyPlan, str]:
    """The fixed plan and the ledger's name of this run."""
    folder = run.folder("plan")
    return PrivacyPlan.from_json(folder.read_json("plan")), folder.read_json("run")["id"]


def held_out_digest(run: Run, run_id: str) -> str:
    """Digest of ids and tokens of the held-out documents, under a secret key.

    The run's random name is in it: digests of two runs on the same documents differ, so that two
    plans side by side do not tell whether the held-out text changed.
    """
    store = TokenStore.open(run.folder("tokens"))
    whole = hmac.new(run.secrets.held_out_key, digestmod="sha256")
    whole.update(digest([run_id, store.tokenizer_digest]).encode())
    for unit in store.units("validation"):
        for document in store.documents_of(unit):
            tokens = store.tokens(document).astype("<i8").tobytes()
            name = digest([unit, store.id(document), len(tokens)])
            whole.update(name.encode() + tokens)
    return f"hmac-sha256:{whole.hexdigest()}"


def _model_bindings(run: Run) -> dict[str, str | None]:
    return model_bindings(run, load_sealed_tokenizer(run.folder("tokens")))


def best_device() -> str:
    """A CUDA device where there is one; results agree up to float rounding, noise apart."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _training(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    plan, run_id = planned(run)
    units, gradients = _private_units(run), planted_gradients(run)
    if len(units.names) + len(gradients.included) > plan.units:
        raise UserError(
            f"privacy.units {plan.units}",
            "the corpus and its canaries hold more units than that",
            "declare a larger upper bound on units, in a new workspace",
        )
    ledger = open_ledger(run.config.ledger, run.signing)
    refuse_forgotten(run, ledger)
    charges = LedgerCharges(ledger, run_id, plan)
    begun = last_step(folder.path / CHECKPOINTS)
    with closing(Watched(run, plan, ledger, run_id, begun)) as sink:
        return _fit(run, folder, units, plan, charges, report, [sink], gradients)


def _private_units(run: Run) -> Units:
    """The corpus' training units and the included canaries."""
    store = TokenStore.open(run.folder("tokens"))
    if run.config.training.leave_out:
        store = store.without(standing_alone(run, run.config.training.leave_out))
    window = run.config.tokens.window
    corpus = units_of(store, "train", run.config.privacy.unit, run.secrets.mask_seed, window)
    return JoinedUnits(corpus, canary_units(labelled_canaries(run)))


def _control(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    """Train on public text and the same canaries, without noise and without clipping.

    Canaries of the pipeline arm are left out: what scrubbing and deduplication made of them is not
    public.
    """
    control = run.config.audit.control
    if control is None:
        return {"counts": {"trained": False}}
    plan = control_plan(planned(run)[0])
    tokenizer = load_sealed_tokenizer(run.folder("tokens"))
    planted = canary_units(labelled_canaries(run))
    public = (
        {"id": d.id, "text": d.text, "unit": d.id, "split": "train"}
        for d in sample_public(control.corpus, control.text, plan.units - len(planted.names))
    )
    tokens = SealedFolder.open_or_create(
        folder.path / "tokens", [run.identity], run.own, role="control-tokens"
    )
    names = names_finder(run.config.masking.strategy, run.config.scrub.policy)
    tokens.finish(TokenStore.build(tokens, public, tokenizer, names=names))
    return _fit(run, folder, _public_units(run, folder.path), plan, PublicText(), report)


def _public_units(run: Run, folder: Path) -> Units:
    """The control's public units and the included canaries."""
    tokens = SealedFolder.open(folder / "tokens", [run.identity], role="control-tokens")
    corpus = CorpusUnits(TokenStore.open(tokens), "train", run.secrets.mask_seed)
    return JoinedUnits(corpus, canary_units(labelled_canaries(run)))


def take_part(run: Run, stage: str) -> None:
    """This rank's share of a training that the first rank leads; writes nothing."""
    plan, folder = planned(run)[0], run.workspace.stage(stage)
    if stage == "training":
        gradients = planted_gradients(run)
        _train(run, folder, _private_units(run), plan, PublicText(), gradients=gradients)
    else:
        _train(run, folder, _public_units(run, folder), control_plan(plan), PublicText())


def _fit(
    run: Run,
    folder: SealedFolder,
    units: Units,
    plan: PrivacyPlan,
    charges: Charges,
    report: Report,
    telemetry: Sequence[Sink] = (),
    gradients: GradientCanaries = NO_GRADIENT_CANARIES,
) -> dict[str, Any]:
    """Train from the initial model and leave the finished model in `folder`."""
    Ranks.current().same(folder.path.name)  # calls the other ranks to it
    model, tokenizer, progress = _train(
        run, folder.path, units, plan, charges, report, telemetry, gradients
    )
    save_model(folder, model, tokenizer)
    keep_transcript(folder, progress, plan)
    lines = (json.dumps(event) + "\n" for event in progress.events)
    folder.write_bytes(EVENTS, "".join(lines).encode())
    return {
        "counts": {
            "trained": True,
            "model": model_digest(model),
            "steps": progress.step,
        }
    }


def _train(
    run: Run,
    folder: Path,
    units: Units,
    plan: PrivacyPlan,
    charges: Charges,
    report: Report = lambda done, total: None,
    telemetry: Sequence[Sink] = (),
    gradients: GradientCanaries = NO_GRADIENT_CANARIES,
) -> tuple[Any, Any, Progress]:
    """(model, tokenizer, progress) of a whole training; what all ranks do together."""
    tokenizer = load_sealed_tokenizer(run.folder("tokens"))
    model = model_to_train(run, tokenizer)
    nn.Module.to(model, best_device())
    checkpoints = _checkpoints(run, folder, plan)
    recipe = recipe_of(run, TokenTable.of(tokenizer))
    # The control takes every step: what it shows must not depend on when the run stopped.
    public = public_loss(run.config.training.best, tokenizer, recipe) if plan.private else None
    recipe = replace(recipe, scales=scales_of(run.config.training.scale, tokenizer, recipe, model))
    progress = train(
        model, units, plan, recipe,
        charges=charges, checkpoints=checkpoints, report=report, telemetry=telemetry,
        gradients=gradients, public=public,
    )  # fmt: skip
    return merged(model), tokenizer, progress


def _checkpoints(run: Run, folder: Path, plan: PrivacyPlan) -> Checkpoints:
    training = run.config.training
    local = training.checkpoint_local
    if local is not None:  # the run's id is drawn once a workspace: no other has the name
        local = local / f"{planned(run)[1]}-{folder.name}"
    return Checkpoints(
        folder / CHECKPOINTS, run.identity, run.own, plan.digest,
        keep=training.keep_checkpoints, local=local,
    )  # fmt: skip


def _clear_checkpoints(folder: SealedFolder) -> None:
    shutil.rmtree(folder.path / CHECKPOINTS, ignore_errors=True)


def _refuse_charged(run: Run) -> None:
    """Checkpoints of a charged step belong to the plan that was reserved for them."""
    _, run_id = planned(run)
    ledger = open_ledger(run.config.ledger)
    if run_id in ledger.run_ids and ledger.charged_steps(run_id):
        raise UserError(
            f"stage training in {run.workspace.path}",
            "its steps are charged, and it was begun from other text or settings than these",
            "put back what was changed, or use another workspace (--set workspace=...)",
        )


def _settings(run: Run) -> dict[str, Any]:
    return claim_fields(run.config.training) | {
        "model": claim_fields(run.config.model),
        "masking": claim_fields(run.config.masking) | weights_binding(run.config),
        "public": _public_bindings(run.config),
        "window": run.config.tokens.window,
        "seed": run.config.seed,
    }


def _control_settings(run: Run) -> dict[str, Any]:
    control = run.config.audit.control
    return _settings(run) | {"control": public_digest(control.corpus) if control else None}


def _plan_settings(run: Run) -> dict[str, Any]:
    return claim_fields(run.config.privacy) | _settings(run) | _model_bindings(run)


PLAN = Stage("plan", ("canaries",), _plan_settings, _plan)
TRAINING = Stage(
    "training",
    ("plan", "tokens", "canaries"),
    _settings,
    _training,
    clear=_clear_checkpoints,
    guard=_refuse_charged,
)
CONTROL = Stage(
    "control", ("plan", "tokens", "canaries"), _control_settings, _control, clear=_clear_checkpoints
)
