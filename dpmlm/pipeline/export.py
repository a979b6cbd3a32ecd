"""What leaves the sealed world, on explicit request: the auditor's page, and plain weights."""

import hashlib
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging

from dpmlm.artifacts import SealedFolder, atomic_write, canonical_json, load_identity
from dpmlm.artifacts.atomic import place_folder, sync_folder
from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.outcome import REPORT
from dpmlm.pipeline.workspace import Workspace, deciding_settings
from dpmlm.release import load_released
from dpmlm.release.exports import RECORD, log_export, log_of
from dpmlm.release.inventory import MANIFEST, release_digest
from dpmlm.release.signed import peek


def open_report(config: RunConfig, target: Path, *, identity: Path | None) -> Path:
    """Decrypt the auditor's report of a finished run into `target`.

    `identity` is the auditor's key file; without it the run's own identity is used.
    """
    if target.exists():
        raise UserError(f"--open-to {target}", "it is there already", "name a new file")
    folder = config.workspace / "release" / "auditor"
    if not folder.is_dir():
        raise UserError(
            f"workspace {config.workspace}", "it holds no finished run", "run `dpmlm run` first"
        )
    Workspace(config.workspace).check(config.name, deciding_settings(config))
    opener = load_identity(identity or config.keys.identity)
    page = SealedFolder.open(folder, [opener]).read_bytes(REPORT)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target, mode=0o600) as file:
        file.write(page)
    return target


def export_plaintext(
    bundle: Path, target: Path, *, identity: Path, trusted_keys: Path, log: Path | None = None
) -> Path:
    """Write the model of a verified bundle as a plain folder; it is there whole or not at all.

    The export is logged first, in `log` or else in `exports.log_of`; without that nothing is
    written. The folder and all in it belong to its owner alone.
    """
    if os.path.lexists(target):
        raise UserError(f"--to {target}", "it is there already", "name a new folder")
    place = log_of(bundle) if log is None else log
    _refuse_within(place, {"--to": target, "bundle": bundle})
    opener = load_identity(identity)
    signed = (bundle / MANIFEST).read_bytes()
    model, tokenizer = load_released(bundle, identity=opener, trusted_keys=trusted_keys)
    if (bundle / MANIFEST).read_bytes() != signed:
        raise UserError(f"bundle {bundle}", "another one took its place meanwhile", "repeat this")
    manifest = "sha256:" + hashlib.sha256(signed).hexdigest()
    release = release_digest(peek(signed)[1]["predicate"]["files"])
    log_export(
        place, release=release, manifest=manifest, opened_by=opener.key_id, target=target.name
    )
    record = {
        "schema": "dpmlm.export/1",
        "bundle_manifest": manifest,
        "opened_by": opener.key_id,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    logging.disable_progress_bar()
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)  # before anything is in it
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / RECORD).write_bytes(canonical_json(record))
        _settle(partial)
        place_folder(partial, target)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"--to {target}", f"the model could not be written ({error})", "make room and repeat"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _refuse_within(log: Path, folders: dict[str, Path]) -> None:
    """A log that lies in what is exported goes with it; one in the bundle breaks its signature."""
    for name, folder in folders.items():
        if log.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"--log {log}", f"it lies in {name} {folder}", "name a file outside of it"
            )


def _settle(folder: Path) -> None:
    """Give everything to its owner alone, and bring it to the disk."""
    for base, _, names in os.walk(folder, topdown=False):
        for name in names:
            with open(Path(base) / name, "rb") as file:
                os.fchmod(file.fileno(), 0o600)
                os.fsync(file.fileno())
        Path(base).chmod(0o700)
        sync_folder(Path(base))
