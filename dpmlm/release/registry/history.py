"""What a registry's journal says: which versions there are, and where each alias points.

The journal is the only record. Each of its lines is one event:

    registry  {schema, time}                                             the first line
    add       {name, version, release, run_id, model_digest, verdict, created, time}
    promote   {name, version, alias, time}     the alias points to the version now
    rollback  {name, version, alias, time}     ... to the one that it pointed to before
    retire    {name, version, time}            no alias may point to it any more
    repair    a line that a power cut tore was mended

A line that does not follow from those before it is refused: nobody promotes what did not pass by
writing a line.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dpmlm.errors import IntegrityError, UserError
from dpmlm.release.registry.names import check_alias, check_name

JOURNAL = "journal.jsonl"
SCHEMA = "dpmlm.registry/1"
PASS = "PASS"
_ADDED = ("name", "release", "model_digest", "verdict", "created")


@dataclass(frozen=True)
class Version:
    """One release under a name."""

    name: str
    """Of the model."""
    number: int
    """Of the version, from 1."""
    run_id: str
    """Of the run that made it; "" where its bundle does not say."""
    model_digest: str
    """Of its weights."""
    release: str
    """`release_digest` of its bundle."""
    verdict: str
    """PASS, FAIL or INCONCLUSIVE."""
    created: str
    """When its bundle was signed, by its signer's clock."""
    added: str
    """When it was added."""
    added_by: str
    """Id of the key that signed that."""
    path: Path
    """Its bundle's folder, which nobody verified by giving its name."""
    state: str = "registered"
    """`registered`, `promoted` (an alias points to it) or `retired`."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


class History:
    """The state after the lines so far."""

    def __init__(self, journal: str, folder: Path) -> None:
        """`journal` is its name in messages, `folder` where versions lie."""
        self._journal, self._folder = journal, folder
        self._begun = False
        self._versions: dict[str, list[Version]] = {}
        self._places: dict[tuple[str, str], list[int]] = {}
        """Versions that each alias of a name pointed to, the present one last."""

    def apply(self, entry: Mapping[str, Any]) -> None:
        """Take one line; IntegrityError if it does not follow."""
        try:
            wrong = self._take(entry)
        except (KeyError, TypeError, ValueError, UserError):
            wrong = "it does not say what such a line says"
        if wrong:
            raise IntegrityError(
                f"{self._journal}, line {entry.get('number')}",
                wrong,
                "restore the registry from a copy, and look at who signed that line",
            )

    def versions(self, name: str | None = None) -> list[Version]:
        """All versions, or those of a name; UserError for a name that has none."""
        if name is None:
            return [one for known in sorted(self._versions) for one in self.versions(known)]
        if check_name(name) not in self._versions:
            raise UserError(f"model {name}", "the registry has none of that name", self._known())
        current = {places[-1] for (whose, _), places in self._places.items() if whose == name}
        return [
            replace(one, state="promoted") if one.number in current else one
            for one in self._versions[name]
        ]

    def version(self, name: str, number: int) -> Version:
        """One version; UserError if there is none."""
        found = self.versions(name)
        if not 1 <= number <= len(found):
            raise UserError(
                f"version {number} of {name}", f"it has versions 1 to {len(found)}", "name one"
            )
        return found[number - 1]

    def release(self, name: str, release: str) -> Version | None:
        """The version of a name that is this release."""
        known = self.versions(name) if name in self._versions else []
        return next((one for one in known if one.release == release), None)

    def next_number(self, name: str) -> int:
        """What the next version of a name will be called."""
        return len(self._versions.get(name, [])) + 1

    def aliases(self, name: str) -> dict[str, int]:
        """Version number by alias."""
        found = {alias: at[-1] for (whose, alias), at in self._places.items() if whose == name}
        return dict(sorted(found.items()))

    def at(self, name: str, alias: str) -> Version:
        """Where an alias points; UserError if nowhere."""
        self.versions(name)
        return self.version(name, self._place(name, alias)[-1])

    def before(self, name: str, alias: str) -> Version:
        """Where an alias pointed before; UserError if nowhere."""
        self.versions(name)
        places = self._place(name, alias)
        if len(places) < 2:
            raise UserError(
                f"alias {alias} of {name}",
                f"it pointed to no version before {places[-1]} that is not retired",
                "promote another version",
            )
        return self.version(name, places[-2])

    def refuse_retired(self, version: Version) -> None:
        """UserError for a retired version."""
        if version.state == "retired":
            raise UserError(
                f"version {version.number} of {version.name}", "it was retired", "name another"
            )

    def refuse_used(self, version: Version) -> None:
        """UserError for a version that an alias points to."""
        used = [name for name, at in self.aliases(version.name).items() if at == version.number]
        if used:
            raise UserError(
                f"version {version.number} of {version.name}",
                f"{', '.join(used)} points to it",
                "promote another version first, or roll back",
            )

    def _place(self, name: str, alias: str) -> list[int]:
        places = self._places.get((name, check_alias(alias)))
        if not places:
            known = ", ".join(self.aliases(name)) or "no alias"
            raise UserError(
                f"alias {alias} of {name}", f"it points nowhere; {name} has {known}", "promote"
            )
        return places

    def _known(self) -> str:
        return f"it has {', '.join(sorted(self._versions)) or 'no versions yet'}"

    def _take(self, entry: Mapping[str, Any]) -> str:
        """What is wrong with the line; "" for nothing, and then it is taken."""
        kind = entry["kind"]
        if not self._begun:
            self._begun = kind == "registry" and entry["schema"] == SCHEMA
            return "" if self._begun else "it does not begin a registry"
        if kind == "repair":
            return ""
        if kind == "add":
            return self._add(entry)
        version = self.version(entry["name"], entry["version"])
        if kind == "retire":
            return self._retire(version)
        if kind in ("promote", "rollback"):
            return self._point(version, check_alias(entry["alias"]), back=kind == "rollback")
        return f"no line is called {ascii(kind)[:40]}"

    def _add(self, entry: Mapping[str, Any]) -> str:
        name = check_name(entry["name"])
        texts = {field: entry[field] for field in (*_ADDED, "run_id")}
        if entry["version"] != self.next_number(name) or not all(
            isinstance(text, str) for text in texts.values()
        ):
            return "it adds no next version"
        if self.release(name, entry["release"]):
            return "it adds a release that is there already"
        number = self.next_number(name)
        self._versions.setdefault(name, []).append(
            Version(
                **texts,
                number=number,
                added=str(entry["time"]),
                added_by=str(entry["key_id"]),
                path=self._folder / name / str(number),
            )
        )
        return ""

    def _point(self, version: Version, alias: str, *, back: bool) -> str:
        places = self._places.setdefault((version.name, alias), [])
        if version.verdict != PASS or version.state == "retired":
            return "it points an alias to what did not pass, or was retired"
        if back:
            if places[-2:-1] != [version.number]:
                return "it rolls back to what was not before"
            places.pop()
        elif places[-1:] == [version.number]:
            return "it promotes what is promoted"
        else:
            places.append(version.number)
        return ""

    def _retire(self, version: Version) -> str:
        if version.state != "registered":
            return "it retires what is in use, or was retired"
        known = self._versions[version.name]
        known[version.number - 1] = replace(known[version.number - 1], state="retired")
        for (name, _), places in self._places.items():
            if name == version.name:
                places[:] = _without(places, version.number)
        return ""


def _without(places: list[int], number: int) -> list[int]:
    """The places but `number`, none twice in a row."""
    kept: list[int] = []
    for place in places:
        if place != number and kept[-1:] != [place]:
            kept.append(place)
    return kept
