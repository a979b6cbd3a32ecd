"""Pointers of the report: where an answer stands, and its value where that is short.

A place is `FILE.field.field` of a bundle's file of that name (`plan.epsilon` in plan.json;
`manifest` is the signed predicate of manifest.dsse.json), a file of the bundle (`policy.yaml`), a
section of the report (`#rules`), or a heading of the documentation (`docs/claim.md#what-is-thin`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dpmlm.release.facts import is_private
from dpmlm.release.report import words

FILES = ("statement", "plan", "ledger", "training", "evidence", "decision", "manifest")
"""Names of the parts that a place can begin with."""
HELD = "private, held by the auditor"
"""Stands in the public copy for whatever is computed from private text."""
_LONGEST = 90


class Pointer(NamedTuple):
    """One place, ready to be shown."""

    place: str
    """As it is written."""
    link: bool
    """Whether it is a section of this page."""
    value: str
    """What stands there; empty where it is long, or not in this page."""


class Gone(NamedTuple):
    """A place with nothing there."""

    reason: str
    """In plain words."""


def is_field(place: str) -> bool:
    """Whether a place is a field of a file."""
    return place.partition(".")[0] in FILES and not place.endswith((".json", ".yaml"))


def at(facts: Mapping[str, Any], place: str) -> Any:
    """The value at a place of `FILES`, null included; Gone where the path ends early."""
    value: Any = facts
    for name in place.split("."):
        if isinstance(value, Mapping) and name not in value and value.get("applicable") is False:
            return Gone(f"could not be tried: {value.get('reason') or 'no reason given'}")
        if not isinstance(value, Mapping) or name not in value:
            return Gone("not in this run")
        value = value[name]
    return value


def pointer(facts: Mapping[str, Any], place: str) -> Pointer:
    """A place with its value in words. The manifest signs this page, so that what stands there
    cannot stand here."""
    if place.startswith("#"):
        return Pointer(place, True, "")
    if not is_field(place) or place.startswith("manifest."):
        return Pointer(place, False, "")
    found = at(facts, place)
    if isinstance(found, Gone):
        private = is_private(place.replace("evidence.", "audit.", 1))
        return Pointer(place, False, HELD if private else found.reason)
    return Pointer(place, False, _short(found))


def _short(value: Any) -> str:
    """A value that fits a line; empty for all others."""
    if value is None:
        return "none"
    nested = isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value)
    )
    shown = "" if nested else words.shown(value)
    return shown if len(shown) <= _LONGEST else ""
