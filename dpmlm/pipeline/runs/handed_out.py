"""Runs and releases that lie outside a workspace: in the ledger, in a run's log, in a registry.

A run makes its bundle again when its policy or its recipients change, and a workspace is removed
once somebody was forgotten. What was trained and released before is in nobody's workspace then, but
the ledger keeps the run, the log a line of each release, and a registry a copy.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpmlm.config import RunConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.release.log.entry import name_of
from dpmlm.release.log.reading import read_log
from dpmlm.release.registry.local import Registry


@dataclass(frozen=True)
class Outside:
    """What is known of all runs of one name; as it says, signatures are not looked at."""

    releases: list[dict[str, Any]]
    """Each with `run_id`, `release`, `verdict`, `created`, `log` (its line, from 1) and
    `registered` (NAME/NUMBER and aliases)."""
    charged: list[str]
    """Ids of its runs in the ledger."""
    problems: list[str] = field(default_factory=list)
    """What could not be read, a sentence each."""

    def others(self, run_id: str | None) -> list[str]:
        """Ids of every run of the name but this one, sorted."""
        found = {*self.charged, *(one["run_id"] for one in self.releases)}
        return sorted(found - {run_id})

    def sentences(self, run_id: str | None) -> list[str]:
        """All of it for a person, the run with this id being the one at hand."""
        others = self.others(run_id)
        said = []
        if others:
            said.append(
                f"runs of this name are known that were not looked into: {', '.join(others)}; "
                "whether text of theirs is in them cannot be said from here"
            )
        return [*said, *(_sentence(one) for one in self.releases), *self.problems]


def handed_out(config: RunConfig, registry: Path | None) -> Outside:
    """Every run of the run file's name that its ledger, its log and a registry know.

    Raises UserError where `registry` is none.
    """
    found: dict[str, dict[str, Any]] = {}
    charged: list[str] = []
    problems = []
    if config.ledger.path.exists():
        try:
            charged = [one for one in open_ledger(config.ledger).run_ids if _of(config, one)]
        except UserError as error:
            problems.append(f"the ledger was not read, and {error.given}: {error.rule}")
    if config.release.log is not None and config.release.log.exists():
        try:
            for number, entry in enumerate(read_log(config.release.log, None).entries, start=1):
                if _of(config, entry["run_id"]):
                    _known(found, entry)["log"] = number
        except UserError as error:
            problems.append(f"the log was not read, and {error.given}: {error.rule}")
    if registry is not None:
        shelf = Registry(registry)
        for version in shelf.versions():
            if _of(config, version.run_id):
                aliases = [
                    f"@{alias}"
                    for alias, number in shelf.aliases(version.name).items()
                    if number == version.number
                ]
                place = " ".join([f"{version.name}/{version.number}", *aliases])
                one = {**version.to_json(), "run_id": version.run_id}
                _known(found, one)["registered"].append(place)
    return Outside(list(found.values()), charged, problems)


def _of(config: RunConfig, run_id: str) -> bool:
    return name_of(run_id) == config.name


def _known(found: dict[str, dict[str, Any]], one: dict[str, Any]) -> dict[str, Any]:
    fields = {name: one[name] for name in ("run_id", "release", "verdict", "created")}
    return found.setdefault(one["release"], {**fields, "log": None, "registered": []})


def _sentence(one: dict[str, Any]) -> str:
    places = [] if one["log"] is None else [f"line {one['log']} of the log"]
    places += [f"registered as {place}" for place in one["registered"]]
    return (
        f"run {one['run_id']} released as {one['release']} at {one['created']} with verdict "
        f"{one['verdict']}: " + ", ".join(places)
    )
