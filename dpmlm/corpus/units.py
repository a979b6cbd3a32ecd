"""Who is protected, and who is held out: both by keyed hash, so neither shows a name.

A split by keyed hash of the unit is what keeps the claim on the source corpus: whether one unit
is held out depends on that unit and the key alone, and all documents of a unit go together.
"""

import hmac
import unicodedata
from typing import Any, Literal

from dpmlm.corpus.document import Document
from dpmlm.errors import UserError

Unit = Literal["document", "person"]
Split = Literal["train", "validation"]

_SHORTEST_KEY = 16


def unit_of(document: Document, unit: Unit, key: bytes) -> str:
    """Pseudonym of the unit a document belongs to: 32 hex digits of HMAC-SHA256.

    Persons are compared after NFC and without blanks around them. A document that names no
    person is a unit of its own. Raises UserError for a key below 16 bytes.
    """
    if unit == "person" and document.person is not None:
        return pseudonym_of(document.person, key)
    if unit in ("document", "person"):
        return _keyed(key, b"dpmlm/unit/document", document.id).hex()[:32]
    raise UserError(f"unit {unit!r}", "a unit is document or person", "choose one of the two")


def pseudonym_of(person: str, key: bytes) -> str:
    """Of a person: the unit id of their documents where persons are the units."""
    name = unicodedata.normalize("NFC", person).strip()
    return _keyed(key, b"dpmlm/unit/person", name).hex()[:32]


def record_of(text: str, key: bytes) -> str:
    """Of a text as its source holds it, to the character: 32 hex digits that tell it to whoever
    has the key and a guess, and nothing to others."""
    return _keyed(key, b"dpmlm/record", text).hex()[:32]


def split_of(unit_id: str, validation: float, key: bytes) -> Split:
    """The split of a unit: validation with probability `validation` over keys, in [0, 1).

    A unit held out at one share is held out at every larger share. Raises UserError for a share
    outside the range or a key below 16 bytes.
    """
    if not 0 <= validation < 1:
        raise UserError(
            f"split.validation {validation}", "the share is in [0, 1)", "choose a smaller share"
        )
    draw = int.from_bytes(_keyed(key, b"dpmlm/split", unit_id)[:8], "big")
    return "validation" if draw < validation * 2**64 else "train"


def stage_document(
    document: Document, *, unit: Unit, validation: float, key: bytes
) -> dict[str, Any]:
    """The dict that stages pass on: id, text, unit, split, source, row, record, person.

    The person is a pseudonym whatever the unit, so that erasure finds it; None if nobody is named.
    """
    unit_id = unit_of(document, unit, key)
    person = document.person
    return {
        "id": document.id,
        "text": document.text,
        "unit": unit_id,
        "split": split_of(unit_id, validation, key),
        "source": document.source,
        "row": document.row,
        "record": record_of(document.text, key),
        "person": None if person is None else pseudonym_of(person, key),
    }


def _keyed(key: bytes, domain: bytes, value: str) -> bytes:
    """HMAC-SHA256 under a domain of its own: no hash for one purpose is one for another."""
    if len(key) < _SHORTEST_KEY:
        raise UserError(
            f"a key of {len(key)} bytes",
            f"unit and split keys have at least {_SHORTEST_KEY} bytes",
            "make one with `dpmlm keys new`",
        )
    return hmac.digest(key, domain + b"\0" + value.encode(), "sha256")
