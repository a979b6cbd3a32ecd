"""One stage of a run: what it reads, what it depends on, how it is skipped and resumed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from dpmlm.artifacts import SealedFolder
from dpmlm.canonical import digest
from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.progress import Report

Build = Callable[[Run, SealedFolder, Report], dict[str, Any]]
"""Fills the folder, skipping what it holds already, and returns fields of its manifest."""


@dataclass(frozen=True)
class Stage:
    """A named step from sealed artifacts to one sealed artifact."""

    name: str
    inputs: tuple[str, ...]
    """Stages whose artifacts it reads."""
    settings: Callable[[Run], dict[str, Any]]
    """What beside its inputs decides its output."""
    build: Build
    clear: Callable[[SealedFolder], None] | None = None
    """Removes what only an unfinished stage needs; a kill may come before it or within it."""

    def key(self, run: Run) -> str:
        """Digest of everything that decides the output; a finished stage with it is skipped."""
        inputs = {name: run.folder(name).digest for name in self.inputs}
        return digest({"stage": self.name, "settings": self.settings(run), "inputs": inputs})


def execute(run: Run, stages: Sequence[Stage]) -> None:
    """Bring every stage to its end, skipping those that are there already.

    Raises:
        UserError: a finished stage was made from other inputs or settings.
    """
    for stage in stages:
        key = stage.key(run)
        path = run.workspace.stage(stage.name)
        folder = SealedFolder.open_or_create(path, [run.identity], run.own, role=stage.name)
        if folder.manifest is not None:
            if folder.manifest["key"] != key:
                raise UserError(
                    f"stage {stage.name} in {run.workspace.path}",
                    "it was made from other text or settings, and results are never mixed",
                    "use another workspace (--set workspace=...)",
                )
            run.progress.say(f"{stage.name}: done before")
            _clear(stage, folder)
            continue
        run.progress.say(stage.name)
        started = time.monotonic()
        with run.progress.bar(stage.name) as report:
            fields = stage.build(run, folder, report)
        folder.finish(
            {
                **fields,
                "stage": stage.name,
                "key": key,
                "seconds": round(time.monotonic() - started, 3),
                "version": version("dpmlm-framework"),
            }
        )
        _clear(stage, folder)


def _clear(stage: Stage, folder: SealedFolder) -> None:
    # Only now: without a manifest the stage is built again, and may need what is cleared.
    if stage.clear is not None:
        stage.clear(folder)
