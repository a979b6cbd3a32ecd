"""Gold: documents whose identifiers a person has marked, one JSON object a line.

A row is {"text", "spans"}; a span has a `type`, perhaps an `identifier`, and either `start` and
`end` or the `text` that it stands for, which then means every place of those words.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dpmlm.errors import UserError
from dpmlm.scrub.recall import broken_rule

Annotation = Literal["blind", "prefilled", "unsaid"]
"""Whether whoever marked the spans saw what the scrubber had found; see `annotation_of`."""


def read_gold(path: Path, *, field: str = "--gold") -> list[dict[str, Any]]:
    """Rows of a gold file, every span with its start and end; `field` named the file.

    Raises UserError for no such file, no row, or a row that breaks a rule, by its line.
    """
    if not path.is_file():
        raise UserError(f"gold file {path}", "there is no such file", f"check {field}")
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row, rule = _row(line)
            if rule is None and row["text"] in seen:
                rule = "a document is marked once, and another row holds the same text"
            if rule is not None:
                raise UserError(f"{path}, line {number}", rule, "mend the line")
            seen.add(row["text"])
            rows.append(row)
    if not rows:
        raise UserError(f"gold file {path}", "it holds no row", "give it rows with text and spans")
    return rows


def annotation_of(rows: Iterable[Mapping[str, Any]]) -> Annotation:
    """blind if every row says so, prefilled if any says that, else unsaid."""
    said = {row.get("prefilled") for row in rows}
    if True in said:
        return "prefilled"
    return "blind" if said == {False} else "unsaid"


def _row(line: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return {}, "a gold row is one JSON object on a line"
    try:
        row = _placed(row)
    except _Unplaced as broken:
        return {}, str(broken)
    return row, broken_rule(row)


class _Unplaced(Exception):
    """A rule about the words of a span that is broken; holds nothing of them."""


def _placed(row: Any) -> Any:
    """The row with spans at places alone; what breaks another rule is left as it is.

    Words inside a longer span of the row belong to that one.
    """
    text, spans = (row.get("text"), row.get("spans")) if isinstance(row, Mapping) else (None, None)
    if not isinstance(text, str) or not isinstance(spans, list):
        return row
    in_words = [span for span in spans if _is_in_words(span)]
    placed = [span for span in spans if not _is_in_words(span)]
    for span in placed:
        if isinstance(span, Mapping) and not _agrees(span, text):
            raise _Unplaced("the text of a span of a gold row is what stands from start to end")
    if len({span["text"] for span in in_words}) < len(in_words):
        raise _Unplaced("the spans of a gold row name the same words once: they mean every place")
    for span in sorted(in_words, key=lambda span: -len(span["text"])):
        places = _places(span["text"], text)
        if not places:
            raise _Unplaced("the words of a span of a gold row stand in its text as they are")
        for start, end in places:
            if not _inside(start, end, placed):
                placed.append({**span, "start": start, "end": end})
    return {**row, "spans": placed}


def _is_in_words(span: Any) -> bool:
    return (
        isinstance(span, Mapping)
        and "start" not in span
        and "end" not in span
        and isinstance(span.get("text"), str)
    )


def _agrees(span: Mapping[str, Any], text: str) -> bool:
    """Whether words that stand beside offsets are those at the offsets."""
    start, end = span.get("start"), span.get("end")
    if "text" not in span or type(start) is not int or type(end) is not int:
        return True
    return bool(text[max(start, 0) : max(end, 0)] == span["text"])


def _places(words: str, text: str) -> list[tuple[int, int]]:
    """Where the words stand, not as a part of longer words."""
    if not words.strip():
        return []
    before = r"(?<!\w)" if words[0].isalnum() else ""
    behind = r"(?!\w)" if words[-1].isalnum() else ""
    return [match.span() for match in re.finditer(before + re.escape(words) + behind, text)]


def _inside(start: int, end: int, spans: Sequence[Any]) -> bool:
    return any(
        isinstance(span, Mapping)
        and type(span.get("start")) is int
        and type(span.get("end")) is int
        and span["start"] <= start
        and end <= span["end"]
        for span in spans
    )
