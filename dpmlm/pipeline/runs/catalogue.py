"""Runs found on disk: `dpmlm runs list`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmlm.errors import UserError
from dpmlm.pipeline.runs.entry import Entry, entry_of, is_workspace, problems
from dpmlm.pipeline.runs.words import columns, spelled
from dpmlm.release.inventory import MANIFEST


@dataclass(frozen=True)
class Listing:
    """Every workspace below a folder."""

    root: str
    entries: list[Entry]
    unreadable: list[str]
    """Folders that could not be looked into."""

    def to_json(self) -> dict[str, Any]:
        runs = [entry.to_json() for entry in self.entries]
        return {"root": self.root, "runs": runs, "unreadable": self.unreadable}

    def text(self) -> str:
        rows = [("name", "verdict", "epsilon", "steps", "reached", "when", "workspace")]
        rows += [
            (
                entry.name or "?", entry.verdict or "-", spelled(entry.epsilon),
                spelled(entry.steps), entry.reached, entry.created or "-",
                spelled(entry.workspace),
            )
            for entry in self.entries
        ]  # fmt: skip
        lines = columns(rows) if self.entries else [f"no run below {self.root}"]
        lines += problems(self.entries)
        lines += [f"! {spelled(path)}: it cannot be read" for path in self.unreadable]
        return "\n".join(lines)


def list_runs(root: Path) -> Listing:
    """Every workspace at or below `root`, by path; links are not followed."""
    if not root.is_dir():
        raise UserError(f"folder {root}", "there is no such folder", "check the path")
    found: list[Path] = []
    unreadable: list[str] = []

    def failed(error: OSError) -> None:
        unreadable.append(str(error.filename))

    for base, folders, files in os.walk(root, onerror=failed):
        if MANIFEST not in files and is_workspace(Path(base)):
            found.append(Path(base))
            folders.clear()
    return Listing(str(root), [entry_of(path) for path in sorted(found)], sorted(unreadable))
