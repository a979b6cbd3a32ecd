"""What leaves the sealed world, on explicit request: the auditor's page, and plain weights."""

import shutil
from pathlib import Path

from dpmlm.artifacts import SealedFolder, atomic_write, load_identity
from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.outcome import REPORT
from dpmlm.release import load_released


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
    opener = load_identity(identity or config.keys.identity)
    page = SealedFolder.open(folder, [opener]).read_bytes(REPORT)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as file:
        file.write(page)
    return target


def export_plaintext(bundle: Path, target: Path, *, identity: Path, trusted_keys: Path) -> Path:
    """Write the model of a verified bundle as a plain folder; it is there whole or not at all."""
    if target.exists():
        raise UserError(f"--to {target}", "it is there already", "name a new folder")
    model, tokenizer = load_released(bundle, identity=identity, trusted_keys=trusted_keys)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
