"""The audits of a run's model, and their evidence."""

from collections.abc import Mapping
from typing import Any, get_args

import audits
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet
from audits.planting.labels import Labels
from audits.private import PrivateCases
from audits.text.pii_games import Tagger
from dpmlm.artifacts import SealedFolder, load_model, model_digest, save_model
from dpmlm.config import claim_fields
from dpmlm.pipeline.attack_cases import Text, finding_identifiers, membership_case, pii_case
from dpmlm.pipeline.base import initial_model, load_reference
from dpmlm.pipeline.canaries import read_survival
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.models import planned
from dpmlm.pipeline.progress import Report
from dpmlm.pipeline.stages import Stage
from dpmlm.pipeline.verbatim_case import verbatim_case
from dpmlm.pipeline.whitebox import kept_gradients
from dpmlm.tokens import load_sealed_tokenizer

UNTRAINED = "untrained"
"""Folder of the model before training, in the audit's folder."""
TRANSCRIPT = "transcript"
"""Sealed file of all scores, in the audit's folder; the labels are opened after it is there."""
DEVICE = "auto"
"""Where a run scores its models: where it trained them."""


def _audit(run: Run, folder: SealedFolder, report: Report) -> dict[str, Any]:
    tokenizer = load_sealed_tokenizer(run.folder("tokens"))
    plan, _ = planned(run)
    control = run.folder("control")
    trained = control.manifest is not None and control.manifest["counts"]["trained"]
    untrained = initial_model(run, tokenizer)
    _keep_untrained(run, folder, untrained, tokenizer)

    def opened(transcript: Mapping[str, Any]) -> Labels:
        folder.write_json(TRANSCRIPT, transcript)
        return Labels.read(run.folder("canaries"))

    with finding_identifiers() as tagger:
        evidence = audits.audit(
            LoadedModel.of(*load_model(run.folder("training")), device=DEVICE),
            plan=plan.to_json(),
            canaries=CanarySet.read(run.folder("canaries")),
            control=LoadedModel.of(*load_model(control), device=DEVICE) if trained else None,
            untrained=LoadedModel.of(untrained, tokenizer, device=DEVICE),
            reference=load_reference(run, tokenizer),
            private=_private_cases(run, tagger),
            labels=opened,
            beta=run.config.audit.beta,
            progress=report,
        )
    folder.write_json("evidence", evidence)
    return {}


def _private_cases(run: Run, tagger: Tagger) -> PrivateCases:
    """What the run file asks to be tried on private text."""
    asked, kinds = run.config.audit, get_args(Text)
    identifiers = {
        kind: pii_case(run, tagger, text=kind, documents=asked.identifiers)
        for kind in kinds
        if asked.identifiers
    }
    return PrivateCases(
        verbatim=verbatim_case(run),
        membership=membership_case(run, asked.membership) if asked.membership else None,
        identifiers=identifiers,
        tagger=tagger,
        gradients=kept_gradients(run),
        survival=read_survival(run),
    )


def _keep_untrained(run: Run, folder: SealedFolder, model: Any, tokenizer: Any) -> None:
    """Seal the model before training beside the evidence: `dpmlm audit` repeats the tests on it."""
    beside = SealedFolder.open_or_create(
        folder.path / UNTRAINED, [run.identity], run.own, role="untrained"
    )
    if beside.manifest is None:
        save_model(beside, model, tokenizer)
        beside.finish({"model": model_digest(model)})


AUDIT = Stage(
    "audit",
    ("training", "control", "canaries", "tokens"),
    lambda run: claim_fields(run.config.audit),
    _audit,
)
