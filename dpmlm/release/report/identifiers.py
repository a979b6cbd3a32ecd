"""The 18 identifiers of 45 CFR 164.514(b)(2): what looks for each, how much of it was found.

The list, and which entities stand for which identifier, is that of the scrub policy
`hipaa-safe-harbor`. Recall and the games about identifiers are computed from private text: rows
for consumers say who holds the figures.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import yaml

from dpmlm.release.report import words
from dpmlm.release.report.pointers import HELD

UNMEASURED = "unmeasured"
NO_RECOGNISER = "no recogniser"
UNMARKED = "unmeasured: none was marked"
NOT_PLAYED = "not played"
NONE_DRAWN = "none of this type was drawn"
_GAMES = ("extractable", "reconstructable", "inferable")
_TEXTS = {"training": "text as trained on", "original": "text before scrubbing"}


@cache
def listed() -> tuple[Mapping[str, Any], ...]:
    """Number, name, entities and what is out of reach of each identifier, in order."""
    file = resources.files("policies") / "scrub" / "hipaa-safe-harbor.yaml"
    return tuple(yaml.safe_load(file.read_text(encoding="utf-8"))["identifiers"])


def rows(
    evidence: Mapping[str, Any], recall: Mapping[str, Any] | None
) -> tuple[dict[str, Any], ...]:
    """A row an identifier; `recall` is that of the run's own policy, None in the public copy."""
    return tuple(
        {
            "number": one["number"],
            "identifier": one["identifier"],
            "entities": one["found_by"],
            "out_of_reach": one["out_of_reach"],
            "recall": _recall(one["found_by"], recall),
            "games": _games(one["found_by"], evidence, private=recall is not None),
        }
        for one in listed()
    )


def notes(evidence: Mapping[str, Any], recall: Mapping[str, Any] | None) -> list[str]:
    """What is said once beneath the rows: why all of a column is empty, and marked types that no
    row counts, as a gold file names types in words of its own."""
    told = []
    if (recall or {}).get("applicable") is False:
        told.append(f"Nothing was measured: {(recall or {})['reason']}.")
    others = sorted({*((recall or {}).get("by_type") or {})} - _entities())
    if others:
        told.append(
            f"Marked by hand under names that stand for none of the rows: {', '.join(others)}. "
            "Where one of them is an identifier, name it in the gold documents as the row does."
        )
    if not _were_played(evidence):
        told.append("No game was played: set audit.identifiers in the run file and train anew.")
    told += [
        f"Not judged on {label}: {games['reason']}."
        for text, label in _TEXTS.items()
        for games in [(evidence.get("identifiers") or {}).get(text) or {}]
        if games.get("applicable") is False
    ]
    return told


def _entities() -> set[str]:
    return {entity for one in listed() for entity in one["found_by"]}


def _were_played(evidence: Mapping[str, Any]) -> bool:
    return any(entry.get("evidence") == "identifiers" for entry in evidence.get("attacks") or ())


def _recall(entities: Sequence[str], recall: Mapping[str, Any] | None) -> list[str]:
    if not entities:
        return [NO_RECOGNISER]
    if recall is None:
        return [HELD]
    if recall.get("applicable") is False:
        return [UNMEASURED]
    by_type = recall.get("by_type") or {}
    measured = [(name, by_type[name]) for name in entities if by_type.get(name)]
    return [_share(name, share) for name, share in measured] or [UNMARKED]


def _share(name: str, share: Mapping[str, Any]) -> str:
    return (
        f"{name}: {share['found']:,} of {share['of']:,}, {words.percent(share['rate'])} "
        f"(95 % interval {words.percent(share['low'])} to {words.percent(share['high'])})"
    )


def _games(entities: Sequence[str], evidence: Mapping[str, Any], *, private: bool) -> list[str]:
    if not entities:
        return [NO_RECOGNISER]
    if not _were_played(evidence):
        return [NOT_PLAYED]
    if not private:
        return [HELD]
    played = evidence.get("identifiers") or {}
    told = [
        f"{label}, {line}"
        for text, label in _TEXTS.items()
        for line in _by_type(played.get(text) or {}, entities)
    ]
    return told or [NONE_DRAWN]


def _by_type(games: Mapping[str, Any], entities: Sequence[str]) -> list[str]:
    """Hits of the model beside those of the model that never read the text."""
    told = []
    for entity in entities:
        parts = [
            f"{game} {own['hits']} of {own['trials']} (other model {other['hits']})"
            for game in _GAMES
            for own, other in _pairs(games.get(game) or {}, entity)
        ]
        if parts:
            told.append(f"{entity}: {', '.join(parts)}")
    return told


def _pairs(
    game: Mapping[str, Any], entity: str
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """(model, reference) where the game tried this type."""
    table = game.get("top_10") or game.get("said") or game
    arms = (table.get("by_type") or {}).get(entity) or {}
    if not {"target", "reference"} <= arms.keys() or not arms["target"]["trials"]:
        return []
    return [(arms["target"], arms["reference"])]
