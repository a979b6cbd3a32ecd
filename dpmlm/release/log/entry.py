"""One line of the release log, and the proof that a log holds it.

    {"created", "kind": "release", "model_digest", "name", "plan_digest", "policy_digest",
     "release", "run_id", "schema", "verdict"}

The canonical JSON of an entry is its line in the file, and the data of its leaf in the Merkle tree.
Its values are printable ASCII, as names of runs, digests and dates are.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpmlm.artifacts import VerifyKey, canonical_json
from dpmlm.artifacts.merkle import HASH_BYTES, leaf_hash, proves_inclusion
from dpmlm.artifacts.notes import Checkpoint, open_checkpoint, parse_checkpoint
from dpmlm.errors import IntegrityError
from dpmlm.release.inventory import release_digest

ENTRY = "dpmlm.log-entry/1"
PROOF = "dpmlm.log-proof/1"
_SIGNED = ("model_digest", "plan_digest", "policy_digest", "verdict", "created")
"""Fields that an entry takes from the signed manifest."""
_FIELDS = {"schema", "kind", "name", "run_id", "release", *_SIGNED}
_PROOF_FIELDS = {"schema", "entry", "index", "size", "proof", "checkpoint"}
_MAX_LINE = 1 << 16
_RANDOM_END = re.compile(r"-[0-9a-f]{12}")
"""What a run's id has behind the name of the run file."""


def entry_of(
    manifest: Mapping[str, Any], ledger: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What a log says of a release: from its manifest, its ledger.json and its inventory."""
    run_id = str(ledger.get("run_id"))
    return {
        "schema": ENTRY,
        "kind": "release",
        "name": name_of(run_id),
        "run_id": run_id,
        "release": release_digest(files),
        **{name: str(manifest.get(name)) for name in _SIGNED},
    }


def name_of(run_id: str) -> str:
    """Name of the run file: a run's id is that and random digits."""
    end = _RANDOM_END.fullmatch(run_id[-13:])
    return run_id[:-13] if end and len(run_id) > 13 else run_id


def read_entry(line: bytes, where: str) -> dict[str, Any]:
    """The entry of a line without its newline; IntegrityError for anything else."""
    try:
        if len(line) > _MAX_LINE:
            raise ValueError("too long")
        entry = json.loads(line)
        sound = _is_entry(entry) and canonical_json(entry) == line
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        raise IntegrityError(
            where, f"it is no entry of {ENTRY} in its one spelling", "restore the file from a copy"
        )
    found: dict[str, Any] = entry
    return found


def differences(entry: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Where an entry does not say what it should of a release, a sentence a field."""
    return [
        f"its entry's {name} is {entry[name]}, the bundle's is {expected[name]}"
        for name in sorted(_FIELDS)
        if entry[name] != expected[name]
    ]


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == _FIELDS
        and all(isinstance(part, str) for part in value.values())
        and all(part.isascii() and part.isprintable() for part in value.values())
        and (value["schema"], value["kind"]) == (ENTRY, "release")
    )


@dataclass(frozen=True)
class LogProof:
    """An entry, and what shows that the log of a signed checkpoint holds it."""

    entry: Mapping[str, Any]
    index: int
    """Number of the entry, from 0."""
    proof: tuple[bytes, ...]
    """Hashes from its leaf to the root."""
    note: bytes
    """The signed checkpoint."""

    def to_json(self, size: int) -> dict[str, Any]:
        """JSON object of `attestations/log.json` and of `dpmlm log prove`."""
        return {
            "schema": PROOF,
            "entry": dict(self.entry),
            "index": self.index,
            "size": size,
            "proof": [base64.b64encode(part).decode() for part in self.proof],
            "checkpoint": self.note.decode(),
        }

    @classmethod
    def read(
        cls, data: bytes, trusted: Mapping[str, VerifyKey] | None
    ) -> "tuple[LogProof, Checkpoint]":
        """A proof that holds under a checkpoint of a trusted signer, and that checkpoint.

        Without `trusted` the signature is not looked at. Raises IntegrityError for anything else.
        """
        read, size = _parse(data)
        opened = parse_checkpoint(read.note) if trusted is None else None
        checkpoint, _ = opened or open_checkpoint(read.note, trusted or {})
        leaf = leaf_hash(canonical_json(read.entry))
        if size != checkpoint.size or not proves_inclusion(
            leaf, read.index, size, read.proof, checkpoint.root
        ):
            raise _refused("its proof does not lead from its entry to the root of its checkpoint")
        return read, checkpoint


def _parse(data: bytes) -> tuple[LogProof, int]:
    """A proof as it is written, and the size it names; nothing of it is proved."""
    try:
        value = json.loads(data)
        if not isinstance(value, dict) or value.keys() != _PROOF_FIELDS:
            raise ValueError("other fields")
        if value["schema"] != PROOF or not _is_entry(value["entry"]):
            raise ValueError("another schema")
        if type(value["index"]) is not int or type(value["size"]) is not int:
            raise ValueError("no whole numbers")
        parts = tuple(base64.b64decode(part, validate=True) for part in value["proof"])
        if [base64.b64encode(part).decode() for part in parts] != value["proof"]:
            raise ValueError("another spelling")
        if any(len(part) != HASH_BYTES for part in parts):
            raise ValueError("no hashes")
        note = value["checkpoint"].encode()
    except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
        raise _refused(f"it is no whole {PROOF}") from None
    return LogProof(value["entry"], value["index"], parts, note), value["size"]


def _refused(rule: str) -> IntegrityError:
    return IntegrityError("log proof", rule, "get the proof again: `dpmlm log prove`")
