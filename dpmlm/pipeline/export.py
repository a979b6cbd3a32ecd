"""What leaves the sealed world, on explicit request: the auditor's page, and plain weights."""

import hashlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging

from dpmlm.artifacts import SealedFolder, atomic_write, canonical_json, load_identity
from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.outcome import REPORT
from dpmlm.pipeline.workspace import Workspace, deciding_settings
from dpmlm.release import load_released

RECORD = "dpmlm-export.json"
"""Says in an exported folder which bundle it came from, when, and whose key opened it."""


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


def export_plaintext(bundle: Path, target: Path, *, identity: Path, trusted_keys: Path) -> Path:
    """Write the model of a verified bundle as a plain folder; it is there whole or not at all."""
    if target.exists():
        raise UserError(f"--to {target}", "it is there already", "name a new folder")
    opener = load_identity(identity)
    model, tokenizer = load_released(bundle, identity=opener, trusted_keys=trusted_keys)
    record = {
        "schema": "dpmlm.export/1",
        "bundle_manifest": _digest(bundle / "manifest.dsse.json"),
        "opened_by": opener.key_id,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    logging.disable_progress_bar()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        with atomic_write(partial / RECORD) as file:
            file.write(canonical_json(record))
        partial.rename(target)
    except SafetensorError as error:
        raise UserError(
            f"--to {target}", f"the model could not be written ({error})", "make room and repeat"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
