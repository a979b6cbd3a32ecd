"""Changing who can open a released model.

The signature covers the model's recipients file, as it does every file of a bundle: a change of
recipients is signed again, by the key that signed the bundle. What did not pass gets no consumers
even so, and a PASS on a waiver that expired gets no more.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpmlm.artifacts import Identity, SigningKey, atomic_write, canonical_json
from dpmlm.artifacts.rotation import Change, Rewrap, plan_folder
from dpmlm.errors import UserError
from dpmlm.release.inventory import (
    MANIFEST,
    PAYLOAD_TYPE,
    RECIPIENTS,
    ROLE,
    SEALED_MODEL,
    take_record,
)
from dpmlm.release.signed import peek
from dpmlm.release.waivers import refuse_expired

_DECISION = "decision.json"


@dataclass(frozen=True)
class BundleRewrap:
    """A bundle's recipients, as they are and as they will be."""

    bundle: Path
    model: Rewrap
    """Of its sealed model."""
    manifest: bytes | None
    """The manifest signed again; None where nobody comes or goes."""

    def write(self) -> None:
        """Replace the manifest, then the recipients file; nothing where nothing changes.

        After a kill between them the bundle does not verify, its recipients are those of before,
        and the same change, planned again, mends it.
        """
        if self.manifest is not None:
            with atomic_write(self.bundle / MANIFEST) as file:
                file.write(self.manifest)
            self.model.write()


def plan_bundle(
    bundle: Path,
    identities: Sequence[Identity],
    change: Change,
    signing_key: SigningKey | None = None,
    now: datetime | None = None,
) -> BundleRewrap:
    """What `change` makes of a bundle's recipients; writes nothing.

    Raises UserError as `plan_folder` does, for a consumer of a model that did not pass, for one
    more of a model whose PASS rests on a waiver that expired before `now` (this moment), where
    somebody comes or goes and `signing_key` is missing or another than signed the bundle, and
    where others than those signed can open it.
    """
    envelope, payload = _manifest(bundle / MANIFEST)
    predicate = payload["predicate"]
    _refuse_consumers(bundle, predicate, change)
    _refuse_more(bundle, predicate, change, now or datetime.now(UTC))
    model = plan_folder(bundle / SEALED_MODEL, identities, change)
    if model.label != ROLE:
        raise UserError(
            f"{model.path}, a folder of {model.label}", "a bundle's model is needed", "name another"
        )
    if not model.changes:
        return BundleRewrap(bundle, model, None)
    if signing_key is None:
        raise UserError(
            f"bundle {bundle}",
            "its signature covers its recipients file",
            "give --signing-key, the key that signed it, or name what else is to change",
        )
    _refuse_another_signer(bundle, envelope, signing_key)
    listed = recipients_after(predicate, model.after, change)
    _refuse_unsigned(bundle, predicate, model, listed)
    return BundleRewrap(bundle, model, _signed_again(payload, model, listed, signing_key))


def _refuse_consumers(bundle: Path, predicate: Mapping[str, Any], change: Change) -> None:
    if predicate["verdict"] != "PASS" and any(one.role == "consumer" for one in change.new):
        raise UserError(
            f"bundle {bundle} with verdict {predicate['verdict']}",
            "only a model that passed its gate can be opened by consumers",
            f"read {bundle / 'report.html'} to see which rules did not pass",
        )


def _refuse_more(bundle: Path, predicate: Mapping[str, Any], change: Change, now: datetime) -> None:
    """Whoever is added to a PASS is its consumer; who takes another's place opens nothing new."""
    listed = {key_id for kind in ("keep", "consumers") for key_id in predicate["recipients"][kind]}
    if predicate["verdict"] != "PASS" or listed >= {one.key_id for one in change.add}:
        return
    path = bundle / _DECISION
    try:
        data = path.read_bytes()
        if _record(data) != predicate["files"].get(_DECISION):
            raise ValueError("another decision")
        waivers = json.loads(data)["waivers"]
        if not isinstance(waivers, list):
            raise ValueError("no waivers")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            str(path), "it is not what was signed", "get the file from a good copy"
        ) from None
    refuse_expired(bundle, waivers, now)


def _refuse_another_signer(bundle: Path, envelope: Mapping[str, Any], key: SigningKey) -> None:
    from dpmlm.artifacts import open_envelope

    try:
        open_envelope(envelope, {key.key_id: key.verify_key}, payload_type=PAYLOAD_TYPE)
    except UserError:
        raise UserError(
            f"signing key {key.key_id}",
            f"it did not sign {bundle / MANIFEST}",
            "give the key that signed it",
        ) from None


def _refuse_unsigned(
    bundle: Path, predicate: Mapping[str, Any], model: Rewrap, listed: Mapping[str, list[str]]
) -> None:
    """Signing must not vouch for entries that somebody added to what was signed.

    The file is the one that was signed; or, where this very change was killed before it was
    replaced, the manifest says already what becomes of it.
    """
    on_disk = _record((bundle / RECIPIENTS).read_bytes())
    if on_disk != predicate["files"].get(RECIPIENTS) and listed != predicate["recipients"]:
        raise UserError(
            f"{model.beside} with keys {', '.join(model.before)}",
            "it is not what was signed",
            "repeat the rotation that was killed; if none was, get the file from a good copy",
        )


def _signed_again(
    payload: Mapping[str, Any], model: Rewrap, listed: Mapping[str, list[str]], key: SigningKey
) -> bytes:
    """The manifest with the new recipients file and who is in it."""
    from dpmlm.artifacts import sign_envelope

    record = _record(model.content)
    digest = {"sha256": record["digest"].removeprefix("sha256:")}
    others = [entry for entry in payload["subject"] if entry["name"] != RECIPIENTS]
    subject = [*others, {"name": RECIPIENTS, "digest": digest}]
    predicate = payload["predicate"]
    files = {**predicate["files"], RECIPIENTS: record}
    whole = {
        **payload,
        "subject": sorted(subject, key=lambda entry: str(entry["name"])),
        "predicate": {**predicate, "recipients": dict(listed), "files": files},
    }
    return canonical_json(sign_envelope(whole, PAYLOAD_TYPE, [key]))


def _record(content: bytes) -> dict[str, Any]:
    return take_record(io.BytesIO(content), RECIPIENTS)


def recipients_after(
    predicate: Mapping[str, Any], after: Sequence[str], change: Change
) -> dict[str, list[str]]:
    """How the manifest lists the keys that open the model after a change.

    Without a PASS all of them keep the model; with one, those that did and their successors, and
    the others are consumers.
    """
    if predicate["verdict"] != "PASS":
        return {"keep": sorted(after), "consumers": []}
    heirs = {old: new.key_id for old, new in change.replace}
    keepers = set(predicate["recipients"]["keep"])
    keepers |= {heirs[old] for old in keepers & heirs.keys()}
    return {
        "keep": sorted(keepers & set(after)),
        "consumers": sorted(set(after) - keepers),
    }


def _manifest(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Envelope and payload; whoever signs again or verifies checks the signature."""
    try:
        envelope, payload = peek(path.read_bytes())
        predicate = payload["predicate"]
        whole = isinstance(payload["subject"], list) and isinstance(predicate["files"], dict)
        if not whole or not all(
            isinstance(predicate["recipients"][kind], list) for kind in ("keep", "consumers")
        ):
            raise ValueError("no manifest of a bundle")
        str(predicate["verdict"])
        return envelope, payload
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            str(path), "it is no manifest of a bundle", "get the bundle again, or name another"
        ) from None
