"""The small file beside a sealed payload that says who can open it.

The payload is encrypted once, under a random input key; this file holds that key wrapped for each
recipient. Adding or removing a recipient rewrites this file alone. Removing one is no revocation:
whoever had the input key still has it.

A MAC under a key derived from the input key covers the file, so that a stranger's entry or a
missing one shows. Size, spelling and the number of entries are checked before any cryptography.

Entries of KMS keys name the key's ARN, and make the file one of format 2; they may stand beside
entries of one other kind.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from dpmlm.artifacts.chunks import KEY_BYTES
from dpmlm.artifacts.identities import KMS, WRAPPED_BYTES, Identity, Recipient, short_id
from dpmlm.artifacts.kms import MAX_WRAPPED_BYTES, is_arn
from dpmlm.canonical import canonical_json
from dpmlm.errors import IntegrityError, UserError

MAX_RECIPIENTS = 64
_FORMAT = "dpmlm.recipients/1"
_WITH_KMS = "dpmlm.recipients/2"
MAX_FILE_BYTES = 256 * 1024
_FIELDS = {"format", "kem", "label", "mac", "recipients"}
_ENTRY_FIELDS = {"key_id", "wrapped"}


@dataclass(frozen=True)
class Entry:
    """The input key, wrapped for one recipient."""

    key_id: str
    """Short name of the recipient's key."""
    wrapped: bytes
    """What that key opens."""
    kms: str = ""
    """ARN of a KMS key; "" for a key pair."""

    def is_for(self, identity: Identity, kem: str) -> bool:
        """Whether it is worth a try: key ids of key pairs are only hints, a KMS call costs."""
        if self.kms:
            return identity.kem == KMS and identity.private == self.kms.encode()
        return identity.kem == kem

    def to_json(self) -> dict[str, str]:
        """As it stands in the file."""
        row = {"key_id": self.key_id, "wrapped": base64.b64encode(self.wrapped).decode()}
        return {**row, "kms": self.kms} if self.kms else row


@dataclass(frozen=True)
class WrappedKey:
    """One input key, wrapped for every recipient."""

    label: str
    """What the payload is, in clear: the role of a folder, or "file"."""
    kem: str
    """Kind of the entries that are no KMS keys, `MLKEM768_X25519` or `X25519`, never both;
    `AWS_KMS` where all are."""
    entries: tuple[Entry, ...]
    """One for each recipient, 1 to 64."""
    mac: bytes = b""
    """HMAC-SHA256 over all the rest, 32 bytes."""

    @classmethod
    def wrap(
        cls, input_key: bytes, recipients: Sequence[Recipient], *, label: str, context: bytes
    ) -> "WrappedKey":
        """Wrap `input_key` for each recipient (once each), bound to `context`.

        Raises UserError for no recipient, more than 64, or hybrid and classical ones together.
        """
        return cls(label, KMS, ()).rewrap(input_key, keep=(), add=recipients, context=context)

    def rewrap(
        self,
        input_key: bytes,
        *,
        keep: Collection[str],
        add: Sequence[Recipient],
        context: bytes,
    ) -> "WrappedKey":
        """The entries of the key ids in `keep` as they are, and `input_key` wrapped for `add`.

        Call it with what `unwrap` gave, which checked that the entries are genuine. Raises
        UserError as `wrap` does.
        """
        unique = {recipient.public: recipient for recipient in add}
        kept = [entry for entry in self.entries if entry.key_id in keep]
        kems = {recipient.kem for recipient in unique.values()}
        kems |= {self.kem for entry in kept if not entry.kms}
        _check_recipients(len(kept) + len(unique), kems - {KMS})
        added = [
            _wrapped(recipient, input_key, self.label, context) for recipient in unique.values()
        ]
        kem = next(iter(kems - {KMS}), KMS)
        bare = WrappedKey(self.label, kem, (*kept, *added))
        return replace(bare, mac=bare._mac(input_key))

    @classmethod
    def parse(cls, data: bytes, *, name: str) -> "WrappedKey":
        """Read what `to_bytes` wrote; IntegrityError, naming `name`, for anything else."""
        if len(data) > MAX_FILE_BYTES:
            raise _changed(f"{name}, {len(data)} bytes", f"it has at most {MAX_FILE_BYTES} bytes")
        try:
            fields = json.loads(data)
            if set(fields) != _FIELDS or fields["format"] not in (_FORMAT, _WITH_KMS):
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
        for number, entry in enumerate(entries):
            if not _is_wrapped_key(entry, kem):
                raise _changed(f"{name}, entry {number}", f"it is no wrapped key of kind {kem}")
        if not canonical:
            raise _changed(name, "it is not spelled as it was written")
        return wrapped

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Names of the keys that it says can open, in the order of its entries."""
        return tuple(entry.key_id for entry in self.entries)

    def to_bytes(self) -> bytes:
        """The file: one line of canonical JSON."""
        return canonical_json({**self._body(), "mac": self.mac.hex()}) + b"\n"

    def unwrap(self, identities: Sequence[Identity], *, context: bytes, name: str) -> bytes:
        """The input key, by the first identity that opens an entry.

        Raises UserError if none of the identities is a recipient, and IntegrityError if an entry
        made for one does not open, or if the MAC does not match.
        """
        for identity in identities:
            for entry in self.entries:
                if not entry.is_for(identity, self.kem):
                    continue
                key = identity.unwrap(entry.wrapped, info=_info(context), label=self.label)
                if key is not None and len(key) == KEY_BYTES:
                    if not hmac.compare_digest(self.mac, self._mac(key)):
                        raise _changed(name, "its MAC does not match: entries were changed")
                    return key
        listed = set(self.key_ids)
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
        rows = [entry.to_json() for entry in self.entries]
        kind = _WITH_KMS if any(entry.kms for entry in self.entries) else _FORMAT
        return {"format": kind, "label": self.label, "kem": self.kem, "recipients": rows}

    def _mac(self, input_key: bytes) -> bytes:
        derived = HKDFExpand(hashes.SHA512(), 32, b"dpmlm recipients mac/1").derive(input_key)
        return hmac.digest(derived, canonical_json(self._body()), hashlib.sha256)


def _entry(row: dict[str, str]) -> Entry:
    if set(row) - {"kms"} != _ENTRY_FIELDS:
        raise ValueError("unknown fields")
    wrapped = base64.b64decode(row["wrapped"], validate=True)
    return Entry(str(row["key_id"]), wrapped, str(row.get("kms", "")))


def _is_wrapped_key(entry: Entry, kem: str) -> bool:
    if not entry.kms:
        return len(entry.wrapped) == WRAPPED_BYTES.get(kem)
    genuine = is_arn(entry.kms) and entry.key_id == short_id(entry.kms.encode())
    return genuine and 1 <= len(entry.wrapped) <= MAX_WRAPPED_BYTES


def _wrapped(recipient: Recipient, input_key: bytes, label: str, context: bytes) -> Entry:
    wrapped = recipient.wrap(input_key, info=_info(context), label=label)
    arn = recipient.public.decode() if recipient.kem == KMS else ""
    return Entry(recipient.key_id, wrapped, arn)


def _check_recipients(count: int, kems: set[str]) -> None:
    if not 1 <= count <= MAX_RECIPIENTS:
        raise UserError(
            f"{count} recipients",
            f"a sealed file has 1 to {MAX_RECIPIENTS} recipients",
            "name the .pub files of those who may open it",
        )
    if len(kems) > 1:
        raise UserError(
            f"recipients of kinds {' and '.join(sorted(kems))}",
            "post-quantum and classical recipients are not mixed in one file",
            "replace the keys of one kind",
        )


def _info(context: bytes) -> bytes:
    return b"dpmlm recipients/1\x00" + context


def _changed(given: str, rule: str) -> IntegrityError:
    return IntegrityError(given, rule, "restore the recipients file from a good copy")
