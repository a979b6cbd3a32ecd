"""From a row's fields to a document: which field is which, and what a value may be.

Messages name the file, the line and the field. They never show a value: an id may be a name.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Any

from dpmlm.canonical import canonical_json
from dpmlm.corpus.document import Document, Dropped
from dpmlm.errors import UserError


@dataclass(frozen=True)
class FieldMap:
    """Which fields of a row carry what."""

    text: str
    """Field with the text: a string, or null."""
    id: str | None
    """Field with a unique id, a string or a whole number; None derives it from the record."""
    person: str | None
    """Field with the person, a string, a whole number or null; None if nobody is named."""

    @property
    def names(self) -> list[str]:
        """The fields that are read, each once."""
        wanted = (self.text, self.id, self.person)
        return list(dict.fromkeys(name for name in wanted if name is not None))

    def document(
        self, fields: Mapping[str, Any], ids: "Ids", *, source: str, row: int, place: str
    ) -> Document | Dropped:
        """The document of a row, or the row dropped because its text is blank.

        `place` says file and line to whoever has to mend the row. Raises UserError for a field
        that is absent or has a value of the wrong kind, and for an id that `ids` has met.
        """
        for name in self.names:
            if name not in fields:
                raise UserError(
                    f"{place}: no field {name!r}",
                    "every row has the fields that the corpus section names",
                    "mend the row, or name the right field",
                )
        named = None if self.id is None else _id(fields[self.id], self.id, place)
        person = None if self.person is None else _person(fields[self.person], self.person, place)
        text = _text(fields[self.text], self.text, place)
        if named is None:
            identifier = ids.of_record(person, text)
        else:
            identifier = ids.named(named, source=source, row=row, place=place)
        document = Document(identifier, text, person, source, row)
        return document if text.strip() else Dropped(document, "empty")


class Ids:
    """The ids of one corpus; remembers about 200 bytes a document, whatever its length."""

    def __init__(self) -> None:
        self._places: dict[bytes, tuple[int, int]] = {}
        self._sources: list[str] = []
        self._records: Counter[bytes] = Counter()

    def named(self, name: str, *, source: str, row: int, place: str) -> str:
        """The id that the corpus names; raises UserError if it was met before."""
        if not self._sources or self._sources[-1] != source:
            self._sources.append(source)
        here = (len(self._sources) - 1, row)
        file, first = self._places.setdefault(_short(name.encode()), here)
        if (file, first) != here:
            raise UserError(
                f"{place}: its id was used before, in {self._sources[file]} row {first}",
                "ids are unique in the whole corpus",
                "give each row its own id, or name no id field",
            )
        return name

    def of_record(self, person: str | None, text: str) -> str:
        """An id from the record alone, 32 hex digits: no other record has a part in it.

        Equal records are numbered, so one more of them adds an id and changes none.
        """
        key = _short(canonical_json([person or "", text]))
        number = self._records[key]
        self._records[key] += 1
        return sha256(canonical_json([person or "", text, number])).hexdigest()[:32]


def _short(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _text(value: Any, field: str, place: str) -> str:
    if _null(value):
        return ""
    if not isinstance(value, str):
        raise _kind(field, place, "a text is a string or null")
    return _encodable(value, field, place)


def _id(value: Any, field: str, place: str) -> str:
    name = _name(value, field, place, "an id is a string or a whole number")
    if name is None:
        raise _kind(field, place, "an id is not empty")
    return name


def _person(value: Any, field: str, place: str) -> str | None:
    return _name(value, field, place, "a person is a string, a whole number or null")


def _name(value: Any, field: str, place: str, rule: str) -> str | None:
    if _null(value):
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _kind(field, place, rule)
    return _encodable(str(value), field, place) if str(value).strip() else None


def _null(value: Any) -> bool:
    """None, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _encodable(value: str, field: str, place: str) -> str:
    """Refuse half a surrogate pair: JSON can spell one, UTF-8 cannot, and hashing would fail."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _kind(field, place, "a string is valid Unicode, without lone surrogates") from None
    return value


def _kind(field: str, place: str, rule: str) -> UserError:
    return UserError(f"{place}: field {field!r}", rule, "mend the row, or name the right field")
