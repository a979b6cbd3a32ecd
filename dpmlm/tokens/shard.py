"""`TokenShard`: the token ids of some documents, end to end in one array.

Layout of the (sealed) bytes: the magic line, the header's length as uint32, the header as JSON
{"ids", "units", "splits", "tokenizer", "dtype", "unknown", "names", "records"}, then offsets uint64
[N + 1], then the ids, then, if "names" is true, a byte for each. All integers are little-endian.
Document i is tokens[offsets[i]:offsets[i + 1]].
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpmlm.canonical import canonical_json
from dpmlm.errors import IntegrityError

_MAGIC = b"dpmlm.tokens/1\n"
_DTYPES = {"<u2", "<u4"}


@dataclass(frozen=True, eq=False)
class TokenShard:
    """N documents; the three lists and the spans between offsets have one order."""

    ids: tuple[str, ...]
    """Stable document ids."""
    units: tuple[str, ...]
    """The unit of privacy each document belongs to."""
    splits: tuple[str, ...]
    """"train" or "validation" for each document."""
    tokenizer: str
    """Digest of the tokenizer that made the ids."""
    offsets: np.ndarray
    """uint64 [N + 1], from 0, never falling."""
    tokens: np.ndarray
    """uint16 or uint32, all documents one after the other, without special tokens."""
    unknown: int
    """How many of the tokens are the unknown token; private."""
    names: np.ndarray | None = None
    """uint8 for each token: 1 where a name begins, 2 inside of one, 0 elsewhere; None: not looked
    for."""
    records: tuple[str, ...] = ()
    """`corpus.record_of` each document; "" where it has none, as in a set of texts and of planted
    canaries. Empty in shards of before."""

    def __len__(self) -> int:
        return len(self.ids)

    def document(self, i: int) -> np.ndarray:
        """Token ids of the i-th document, a view."""
        return self.tokens[int(self.offsets[i]) : int(self.offsets[i + 1])]

    def names_of(self, i: int) -> np.ndarray | None:
        """`names` of the i-th document, a view."""
        if self.names is None:
            return None
        return self.names[int(self.offsets[i]) : int(self.offsets[i + 1])]

    def to_bytes(self) -> bytes:
        """The layout of the module's docstring."""
        header = canonical_json(
            {
                "ids": self.ids,
                "units": self.units,
                "splits": self.splits,
                "tokenizer": self.tokenizer,
                "dtype": self.tokens.dtype.str,
                "unknown": self.unknown,
                "names": self.names is not None,
                "records": self.records,
            }
        )
        parts = (_MAGIC, len(header).to_bytes(4, "little"), header)
        names = b"" if self.names is None else self.names.tobytes()
        return b"".join((*parts, self.offsets.tobytes(), self.tokens.tobytes(), names))

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str) -> "TokenShard":
        """Parse what `to_bytes` wrote; raises IntegrityError, with `name`, if it did not."""
        start = len(_MAGIC) + 4
        if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
            raise _broken(name, "it does not begin like one")
        length = int.from_bytes(data[len(_MAGIC) : start], "little")
        try:
            header = json.loads(data[start : start + length])
            ids, units, splits = (tuple(header[field]) for field in ("ids", "units", "splits"))
            tokenizer, kind, unknown = header["tokenizer"], header["dtype"], int(header["unknown"])
            named, records = bool(header["names"]), tuple(header.get("records", ()))
        except (ValueError, KeyError, TypeError):
            raise _broken(name, "its header is not readable") from None
        count = len(ids)
        counts = {len(units), len(splits), len(records) or count}
        if kind not in _DTYPES or counts != {count}:
            raise _broken(name, "its header contradicts itself")
        body = data[start + length :]
        size, item = 8 * (count + 1), np.dtype(kind).itemsize
        each = item + named
        if len(body) < size or (len(body) - size) % each:
            raise _broken(name, "it is cut off")
        offsets = np.frombuffer(body, "<u8", count + 1)
        length = (len(body) - size) // each
        tokens = np.frombuffer(body, kind, length, offset=size)
        names = np.frombuffer(body, np.uint8, offset=size + length * item) if named else None
        if offsets[0] != 0 or offsets[-1] != len(tokens) or (offsets[1:] < offsets[:-1]).any():
            raise _broken(name, "its offsets do not fit its tokens")
        if names is not None and names.max(initial=0) > 2:
            raise _broken(name, "a token is marked as no name can be")
        return cls(ids, units, splits, tokenizer, offsets, tokens, unknown, names, records)


def pack(
    ids: Sequence[str],
    units: Sequence[str],
    splits: Sequence[str],
    encoded: Sequence[np.ndarray],
    *,
    tokenizer: str,
    unknown_id: int | None,
    names: Sequence[np.ndarray] | None = None,
    records: Sequence[str] = (),
) -> TokenShard:
    """A shard of `encoded` documents, which share one dtype, with their names if looked for."""
    ends = np.cumsum([len(tokens) for tokens in encoded], dtype="<u8")
    tokens = np.concatenate(encoded)
    unknown = 0 if unknown_id is None else int((tokens == unknown_id).sum())
    offsets = np.concatenate([np.zeros(1, "<u8"), ends])
    marks = None if names is None else np.concatenate(names)
    places = tuple(ids), tuple(units), tuple(splits)
    return TokenShard(*places, tokenizer, offsets, tokens, unknown, marks, tuple(records))


def _broken(name: str, rule: str) -> IntegrityError:
    return IntegrityError(f"token shard {name}", rule, "run the tokens stage again")
