"""What lies in key files, for people: everything but the private parts."""

import base64
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpmlm.artifacts.identities import KMS, Recipient, short_id
from dpmlm.artifacts.keys import (
    IDENTITY,
    RECIPIENT,
    SIGNING,
    VERIFY,
    KeyFile,
    load_identity,
    load_recipient,
    load_signing_key,
    load_verify_key,
    read_key_file,
)
from dpmlm.artifacts.providers import kms_arn
from dpmlm.errors import UserError

_PUBLIC = (RECIPIENT, VERIFY)


@dataclass(frozen=True)
class KeyInfo:
    """One key."""

    where: str
    """Its file or reference."""
    kind: str | None
    """identity, recipient, signing-key, verify-key or secret-key; None for a file that is none."""
    role: str | None = None
    """trainer, auditor, consumer or approver, where its file says so."""
    kem: str | None = None
    """Key encapsulation of identities and recipients."""
    key_id: str | None = None
    """Short name, the same for a private key and its public half; secrets have none."""
    created: str | None = None
    """When a private key was drawn."""
    passphrase: bool = False
    """Whether a passphrase protects it."""
    public: str | None = None
    """The public key in base64, or the ARN of a KMS key; None for secrets, and for keys that only a
    passphrase opens."""
    problem: str | None = None
    """Why it would be refused."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def row(self) -> str:
        """One line."""
        words = [self.kind or "-", self.role or "-", self.key_id or "-", self.kem or "-"]
        shown = f"{self.where:<32} " + " ".join(f"{word:<16}" for word in words).rstrip()
        more = [" passphrase"] if self.passphrase else []
        more += [f" REFUSED: {self.problem}"] if self.problem else []
        return shown + "".join(more)


def describe_key(where: Path | str) -> KeyInfo:
    """What a key file or reference holds; what cannot be used is said, not raised."""
    try:
        if arn := kms_arn(where):
            key = Recipient(KMS, arn.encode())
            return KeyInfo(str(where), "kms", kem=KMS, key_id=key.key_id, public=arn)
        file = read_key_file(where, private=False)
    except UserError as error:
        return KeyInfo(str(where), None, problem=error.rule)
    key_id, public, problem = _public_part(where, file)
    return KeyInfo(
        where=str(where),
        kind=file.kind.removeprefix("dpmlm."),
        role=file.role or None,
        kem=file.kem or None,
        key_id=key_id,
        created=file.fields.get("created"),
        passphrase=file.protected,
        public=public,
        problem=problem,
    )


def describe_folder(folder: Path) -> list[KeyInfo]:
    """Every key file of a folder and of the folders in it; UserError if it is no folder."""
    if not Path(folder).is_dir():
        raise UserError(str(folder), "there is no such folder", "name a folder of key files")
    return [describe_key(path) for path in _key_files(Path(folder))]


def _key_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".key", ".pub") and not path.name.startswith("."):
            yield path


def _public_part(where: Path | str, file: KeyFile) -> tuple[str | None, str | None, str | None]:
    """Key id, public key, and why the file would be refused."""
    told = file.fields.get("key_id")
    try:
        if file.kind not in _PUBLIC:
            read_key_file(where)  # refuses one that others can read
        if file.protected:
            return told, None, None
        if file.kind in (IDENTITY, RECIPIENT):
            recipient = (
                load_identity(where).recipient if file.kind == IDENTITY else load_recipient(where)
            )
            return recipient.key_id, _shown(recipient), None
        if file.kind in (SIGNING, VERIFY):
            verify = (
                load_signing_key(where).verify_key
                if file.kind == SIGNING
                else load_verify_key(where)
            )
            return short_id(verify.public), base64.b64encode(verify.public).decode(), None
    except UserError as error:
        return told, None, f"{error.rule} ({error.given})"
    return None, None, None


def _shown(recipient: Recipient) -> str:
    if recipient.kem == KMS:
        return recipient.public.decode()
    return base64.b64encode(recipient.public).decode()
