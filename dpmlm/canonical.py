"""One spelling for every JSON value that is hashed or signed, and the digest of it.

Keys sorted, no blanks, UTF-8 kept, no NaN: two machines that mean the same value hash the same
bytes. `inf` has no JSON spelling, so it is written as the string "inf" by whoever owns the field.
"""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Encode `value` in its canonical spelling; raises ValueError on NaN and infinities."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def digest(value: Any) -> str:
    """`sha256:` and the hex digest of bytes, or of the canonical spelling of a JSON value."""
    data = value if isinstance(value, bytes) else canonical_json(value)
    return "sha256:" + hashlib.sha256(data).hexdigest()
