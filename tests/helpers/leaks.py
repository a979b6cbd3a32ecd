"""Search for private text in files, in the spellings a careless writer would leave it in."""

import base64
import contextlib
import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def find_leaks(
    folder: Path, sentence: str, tokens: Sequence[int], *, skip: Sequence[str] = ()
) -> list[str]:
    """Names of files below `folder` that hold `sentence` or its token ids in any known spelling.

    UTF-8, UTF-16, base64 at every alignment, JSON and little-endian arrays of token ids, and all
    of these inside gzip or zlib streams that start anywhere in a file.
    """
    needles = _needles(sentence, tokens)
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in skip:
            continue
        data = path.read_bytes()
        if any(needle in view for view in (data, *inflated(data)) for needle in needles):
            found.append(str(path.relative_to(folder)))
    return found


def _needles(sentence: str, tokens: Sequence[int]) -> list[bytes]:
    plain = sentence.encode()
    needles = [plain, plain.lower(), sentence.encode("utf-16-le")]
    for shift in range(3):
        # The middle of the base64 text does not depend on what stands around the sentence.
        coded = base64.b64encode(b"\0" * shift + plain)
        needles.append(coded[4:-4])
    for width in ("<u2", "<u4", "<i8"):
        needles.append(np.asarray(tokens, dtype=width).tobytes())
    for separator in (",", ", ", " "):
        needles.append(separator.join(str(token) for token in tokens).encode())
    return needles


def inflated(data: bytes) -> list[bytes]:
    views = []
    for magic, opener in ((b"\x1f\x8b\x08", gzip.decompress), (b"\x78\x9c", zlib.decompress)):
        start = data.find(magic)
        while start >= 0:
            with contextlib.suppress(OSError, EOFError, zlib.error):
                views.append(opener(data[start:]))
            start = data.find(magic, start + 1)
    return views
