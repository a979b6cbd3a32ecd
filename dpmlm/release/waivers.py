"""Waivers: an approver excuses one rule, for one model under one policy, until a date.

A waiver is a DSSE envelope over an in-toto statement whose subject is the model. It excuses what
was measured and does not hold; what is missing was not measured, and cannot be excused.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from dpmlm.artifacts import SigningKey, canonical_json, open_envelope, sign_envelope
from dpmlm.artifacts.signing import VerifyKey
from dpmlm.errors import IntegrityError, UserError
from dpmlm.release.policy import ReleasePolicy

TYPE = "urn:dpmlm:waiver:1"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_FIELDS = {"rule", "policy_digest", "model_digest", "reason", "created", "expires", "approver"}
_LONGEST = timedelta(days=366)
_CLOCK_SKEW = timedelta(days=1)
_MAX_REASON = 1000
_MAX_BYTES = 64 << 10


@dataclass(frozen=True)
class Waiver:
    """What one envelope says; who signed it is checked by `signed_by` alone."""

    rule: str
    """Id of the rule."""
    policy_digest: str
    """Of the policy that has it."""
    model_digest: str
    """Of the weights that it is excused for."""
    reason: str
    """The approver's; everybody who gets the bundle reads it."""
    created: datetime
    """When it was signed, by the approver's clock."""
    expires: datetime
    """The last second in which a decision may rest on it."""
    approver: str
    """Key id of the signer."""
    envelope: Mapping[str, Any]
    """As it was signed."""

    @property
    def sentence(self) -> str:
        """What a decision says of it."""
        return (
            f"Waived until {self.expires.isoformat()} by the approver's key {self.approver}: "
            f"{self.reason}"
        )

    def signed_by(self, approvers: Mapping[str, VerifyKey], others: Sequence[str]) -> None:
        """Raises IntegrityError unless one of `approvers` signed, who is none of `others`.

        `others` are key ids of those who sign bundles: nobody excuses their own model.
        """
        if self.approver in others:
            raise IntegrityError(
                f"waiver of {self.rule} by key {self.approver}",
                "whoever signs the bundle excuses none of its rules",
                "ask an approver with a key of their own",
            )
        open_envelope(self.envelope, approvers, payload_type=_PAYLOAD_TYPE)

    def check(self, policy: ReleasePolicy, model_digest: Any, now: datetime) -> None:
        """Raises UserError unless it is about a rule of this policy that may be waived, and about
        this model, and in force at `now`."""
        what = f"waiver of {self.rule} by key {self.approver}"
        ask = "ask the approver for another"
        if self.policy_digest != policy.digest:
            raise UserError(what, f"it is about another policy, {self.policy_digest}", ask)
        if self.model_digest != model_digest:
            raise UserError(what, f"it is about another model, {self.model_digest}", ask)
        if now > self.expires:
            raise UserError(what, f"it expired at {self.expires.isoformat()}", ask)
        if self.created > now + _CLOCK_SKEW:
            raise UserError(what, f"it was signed at {self.created.isoformat()}, later", ask)
        if not policy.known(self.rule).waivable:
            raise UserError(
                what,
                f"policy {policy.policy} lets nobody waive it",
                "release under a policy whose rules hold",
            )


def refuse_expired(bundle: Path, envelopes: Sequence[Any], now: datetime) -> None:
    """UserError unless every waiver that a bundle's PASS rests on is in force at `now`.

    Whoever gave it out till then did so rightly; nobody new gets it, and no alias points to it.
    """
    for envelope in envelopes:
        waiver = read_waiver(envelope, name="a waiver")
        if waiver.expires < now:
            raise UserError(
                f"bundle {bundle}",
                f"its PASS rests on a waiver of {waiver.rule} that expired at "
                f"{waiver.expires.isoformat()}",
                "ask the approver for another, and release the model again",
            )


def sign_waiver(
    *,
    rule: str,
    policy_digest: str,
    model_digest: str,
    reason: str,
    expires: str,
    key: SigningKey,
    now: datetime,
) -> Waiver:
    """A signed waiver. Raises UserError for a date or a reason without sense."""
    predicate = {
        "rule": rule,
        "policy_digest": policy_digest,
        "model_digest": model_digest,
        "reason": _sensible_reason(reason),
        "created": now.astimezone(UTC).isoformat(timespec="seconds"),
        "expires": sensible_date(expires, now).isoformat(),
        "approver": key.key_id,
    }
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [_subject(model_digest)],
        "predicateType": TYPE,
        "predicate": predicate,
    }
    return read_waiver(sign_envelope(statement, _PAYLOAD_TYPE, [key]), name="waiver")


def sensible_date(text: str, now: datetime) -> datetime:
    """The end of a day (UTC), or a time with a zone; in the future, and within 366 days."""
    rule = "a waiver ends on a day such as 2027-01-31, or at a time with a zone"
    try:
        if len(text) == 10:
            until = datetime.combine(date.fromisoformat(text), time(23, 59, 59), UTC)
        else:
            until = datetime.fromisoformat(text).replace(microsecond=0)
            if until.tzinfo is None:
                raise ValueError("no zone")
        until = until.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UserError(f"--expires {text}", rule, "give such a day") from None
    if until <= now:
        raise UserError(f"--expires {text}", "that is over", "give a day to come")
    if until > now + _LONGEST:
        raise UserError(f"--expires {text}", "a waiver lasts a year at most", "give an earlier day")
    return until


def _sensible_reason(reason: str) -> str:
    reason = reason.strip()
    if not reason or len(reason) > _MAX_REASON or not reason.isprintable():
        raise UserError(
            "--reason", f"it is one line of 1 to {_MAX_REASON} characters", "say why, for readers"
        )
    return reason


def load_waiver(path: Path) -> Waiver:
    """Read a waiver file; its signature is not checked. Raises UserError."""
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("too large")
        data = path.read_bytes()
        envelope = json.loads(data)
        if canonical_json(envelope) + b"\n" != data:
            raise ValueError("another spelling")
    except OSError:
        raise UserError(str(path), "it cannot be read", "name a waiver file") from None
    except (ValueError, RecursionError):
        raise _unusable(str(path)) from None
    return read_waiver(envelope, name=str(path))


def read_waiver(envelope: Any, *, name: str) -> Waiver:
    """What an envelope says, its signature not checked; UserError, naming it, for any other."""
    try:
        payload = json.loads(base64.b64decode(envelope["payload"], validate=True))
        said = payload["predicate"]
        (signature,) = envelope["signatures"]
        if payload["predicateType"] != TYPE or set(said) != _FIELDS:
            raise ValueError("another statement")
        if not all(isinstance(value, str) for value in said.values()):
            raise ValueError("not text")
        if payload["subject"] != [_subject(said["model_digest"])]:
            raise ValueError("another subject")
        created, expires = (datetime.fromisoformat(said[key]) for key in ("created", "expires"))
        if not created <= expires <= created + _LONGEST + _CLOCK_SKEW:
            raise ValueError("dates without sense")
        if said["approver"] != signature["keyid"] or _sensible_reason(said["reason"]) == "":
            raise ValueError("another signer")
    except (UserError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _unusable(name) from None
    return Waiver(**{**said, "created": created, "expires": expires}, envelope=envelope)


def _subject(model_digest: str) -> dict[str, Any]:
    return {"name": "model", "digest": {"sha256": model_digest.removeprefix("sha256:")}}


def _unusable(name: str) -> UserError:
    return UserError(name, "it is no whole waiver", "ask the approver for the file as it was")
