"""Waivers of a run: those its run file names, and the signing of another."""

from datetime import UTC, datetime

from dpmlm.artifacts import load_signing_key, load_verify_key
from dpmlm.artifacts.signing import VerifyKey
from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.outcome import gather
from dpmlm.pipeline.progress import Progress
from dpmlm.pipeline.workspace import deciding_settings
from dpmlm.release.gate import decide
from dpmlm.release.policy import load_policy
from dpmlm.release.waivers import Waiver, load_waiver, sign_waiver


def waivers_of(run: Run) -> list[Waiver]:
    """The waivers of `release.waivers`, each signed by one of `release.approvers`."""
    release = run.config.release
    approvers = _approvers(run.config)
    found = [load_waiver(path) for path in release.waivers]
    for waiver in found:
        waiver.signed_by(approvers, [run.signing.key_id])
    return found


def waive(config: RunConfig, *, rule: str, reason: str, expires: str, signing_key: str) -> Waiver:
    """A waiver of a rule that this run's model does not hold, signed with an approver's key.

    Raises UserError unless the rule was measured and fails, the key is one of `release.approvers`
    and not the run's own, and date and reason make sense.
    """
    run = Run.load(config, Progress(quiet=True))
    run.workspace.check(config.name, deciding_settings(config))
    policy, key = load_policy(config.release.policy), load_signing_key(signing_key)
    policy.known(rule)
    if key.key_id not in _approvers(config):
        raise UserError(
            f"--signing-key {signing_key}",
            "it is none of the keys of release.approvers",
            "let an approver sign, or name their .pub file there",
        )
    facts, now = gather(run), datetime.now(UTC)
    waiver = sign_waiver(
        rule=rule,
        policy_digest=policy.digest,
        model_digest=facts["training"]["model_digest"],
        reason=reason,
        expires=expires,
        key=key,
        now=now,
    )
    waiver.signed_by(_approvers(config), [run.signing.key_id])
    decide(policy, facts, now=now, waivers=[waiver])
    return waiver


def _approvers(config: RunConfig) -> dict[str, VerifyKey]:
    keys = [load_verify_key(path) for path in config.release.approvers]
    return {key.key_id: key for key in keys}
