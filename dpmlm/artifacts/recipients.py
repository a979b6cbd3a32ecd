"""The small file beside a sealed payload that says who can open it.

The payload is encrypted once, under a random input key; this file holds that key wrapped for each
recipient. Adding or removing a recipient rewrites this file alone. Removing one is no revocation:
whoever had the input key still has it.

A MAC under a key derived from the input key covers the file, so that a stranger's entry or a
missing one shows. Size, spelling and the number of entries are checked before any cryptography.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from dpmlm.artifacts.chunks import KEY_BYTES
from dpmlm.artifacts.identities import WRAPPED_BYTES, Identity, Recipient
from dpmlm.canonical import canonical_json
from dpmlm.errors import IntegrityError, UserError

MAX_RECIPIENTS = 64
_FORMAT = "dpmlm.recipients/1"
_MAX_BYTES = 256 * 1024
_FIELDS = {"format", "kem", "label", "mac", "recipients"}
_ENTRY_FIELDS = {"key_id", "wrapped"}


@dataclass(frozen=True)
class WrappedKey:
    """One input key, wrapped for every recipient."""

    label: str
    """What the payload is, in clear: the role of a folder, or "file"."""
    kem: str
    """Key encapsulation of every entry: `MLKEM768_X25519` or `X25519`, never both."""
    entries: tuple[tuple[str, bytes], ...]
    """Key id and wrapped key of each recipient, 1 to 64."""
    mac: bytes = b""
    """HMAC-SHA256 over all the rest, 32 bytes."""

    @classmethod
    def wrap(
        cls, input_key: bytes, recipients: Sequence[Recipient], *, label: str, context: bytes
    ) -> "WrappedKey":
        """Wrap `input_key` for each recipient (once each), bound to `context`.

        Raises UserError for no recipient, more than 64, or hybrid and classical ones together.
        """
        unique = {recipient.public: recipient for recipient in recipients}
        kems = sorted({recipient.kem for recipient in unique.values()})
        if not 1 <= len(unique) <= MAX_RECIPIENTS:
            raise UserError(
                f"{len(unique)} recipients",
                f"a sealed file has 1 to {MAX_RECIPIENTS} recipients",
                "name the .pub files of those who may open it",
            )
        if len(kems) > 1:
            raise UserError(
                f"recipients of kinds {' and '.join(kems)}",
                "post-quantum and classical recipients are not mixed in one file",
                "replace the keys of one kind",
            )
        entries = tuple(
            (recipient.key_id, recipient.wrap(input_key, info=_info(context)))
            for recipient in unique.values()
        )
        bare = cls(label, kems[0], entries)
        return replace(bare, mac=bare._mac(input_key))

    @classmethod
    def parse(cls, data: bytes, *, name: str) -> "WrappedKey":
        """Read what `to_bytes` wrote; IntegrityError, naming `name`, for anything else."""
        if len(data) > _MAX_BYTES:
            raise _changed(f"{name}, {len(data)} bytes", f"it has at most {_MAX_BYTES} bytes")
        try:
            fields = json.loads(data)
            if set(fields) != _FIELDS or fields["format"] != _FORMAT:
                raise ValueError("unknown fields")
            rows, kem = fields["recipients"], fields["kem"]
            if not 1 <= len(rows) <= MAX_RECIPIENTS:
                raise _changed(
                    f"{name}, {len(rows)} recipients", f"it has 1 to {MAX_RECIPIENTS} recipients"
                )
            entries = tuple(_entry(row) for row in rows)
            wrapped = cls(str(fields["label"]), kem, entries, bytes.fromhex(fields["mac"]))
            canonical = wrapped.to_bytes() == data
        except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
            raise _changed(name, "it is not a recipients file") from None
        for number, (_, key) in enumerate(entries):
            if len(key) != WRAPPED_BYTES.get(kem):
                raise _changed(f"{name}, entry {number}", f"it is no wrapped key of kind {kem}")
        if not canonical:
            raise _changed(name, "it is not spelled as it was written")
        return wrapped

    def to_bytes(self) -> bytes:
        """The file: one line of canonical JSON."""
        return canonical_json({**self._body(), "mac": self.mac.hex()}) + b"\n"

    def unwrap(self, identities: Sequence[Identity], *, context: bytes, name: str) -> bytes:
        """The input key, by the first identity that opens an entry.

        Raises UserError if none of the identities is a recipient, and IntegrityError if an entry
        made for one does not open, or if the MAC does not match.
        """
        ours = [identity for identity in identities if identity.kem == self.kem]
        for identity in ours:
            for _, wrapped in self.entries:
                key = identity.unwrap(wrapped, info=_info(context))
                if key is not None and len(key) == KEY_BYTES:
                    if not hmac.compare_digest(self.mac, self._mac(key)):
                        raise _changed(name, "its MAC does not match: entries were changed")
                    return key
        listed = {key_id for key_id, _ in self.entries}
        mine = [identity.key_id for identity in identities]
        for key_id in mine:
            if key_id in listed:
                raise _changed(
                    f"{name}, entry of key {key_id}",
                    "it does not open: its bytes were changed, or it was made for another context",
                )
        raise UserError(
            f"{name}: identity {', '.join(mine) or '(none given)'}",
            f"only the keys {', '.join(sorted(listed))} open it",
            "use the identity file of a recipient, or have one of them add your key",
        )

    def _body(self) -> dict[str, object]:
        rows = [
            {"key_id": key_id, "wrapped": base64.b64encode(wrapped).decode()}
            for key_id, wrapped in self.entries
        ]
        return {"format": _FORMAT, "label": self.label, "kem": self.kem, "recipients": rows}

    def _mac(self, input_key: bytes) -> bytes:
        derived = HKDFExpand(hashes.SHA512(), 32, b"dpmlm recipients mac/1").derive(input_key)
        return hmac.digest(derived, canonical_json(self._body()), hashlib.sha256)


def _entry(row: dict[str, str]) -> tuple[str, bytes]:
    if set(row) != _ENTRY_FIELDS:
        raise ValueError("unknown fields")
    return str(row["key_id"]), base64.b64decode(row["wrapped"], validate=True)


def _info(context: bytes) -> bytes:
    return b"dpmlm recipients/1\x00" + context


def _changed(given: str, rule: str) -> IntegrityError:
    return IntegrityError(given, rule, "restore the recipients file from a good copy")
