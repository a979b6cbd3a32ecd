"""One spelling for every JSON value that is hashed or signed, and the digest of it.

Keys sorted, no blanks, UTF-8 kept, no NaN: two machines that mean the same value hash the same
bytes. `inf` has no JSON spelling, so it is written as the string "inf" by whoever owns the field.
"""

import hashlib
import json
import math
from typing import Any

_BITS = 1000
"""Of a whole number; a double holds 1,024."""


def canonical_json(value: Any) -> bytes:
    """Encode `value` in its canonical spelling; raises ValueError on NaN and infinities."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def read_json(data: bytes) -> Any:
    """The JSON value of `data`, which somebody else wrote; ValueError for anything else.

    NaN, numbers beyond a double, half characters, a key twice and brackets that are nested too deep
    are none: what is read can be written in the canonical spelling and computed with.
    """
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_float=_finite,
            parse_int=_whole,
            parse_constant=_finite,
        )
        if b"\\u" in data:
            canonical_json(value)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value.bit_length() > _BITS:
        raise ValueError("a number is too large")
    return value


def digest(value: Any) -> str:
    """`sha256:` and the hex digest of bytes, or of the canonical spelling of a JSON value."""
    data = value if isinstance(value, bytes) else canonical_json(value)
    return "sha256:" + hashlib.sha256(data).hexdigest()
