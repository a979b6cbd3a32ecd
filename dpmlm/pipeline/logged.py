"""A run and the release log that its run file names.

The log is held against its head, and against the bundle that the workspace holds, before the run
starts and again before a release is entered: whoever puts an older log back without a key would
otherwise have the run sign a split view. A release that was made without the log, or that an older
log has lost, is entered once the run is done.
"""

import json

from dpmlm.errors import IntegrityError, UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.workspace import BUNDLE
from dpmlm.release.inventory import MANIFEST
from dpmlm.release.log.appending import append, check_log
from dpmlm.release.log.entry import entry_of
from dpmlm.release.signed import open_signed


def check_run_log(run: Run) -> None:
    """Refuse a log that its head does not match, another key's, and one that was put back."""
    log = run.config.release.log
    if log is None:
        return
    if run.config.workspace.resolve() in log.resolve().parents:
        raise UserError(
            f"release.log {log}", "a log outlives workspaces", "name a file beside the ledger"
        )
    trusted = {run.signing.key_id: run.signing.verify_key}
    try:
        check_log(log, trusted, run.workspace.stage(BUNDLE))
    except IntegrityError as error:
        raise UserError(
            f"release.{error.given}",
            error.rule,
            f"look at it with `dpmlm log verify {log} --trusted-keys DIR`, restore it, or hand a "
            "log of another key over (docs/log.md)",
        ) from None


def enter_finished(run: Run) -> None:
    """Enter the bundle of a finished run in its log, if it is not there, and say so."""
    log = run.config.release.log
    if log is None:
        return
    check_run_log(run)
    bundle = run.workspace.stage(BUNDLE)
    trusted = {run.signing.key_id: run.signing.verify_key}
    manifest = open_signed(bundle / MANIFEST, trusted)[0]["predicate"]
    ledger = json.loads((bundle / "ledger.json").read_bytes())
    entry = entry_of(manifest, ledger, manifest["files"])
    _, index, added = append(log, entry, run.signing, trusted)
    if added:
        run.progress.say(
            f"release: log {log} did not hold this bundle, so it was entered, as entry "
            f"{index + 1}; `dpmlm log prove` writes its proof"
        )
