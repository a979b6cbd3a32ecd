"""Documents at rest: JSON lines in sealed shards of a stage's folder.

A shard is written whole or not at all, so a stage that was killed starts again at the first
shard that is missing. Plaintext of one shard is in memory, never on disk.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from dpmlm.errors import IntegrityError

if TYPE_CHECKING:
    from dpmlm.artifacts import SealedFolder

PER_SHARD = 2000
"""Documents in a full shard unless the caller says otherwise."""


def shard_name(prefix: str, number: int) -> str:
    """Name of a shard inside its folder, such as `documents-00000`."""
    return f"{prefix}-{number:05d}"


def count_shards(folder: "SealedFolder", prefix: str = "documents") -> int:
    """How many shards are written without a gap, from 0: where a killed stage goes on."""
    return next(n for n in count() if not folder.has(shard_name(prefix, n)))


def write_shard(
    folder: "SealedFolder",
    number: int,
    documents: Iterable[Mapping[str, Any]],
    *,
    prefix: str = "documents",
) -> None:
    """Seal documents as one shard, in their order."""
    lines = [json.dumps(dict(document), ensure_ascii=False) for document in documents]
    folder.write_bytes(shard_name(prefix, number), "".join(f"{line}\n" for line in lines).encode())


def read_shard(
    folder: "SealedFolder", number: int, *, prefix: str = "documents"
) -> list[dict[str, Any]]:
    """The documents of one shard; raises IntegrityError if its bytes are not JSON lines."""
    name = shard_name(prefix, number)
    try:
        return [json.loads(line) for line in folder.read_bytes(name).splitlines()]
    except ValueError:
        raise IntegrityError(
            f"{folder.path}: shard {name}", "a shard holds JSON lines", "run the stage again"
        ) from None


def write_shards(
    folder: "SealedFolder",
    documents: Iterable[Mapping[str, Any]],
    *,
    per_shard: int = PER_SHARD,
    prefix: str = "documents",
    first: int = 0,
) -> int:
    """Cut a stream into sealed shards; returns how many documents it held.

    A shard that is there already is kept as it is, whatever it holds: the caller repeats the same
    stream after a crash, and empties the folder before another one. `first` is the number of the
    first shard, for a caller that leaves out of the stream what `count_shards` says is written.
    Shards beyond the end of the stream are removed.
    """
    stream, total, number = iter(documents), 0, first
    while part := list(islice(stream, per_shard)):
        if not folder.has(shard_name(prefix, number)):
            write_shard(folder, number, part, prefix=prefix)
        total += len(part)
        number += 1
    for stale in _numbers(folder, prefix):
        if stale >= number:
            folder.remove(shard_name(prefix, stale))
    return total


def read_shards(folder: "SealedFolder", prefix: str = "documents") -> Iterator[dict[str, Any]]:
    """All documents in the order they were written, one shard in memory at a time.

    Raises IntegrityError if a shard is missing between two others.
    """
    numbers = _numbers(folder, prefix)
    for expected, number in enumerate(numbers):
        if number != expected:
            raise IntegrityError(
                f"{folder.path}: shard {shard_name(prefix, expected)} is missing",
                "shards are numbered without a gap",
                "run the stage again",
            )
        yield from read_shard(folder, number, prefix=prefix)


def _numbers(folder: "SealedFolder", prefix: str) -> list[int]:
    pattern = re.compile(re.escape(prefix) + r"-(\d{5,})")
    found = (pattern.fullmatch(name) for name in folder.names(f"{prefix}-"))
    return sorted(int(match[1]) for match in found if match)
