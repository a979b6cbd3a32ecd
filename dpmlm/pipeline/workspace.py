"""The workspace: a folder of sealed stages that belongs to one run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dpmlm.artifacts import atomic_write
from dpmlm.artifacts.atomic import sweep_temporaries
from dpmlm.canonical import canonical_json, digest
from dpmlm.config import RunConfig, claim_fields
from dpmlm.errors import UserError

SCHEMA = "dpmlm.workspace/1"
BUNDLE = "bundle"
"""Folder of a run's release in its workspace."""


class Workspace:
    """A folder with `run.json` (whose run this is, nothing private) and a folder a stage."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stage(self, name: str) -> Path:
        """Where a stage keeps its artifact."""
        return self.path / name

    def claim(self, name: str, settings: dict[str, Any]) -> None:
        """Take the folder for this run, unless it already is this run's."""
        if not self.check(name, settings):
            self.path.mkdir(parents=True, exist_ok=True)
            sweep_temporaries(self.path)
            with atomic_write(self.path / "run.json") as file:
                file.write(canonical_json(_marker(name, settings)))

    def check(self, name: str, settings: dict[str, Any]) -> bool:
        """Whether the folder is this run's already; another run's is refused and left as it is.

        `settings` holds every field that decides results.
        """
        marker = self.path / "run.json"
        mine = _marker(name, settings)
        if marker.exists():
            found = self._read(marker)
            if found.get("digest") != mine["digest"] or found.get("name") != name:
                raise UserError(
                    f"workspace {self.path} with {_first_difference(found, mine)}",
                    "it already holds another run, and a run's settings are never edited",
                    "name another folder (--set workspace=...) or remove this one",
                )
            return True
        if self.path.exists() and not self.path.is_dir():
            raise UserError(
                f"workspace {self.path}", "it is a file", "name a folder (--set workspace=...)"
            )
        if self.path.exists() and any(not _is_draft(path) for path in self.path.iterdir()):
            raise UserError(
                f"workspace {self.path}",
                "the folder is not empty and no run of ours",
                "name an empty or new folder (--set workspace=...)",
            )
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out while this one works."""
        with self._holding(""):
            for other in self.path.parent.glob(f".{escape(self.path.name)}.worker-*.lock"):
                self._refuse_if_held(other)
            yield

    @contextmanager
    def shared(self, worker: str) -> Iterator[None]:
        """Work beside other workers of other names, and beside no run.

        Each side takes its own lock before it looks at the other's: not both get in.
        """
        with self._holding(f".worker-{worker}"):
            self._refuse_if_held(self._lock_file(""))
            yield

    def other_workers(self, worker: str) -> bool:
        """Whether any worker but this one is in the workspace."""
        mine = self._lock_file(f".worker-{worker}").name
        for file in self.path.parent.glob(f".{escape(self.path.name)}.worker-*.lock"):
            if file.name != mine:
                try:
                    with FileLock(file, timeout=0):
                        pass
                except Timeout:
                    return True
        return False

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """One worker at a time prepares a stage's folder; the others wait."""
        with FileLock(self._lock_file(".beginning"), timeout=300):
            yield

    def _lock_file(self, suffix: str) -> Path:
        return self.path.with_name(f".{self.path.name}{suffix}.lock")

    def _refuse_if_held(self, file: Path) -> None:
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise self._not_locked(error, file) from None
        lock.release()

    @contextmanager
    def _holding(self, suffix: str) -> Iterator[None]:
        if not self.path.name:
            raise UserError(
                f"workspace {self.path}", "it is the root folder", "name one (--set workspace=...)"
            )
        lock = FileLock(self._lock_file(suffix))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except OSError as error:  # Timeout is one
            raise self._not_locked(error, Path(lock.lock_file)) from None
        try:
            yield
        finally:
            lock.release()

    def _not_locked(self, error: OSError, file: Path) -> UserError:
        # FileLock also times out where its file cannot be made at all, as in /proc.
        if isinstance(error, Timeout) and file.exists():
            return UserError(
                f"workspace {self.path}",
                "another process is working in it",
                "wait for it, or stop it and run this again",
            )
        reason = f" ({error.strerror})" if error.strerror else ""
        return UserError(
            f"workspace {self.path}",
            f"the folder {self.path.parent} cannot be written{reason}",
            "name another folder (--set workspace=...)",
        )

    def _read(self, marker: Path) -> dict[str, Any]:
        try:
            # A pipe would be waited for without end.
            found = json.loads(marker.read_bytes()) if marker.is_file() else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise UserError(f"{marker}", "it is damaged", "restore it, or start in a new workspace")
        return found


def _is_draft(path: Path) -> bool:
    """Whether a kill left it while the marker was written."""
    return path.name.startswith(".run.json.") and path.name.endswith(".tmp")


def deciding_settings(config: RunConfig) -> dict[str, Any]:
    """Every field that decides results: not where keys and files lie, nor speed."""
    fields = claim_fields(config)
    for place in ("workspace", "keys", "ledger", "telemetry", "release", "name"):
        fields.pop(place)
    return fields


def _marker(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"schema": SCHEMA, "name": name, "settings": settings, "digest": digest(settings)}


def _first_difference(found: dict[str, Any], mine: dict[str, Any]) -> str:
    """The first setting that differs, named: public values of the run file only."""
    if found.get("name") != mine["name"]:
        return f"run {found.get('name')!r}"

    def walk(old: Any, new: Any, key: str) -> str | None:
        if isinstance(old, dict) and isinstance(new, dict):
            for name in sorted(old.keys() | new.keys()):
                if hit := walk(old.get(name), new.get(name), f"{key}.{name}" if key else name):
                    return hit
            return None
        return f"{key} = {old!r} (now {new!r})" if old != new else None

    return walk(found.get("settings"), mine["settings"], "") or "other settings"
