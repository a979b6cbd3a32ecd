"""How runs are told to a person: values and columns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dpmlm.errors import visible


def spelled(value: Any) -> str:
    """A value for a person; a dash for none. What a terminal might obey is spelled out."""
    if value is None or value == {}:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return visible(text)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, every column as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths)).rstrip() for row in rows]


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values under dotted keys."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
