"""What was found in a text, and the one rule for findings that overlap."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A stretch of text that a recognizer takes for an entity."""

    start: int
    """First character."""
    end: int
    """One past the last character."""
    entity: str
    """Presidio's name of the entity."""
    recognizer: str
    """Who found it."""
    score: float
    """How sure it is, 0 to 1."""
    mixed: bool = False
    """Whether the stretch holds more than the recognizer found, and that is of another entity."""


def resolve(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for each group of overlapping ones, in order of their place.

    The rule: findings that share a character form a group; the whole stretch from the first to
    the last character of the group is replaced, so that no part of anything found stays; the
    entity is that of the finding with the highest score, then the longest, then the first, then
    by name. Findings that only touch stay apart. A group is `mixed` where that finding alone does
    not cover it and others in it are of another entity: what keeps a part of the text, such as
    the words around an age, would keep theirs.
    """
    groups: list[list[Finding]] = []
    end = -1
    for finding in sorted(findings, key=lambda f: (f.start, -f.end)):
        if finding.start < end:
            groups[-1].append(finding)
        else:
            groups.append([finding])
        end = max(end, finding.end)
    return [_join(group) for group in groups]


def _join(group: list[Finding]) -> Finding:
    best = min(group, key=lambda f: (-f.score, f.start - f.end, f.start, f.entity, f.recognizer))
    start, end = min(f.start for f in group), max(f.end for f in group)
    alone = (best.start, best.end) == (start, end) or {f.entity for f in group} == {best.entity}
    return Finding(start, end, best.entity, best.recognizer, best.score, mixed=not alone)
