"""The bundle: a sealed model, what is promised about it, the evidence, and one signature on it all.

    manifest.dsse.json   DSSE envelope over an in-toto statement: a digest of every other file
    statement.json plan.json ledger.json training.json     the claim and what was spent
    evidence.json decision.json policy.yaml                the audits and the gate
    report.html MODEL_CARD.md                              for people
    bom.cdx.json                                           bill of materials, for tools
    model/                                   weights, tokenizer, config, answers to probes, sealed
    attestations/             signed statements about the release; proof that the log holds it

The model's key is always wrapped for those who keep the bundle (trainer, auditor), and for its
consumers on PASS only: a model that has not passed cannot be opened by them.
"""

import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from dpmlm.artifacts import (
    Identity,
    Recipient,
    SealedFolder,
    SigningKey,
    atomic_write,
    load_identity,
)
from dpmlm.artifacts.atomic import place_folder
from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.plan import PrivacyPlan
from dpmlm.release import mlbom
from dpmlm.release.answers import Answers, ask, check_answers, keep_answers, refuse_unlike
from dpmlm.release.attestations import write_signed, write_statements
from dpmlm.release.consistency import Contents, contradictions, read_contents, withheld
from dpmlm.release.facts import spelled
from dpmlm.release.gate import Decision
from dpmlm.release.inventory import (
    MANIFEST,
    ROLE,
    SEALED_MODEL,
    release_digest,
    take_inventory,
)
from dpmlm.release.log.appending import log_release
from dpmlm.release.outside import Outside
from dpmlm.release.policy import ReleasePolicy
from dpmlm.release.provenance import STATEMENT, BuildInputs
from dpmlm.release.verification import PREDICATE_TYPE, SCHEMA, verify_bundle

RELEASE_MARK = "dpmlm_release"
"""Attribute of a model that `load_released` gave: the digest that names its release."""
PRIVATE_MARK = 'data-audience="auditor"'
"""Stands in every report that shows private figures; no bundle takes such a page."""
_PARTIAL = ".partial"


class _Json(Protocol):
    def to_json(self) -> Any: ...


def write_bundle(
    folder: Path,
    *,
    model: Any,
    tokenizer: Any,
    statement: _Json | Mapping[str, Any],
    plan: PrivacyPlan,
    evidence_public: Mapping[str, Any] | None,
    decision: Decision,
    ledger_summary: Mapping[str, Any],
    policy: ReleasePolicy,
    recipients_consumer: Sequence[Recipient],
    recipients_keep: Sequence[Recipient],
    signing_key: SigningKey,
    report_html: str,
    model_card: str,
    inputs: BuildInputs,
    opener: Identity,
    training: Mapping[str, Any] | None = None,
    log: Path | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Write a signed bundle at `folder`, whole or not at all, and return its path.

    `evidence_public` comes from `public_evidence`; `report_html` is the page without private
    figures; `inputs` is what the run was made from, and `training` are the public facts that the
    decision was made on. `check`, if given, sees all files before anything is signed, and may
    raise. `opener`, one of those who keep it, opens the sealed model as consumers do, and it has to
    answer public probes as `model` does. In `log`, if given, the release is entered after that and
    before it is signed.

    Raises:
        UserError: `folder` exists; the decision does not follow from policy and facts; the
            evidence is about another model or plan; `log` is not what its head was signed over.
        IntegrityError: the sealed model is not the one that was given, or answers otherwise.
        ValueError: something private was handed in.
    """
    from dpmlm.artifacts import model_digest, tokenizer_digest

    folder = Path(folder)
    evidence = dict(evidence_public or {})
    _refuse_private(evidence, report_html)
    _refuse_existing(folder)
    consumers = list(recipients_consumer) if decision.verdict == "PASS" else []
    texts = {
        "statement.json": _pretty(_value(statement)),
        "plan.json": _pretty(plan.to_json()),
        "evidence.json": _pretty(evidence),
        "decision.json": _pretty(decision.public().to_json()),
        "ledger.json": _pretty(dict(ledger_summary)),
        "training.json": _pretty(dict(training or {})),
        "policy.yaml": policy.text,
        "MODEL_CARD.md": model_card,
        "report.html": report_html,
    }
    predicate = {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": decision.verdict,
        "run_id": ledger_summary["run_id"],
        "policy_digest": policy.digest,
        "plan_digest": plan.digest,
        "model_digest": model_digest(model),
        "tokenizer_digest": tokenizer_digest(tokenizer),
        "recipients": {
            "keep": sorted({recipient.key_id for recipient in recipients_keep}),
            "consumers": sorted({recipient.key_id for recipient in consumers}),
        },
    }
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}{_PARTIAL}")
    try:
        partial.mkdir(parents=True)
        answers = ask(model, tokenizer)
        sealed = partial / SEALED_MODEL
        _seal_model(sealed, model, tokenizer, answers, [*recipients_keep, *consumers])
        _, *opened = open_model(partial, predicate, opener)
        refuse_unlike(folder, answers, *opened)
        texts[mlbom.NAME] = _pretty(
            mlbom.bill_of_materials(
                model_digest=str(predicate["model_digest"]),
                sealed=_sealed_files(partial),
                statement=_value(statement),
                decision=decision,
            )
        )
        for name, text in texts.items():
            with atomic_write(partial / name) as file:
                file.write(text.encode())
        contents = _agreeing_contents(partial, predicate)
        if check is not None:
            check(partial)
        if log is not None:
            log_release(partial, predicate, ledger_summary, log, signing_key)
        _sign(partial, predicate, contents, inputs, signing_key)
        place_folder(partial, folder)
    except OSError as error:
        raise UserError(
            f"bundle {folder}",
            f"it could not be written ({os.strerror(error.errno) if error.errno else error})",
            "make room or name another folder; nothing was left behind",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def load_released(
    bundle: Path | str,
    *,
    identity: Identity | Path | str,
    trusted_keys: Path | str,
    require: Sequence[str] = (),
    policy: Path | str | None = None,
) -> tuple[Any, Any]:
    """Model and tokenizer of a bundle that verifies, decrypted in memory.

    `identity` is a consumer's (or keeper's) identity or its file; `trusted_keys` a folder of .pub
    files of signers; `require` are roles (auditor, approver) who must have countersigned it,
    and `policy` is the one that it must have been judged by, a shipped one by name. What whoever
    uses the model has to know is a warning (`warnings`).

    Raises:
        IntegrityError: the bundle does not verify, what is sealed in it is another model or
            tokenizer than the one that was judged, or it answers public probes otherwise here than
            where it was released (`answers`).
        UserError: the identity cannot open it, which is so for every consumer unless the verdict
            is PASS.
    """
    path = Path(bundle)
    checked = verify_bundle(
        path,
        Path(trusted_keys),
        now=datetime.now(UTC),
        require=require,
        outside=Outside(policy=policy),
    )
    checked.insist(path)
    for warning in checked.warnings:
        warnings.warn(f"bundle {path}: {warning}", stacklevel=2)
    opener = identity if isinstance(identity, Identity) else load_identity(Path(identity))
    keepers = checked.manifest["recipients"]["keep"]
    if checked.verdict != "PASS" and opener.key_id not in keepers:
        raise UserError(
            f"bundle {path} with verdict {checked.verdict}",
            "only a model that passed its gate can be opened by consumers",
            f"read {path / 'report.html'} to see which rules did not pass",
        )
    sealed, model, tokenizer = open_model(path, checked.manifest, opener)
    check_answers(path, sealed, model, tokenizer)
    setattr(model, RELEASE_MARK, release_digest(checked.manifest["files"]))
    return model, tokenizer


def open_model(
    bundle: Path, manifest: Mapping[str, Any], opener: Identity
) -> tuple[SealedFolder, Any, Any]:
    """The sealed folder of a bundle's model, the model and its tokenizer; IntegrityError unless
    they are those of `manifest`."""
    from dpmlm.artifacts import load_model, model_digest, tokenizer_digest

    sealed = SealedFolder.open(bundle / SEALED_MODEL, [opener], role=ROLE)
    model, tokenizer = load_model(sealed)
    _refuse_others(bundle, manifest, model_digest(model), tokenizer_digest(sealed))
    return sealed, model, tokenizer


def _refuse_others(path: Path, manifest: Mapping[str, Any], model: str, tokenizer: str) -> None:
    """Nobody sees without a key what is sealed: the signer may have sealed something else."""
    for what, found in (("model", model), ("tokenizer", tokenizer)):
        signed = manifest.get(f"{what}_digest")
        if found != signed:
            raise IntegrityError(
                f"bundle {path}, {what} of digest {found}",
                f"the one that was judged and signed has {signed}",
                "ask the signer: the bundle is theirs, and holds another one",
            )


def _seal_model(
    path: Path, model: Any, tokenizer: Any, answers: Answers, recipients: list[Recipient]
) -> None:
    from dpmlm.artifacts import save_model

    sealed = SealedFolder.create(path, recipients, role=ROLE)
    save_model(sealed, model, tokenizer)
    keep_answers(sealed, answers)
    sealed.finish({"schema": SCHEMA})


def _sealed_files(bundle: Path) -> dict[str, Path]:
    """Encrypted files of the model by name; they stay as they are when recipients change."""
    files = (bundle / SEALED_MODEL).glob("*.sealed")
    return {f"{SEALED_MODEL}/{path.name}": path for path in files}


def _sign(
    folder: Path,
    predicate: Mapping[str, Any],
    contents: Contents,
    inputs: BuildInputs,
    key: SigningKey,
) -> None:
    """Sign the statements about all that is there, and the manifest, which lists them too."""
    files = take_inventory(folder)
    stated = {**predicate, "files": files}
    files |= write_statements(folder, stated, contents, inputs, key)
    payload = {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": record["digest"].removeprefix("sha256:")}}
            for name, record in sorted(files.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {**predicate, "files": files},
    }
    write_signed(folder / MANIFEST, payload, key)


def _refuse_private(evidence: Mapping[str, Any], report_html: str) -> None:
    hidden = withheld(evidence, "audit")
    if hidden:
        raise ValueError(f"evidence for consumers holds private parts: {', '.join(hidden)}")
    if PRIVATE_MARK in report_html:
        raise ValueError("the report for consumers was rendered with private figures")


def _refuse_existing(folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise UserError(
            f"bundle folder {folder}",
            "it already exists, and a bundle is never written over",
            "name another folder, or remove this one",
        )


def _agreeing_contents(folder: Path, predicate: Mapping[str, Any]) -> Contents:
    """The public files as a reader parses them; UserError where they contradict each other."""
    contents, findings = read_contents(folder)
    if contents is not None:
        findings = contradictions(contents, predicate)
    if contents is None or findings:
        first = findings[0]
        raise UserError(
            f"{first.file}, {first.where}",
            first.what,
            "run `dpmlm audit` and `dpmlm gate` again for this model and plan",
        )
    return contents


def _value(part: _Json | Mapping[str, Any]) -> Any:
    return dict(part) if isinstance(part, Mapping) else part.to_json()


def _pretty(value: Any) -> str:
    return json.dumps(spelled(value), indent=2, sort_keys=True, allow_nan=False) + "\n"
