"""Signed notes and the checkpoints of logs, as C2SP writes them (signed-note, tlog-checkpoint).

    dpmlm-log/6f2c0a91d3b84e57          origin: which log
    3                                   size: number of entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=      root of its Merkle tree, base64

    — dpmlm-log/6f2c0a91d3b84e57 base64(4 bytes that name the key, signature)

A note is text, an empty line, and signature lines. Signatures by keys that the reader does not know
are passed over, as the standard says, so that others may witness a note; one at least is by a key
that the reader trusts, and none by such a key is wrong. Ed25519 signs the text itself.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpmlm.artifacts.merkle import HASH_BYTES
from dpmlm.artifacts.signing import SigningKey, VerifyKey
from dpmlm.errors import IntegrityError

MAX_NOTE_BYTES = 1 << 20
MAX_SIGNATURES = 100
MAX_SIZE = 2**63 - 1
"""Entries of a log."""
_ED25519 = b"\1"
_KEY_HASH_BYTES = 4
_MARK = "\N{EM DASH} "
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class NoteSignature:
    """One signature line."""

    name: str
    """Of the key."""
    key_hash: bytes
    """4 bytes that name the key together with its name; no proof of anything."""
    signature: bytes


@dataclass(frozen=True)
class Note:
    """A note as it is read, by whomever it is signed."""

    text: str
    """What is signed, its last newline included."""
    signatures: tuple[NoteSignature, ...]

    def signed_by(self, name: str, trusted: Mapping[str, VerifyKey]) -> tuple[str, ...]:
        """Ids of the `trusted` keys that signed under `name`, without repetition.

        Raises IntegrityError if there is none, or if a signature by one of them is wrong.
        """
        known = {key_hash(name, key): key for key in trusted.values()}
        found: dict[str, None] = {}
        for line in self.signatures:
            key = known.get(line.key_hash) if line.name == name else None
            if key is None:
                continue
            if not key.verify(line.signature, self.text.encode()):
                raise _refused(f"the signature of key {key.key_id} does not match its text")
            found[key.key_id] = None
        if not found:
            raise IntegrityError(
                f"signed note {name!r:.80}",
                f"none of the trusted keys ({', '.join(sorted(trusted))}) signed it"
                if trusted
                else "no key is trusted, so nobody vouches for it",
                "get the original, or add the signer's .pub file to the trusted keys if you "
                "know them",
            )
        return tuple(found)


@dataclass(frozen=True)
class Checkpoint:
    """The head of a log: all of its entries in one hash."""

    origin: str
    """Names the log, for as long as it lives."""
    size: int
    """Number of entries."""
    root: bytes
    """Of their Merkle tree, 32 bytes."""

    def sign(self, keys: Sequence[SigningKey]) -> bytes:
        """The signed note, under the log's origin as the keys' name."""
        root = base64.b64encode(self.root).decode()
        return sign_note(f"{self.origin}\n{self.size}\n{root}\n", self.origin, keys)


def sign_note(text: str, name: str, keys: Sequence[SigningKey]) -> bytes:
    """The bytes of a note with one signature of each key; `text` ends in a newline.

    Raises ValueError for a text or a name that no note can have.
    """
    lines = [
        f"{_MARK}{name} "
        + base64.b64encode(key_hash(name, key.verify_key) + key.sign(text.encode())).decode()
        for key in keys
    ]
    data = (text + "\n" + "".join(line + "\n" for line in lines)).encode()
    try:
        sound = parse_note(data).text == text
    except IntegrityError as error:
        raise ValueError(error.rule) from None
    if not sound:
        raise ValueError("its end could be taken for signatures")
    return data


def key_hash(name: str, key: VerifyKey) -> bytes:
    """The 4 bytes that name an Ed25519 key in a note, by its name and its public key."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.public).digest()[:_KEY_HASH_BYTES]


def parse_note(data: bytes) -> Note:
    """Read a note, whoever signed it. Raises IntegrityError for what is no note."""
    if len(data) > MAX_NOTE_BYTES:
        raise _refused(f"it has more than {MAX_NOTE_BYTES:,} bytes")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise _refused("it is not UTF-8") from None
    if any(character < " " and character != "\n" for character in whole):
        raise _refused("it holds a control character")
    text, gap, signatures = whole.rpartition("\n\n")
    if not gap or not whole.endswith("\n"):
        raise _refused("it has no empty line before its signatures, or no newline at its end")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise _refused(f"it has more than {MAX_SIGNATURES} signatures")
    return Note(text + "\n", tuple(map(_signature, lines)))


def parse_checkpoint(data: bytes) -> tuple[Checkpoint, Note]:
    """What a checkpoint says, whoever signed it. Raises IntegrityError for what is none."""
    note = parse_note(data)
    lines = note.text[:-1].split("\n")
    if len(lines) < 3 or not all(lines):
        raise _refused("a checkpoint has an origin, a size and a root, a line each")
    origin, size, root = lines[:3]
    if not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
        raise _refused("its size is no number of entries")
    digest = _decoded(root)
    if digest is None or len(digest) != HASH_BYTES:
        raise _refused("its root is no SHA-256 digest in base64")
    return Checkpoint(origin, int(size), digest), note


def open_checkpoint(
    data: bytes, trusted: Mapping[str, VerifyKey]
) -> tuple[Checkpoint, tuple[str, ...]]:
    """A checkpoint that a trusted key signed under the log's origin, and the ids of such keys.

    Raises IntegrityError for anything else.
    """
    checkpoint, note = parse_checkpoint(data)
    return checkpoint, note.signed_by(checkpoint.origin, trusted)


def _signature(line: str) -> NoteSignature:
    name, gap, encoded = line.removeprefix(_MARK).partition(" ")
    decoded = _decoded(encoded)
    if not line.startswith(_MARK) or not gap or not _is_name(name):
        raise _refused("a line after its empty line is no signature")
    if decoded is None or len(decoded) <= _KEY_HASH_BYTES:
        raise _refused("a signature in it is not whole")
    return NoteSignature(name, decoded[:_KEY_HASH_BYTES], decoded[_KEY_HASH_BYTES:])


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(letter.isspace() for letter in name)


def _decoded(text: str) -> bytes | None:
    """Standard base64 in its one spelling; None for anything else."""
    try:
        data = base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None


def _refused(rule: str) -> IntegrityError:
    return IntegrityError("signed note", rule, "get the original from its signer")
